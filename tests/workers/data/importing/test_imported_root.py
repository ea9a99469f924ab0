"""An imported data set under a data root: negatives, digests, counts, and what jobs make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from schemas.errors import DataAbsent, DataError
from schemas.job import DataSpec, EvaluationSpec
from tests.support.photograph_files import write_photograph
from workers.data.checks import check_data, data_digest
from workers.data.data_root import DataRoot
from workers.data.dataset import JobData, load_job_data
from workers.data.everything import everything_of
from workers.data.importing.storing import Sources, import_data
from workers.data.inventory import take_inventory
from workers.data.pushed.description import DescribedRoot, Description, describe
from workers.data.readers.imported import DESCRIPTION, OBJECTS
from workers.data.readers.sources import NEGATIVES
from workers.data.verify import verify

COUNT = 60
CAT, DOG, NEG = "mittens/cat", "mittens/dog", "mittens/neg"


def write_pets(folder: Path, *, negatives: int = 0, dogs: int = COUNT) -> Path:
    """Write photographs of 60 x 60 pixels and a table that marks the ears of the cats; dogs have no landmark."""
    rows = ["image,category,ear_x,ear_y"]
    for kind, count in (("cat", COUNT), ("dog", dogs)):
        for n in range(count):
            write_photograph(folder / f"{kind}/{n:02d}.png", 60, 60, 1000 * len(kind) + n + 7 * (kind == "dog"))
            rows.append(f"{kind}/{n:02d}.png,{kind},{'20,15' if kind == 'cat' else ','}")
    for n in range(negatives):
        write_photograph(folder / f"neg/{n}.png", 60, 60, 5000 + n)
    (folder / "ears.csv").write_text("\n".join(rows))
    return folder


def import_pets(root: Path, pets: Path, name: str = "mittens") -> DataRoot:
    import_data(Sources(pets, csv=pets / "ears.csv"), name, root)
    return DataRoot.open(root)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """Sixty cats, sixty dogs, fifty negatives."""
    folder = tmp_path_factory.mktemp("pets")
    return import_pets(folder / "data", write_pets(folder / "pets", negatives=50))


def loaded(root: DataRoot, cache: Path, *categories: str, **fields: object) -> JobData:
    data = DataSpec(categories=categories, images="photographs", **fields)
    return load_job_data(data, EvaluationSpec(split="all"), input_size=48, seed=0, cache_dir=cache, data_root=root.path)


def test_a_job_measures_the_landmarks_of_an_imported_category(pets: DataRoot, tmp_path: Path) -> None:
    found = loaded(pets, tmp_path, CAT)
    assert found.landmark_names == ("ear",)
    # The centre of pixel 0 is 0.5 pixels from the edge: 15 * 48 / 60 - 0.5 and 20 * 48 / 60 - 0.5.
    np.testing.assert_allclose(found.measured.landmarks_NK2[:, 0], np.full((COUNT, 2), [11.5, 15.5]), rtol=1e-6)
    assert found.label_names == ("mittens-cat",)


def test_negatives_are_the_other_categories_and_the_negatives_of_the_data_set(pets: DataRoot, tmp_path: Path) -> None:
    names = loaded(pets, tmp_path, CAT).category_names
    assert names == (CAT, DOG, NEG)
    assert loaded(pets, tmp_path, CAT, negatives="folder").category_names == (CAT, NEG)


def test_without_landmarks_a_job_has_one_column_of_nan(pets: DataRoot, tmp_path: Path) -> None:
    found = loaded(pets, tmp_path, DOG)
    assert found.landmark_names == ()
    assert found.measured.landmarks_NK2.shape == (COUNT, 1, 2)
    assert np.isnan(found.measured.landmarks_NK2).all()


def test_two_imported_categories_are_told_apart_by_one_network(pets: DataRoot, tmp_path: Path) -> None:
    found = loaded(pets, tmp_path, CAT, DOG)
    assert found.label_names == ("mittens-cat", "mittens-dog")
    assert np.isnan(found.measured.landmarks_NK2[found.measured.labels_N == 1]).all()


def test_negatives_need_not_be_other_categories(tmp_path: Path) -> None:
    root = import_pets(tmp_path / "data", write_pets(tmp_path / "pets", negatives=50, dogs=0))
    check_data(DataSpec(categories=(CAT,), images="photographs"), root)


def test_without_negatives_the_message_says_how_to_give_them(tmp_path: Path) -> None:
    root = import_pets(tmp_path / "data", write_pets(tmp_path / "pets", dogs=0))
    with pytest.raises(DataError, match=r"mittens/cat has no negatives.*folder `neg/`"):
        check_data(DataSpec(categories=(CAT,), images="photographs"), root)


def test_the_folder_of_negatives_of_the_root_serves_a_data_set_without_its_own(tmp_path: Path) -> None:
    root = import_pets(tmp_path / "data", write_pets(tmp_path / "pets", dogs=0))
    for n in range(50):
        write_photograph(root.path / f"neg/{n}.png", 60, 60, n)
    assert root.negative_stock(CAT) == NEGATIVES
    check_data(DataSpec(categories=(CAT,), images="photographs", negatives="folder"), DataRoot.open(root.path))


def test_imported_photographs_are_no_negatives_of_the_paper_s_categories(pets: DataRoot) -> None:
    assert pets.other_categories("voc_part/cow") == []
    assert pets.other_categories(DOG) == [CAT, NEG]


def test_a_landmark_that_was_moved_makes_another_digest(tmp_path: Path) -> None:
    root = import_pets(tmp_path / "data", write_pets(tmp_path / "pets"))
    data = DataSpec(categories=(CAT,), images="photographs")
    before = data_digest(data, root)
    table = root.path / "mittens" / OBJECTS
    table.write_text(table.read_text().replace("20.0,15.0", "20.0,15.5", 1))
    assert data_digest(data, DataRoot.open(root.path)) != before


def test_pretraining_on_everything_knows_imported_categories(pets: DataRoot) -> None:
    data = DataSpec(categories=(CAT,), images="photographs", labels="everything")
    assert everything_of(data, pets).label_names == ("cat", "dog", NEGATIVES)


def test_the_inventory_counts_and_names_unknown_entries(tmp_path: Path) -> None:
    root = import_pets(tmp_path / "data", write_pets(tmp_path / "pets", negatives=2))
    (root.path / "truth").mkdir()
    (root.path / "truth/giraffe.csv").write_text("x")
    (root.path / "holiday").mkdir()
    found = take_inventory(DataRoot.open(root.path))
    mine = found.datasets[-1]
    assert (mine.dataset, mine.negatives) == ("mittens", 2)
    assert [(one.category, one.objects, dict(one.landmarks)) for one in mine.categories] == [
        (CAT, COUNT, {"ear": COUNT}),
        (DOG, COUNT, {}),
    ]
    assert found.unused == (root.path / "truth/giraffe.csv",)
    assert found.unknown == (root.path / "holiday",)
    assert not found.is_empty


def test_verifying_opens_the_negatives_too(tmp_path: Path) -> None:
    root = import_pets(tmp_path / "data", write_pets(tmp_path / "pets", negatives=2))
    (root.path / "mittens/images/neg/1.png").unlink()
    found = {one.category: one for one in verify(DataRoot.open(root.path), ())}
    assert [flaw.why for flaw in found[NEG].flaws] == ["missing"]
    assert not found[CAT].flaws


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        (DESCRIPTION, "{", "orch-data.json cannot be read"),
        (DESCRIPTION, '{"format": 2, "name": "mittens", "categories": {}}', "format: Input should be 1"),
        (DESCRIPTION, '{"name": "voc_part", "categories": {}}', "'voc_part' is no name for a data set"),
        (OBJECTS, "image,category\na.png,lynx\n", "line 2, cannot be read: the category 'lynx' is not one of"),
    ],
)
def test_a_changed_file_is_refused_by_name(tmp_path: Path, file: str, content: str, why: str) -> None:
    root = import_pets(tmp_path / "data", write_pets(tmp_path / "pets"))
    (root.path / "mittens" / file).write_text(content)
    with pytest.raises(DataError, match=why):
        DataRoot.open(root.path).records(CAT)


def test_two_data_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    root = import_pets(tmp_path / "data", write_pets(tmp_path / "pets", dogs=0))
    (root.path / "mittens").rename(root.path / "other")
    import_pets(tmp_path / "more", tmp_path / "pets")
    (tmp_path / "more/mittens").rename(root.path / "mittens")
    with pytest.raises(DataError, match="are both called mittens"):
        DataRoot.open(root.path)


def test_an_absent_data_set_is_named_with_those_that_are_there(pets: DataRoot) -> None:
    with pytest.raises(DataAbsent, match=r"has no data set mitens. Did you mean 'mittens'\? Imported are: mittens"):
        pets.records("mitens/cat")


def test_a_pushed_data_set_keeps_its_landmarks_and_negatives(pets: DataRoot) -> None:
    described, _ = describe(pets)
    read = Description.model_validate_json(described.encoded)
    there = DescribedRoot(read, "store", None)
    assert there.category(CAT) == pets.category(CAT)
    assert there.stocks() == pets.stocks() == [CAT, DOG, NEG]
    data = DataSpec(categories=(CAT,), images="photographs")
    check_data(data, there)
    assert data_digest(data, there) == data_digest(data, pets)
