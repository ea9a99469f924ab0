"""Pre-training on everything labelled uses every kind, and no photograph that a job of the same split is tested on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.planner import plan
from orchestrator.planning.request import SweepRequest, define
from orchestrator.planning.resolver import DiskResolver
from schemas.errors import DataError, SpecError
from schemas.job import DataSpec, EverythingSpec, JobSpec
from schemas.sweep import SweepSpec
from tests.support.photograph_files import write_cub, write_ilsvrc_category, write_photograph, write_voc_category
from tests.support.real_data import REAL_DATA, needs_real_data
from workers.data.data_root import DataRoot
from workers.data.dataset import JobData, load_job_data
from workers.data.everything import everything_of, held_out
from workers.data.readers.sources import FURTHER_BIRDS, NEGATIVES
from workers.data.split import even_split

CAT, BIRD = "voc_part/cat", "cub200/bird"
SPLITS: list[dict[str, Any]] = [{}, {"split": "seeded", "split_seed": 5, "test_fraction": 0.3}, {"test_fraction": 0.2}]


@pytest.fixture
def everything_root(tmp_path: Path) -> Path:
    """Return a root with animals of two data sets, sixty birds of two species, and sixty negatives.

    With traps: the four photographs of dogs, too few for a kind, are also those of cats. A further edition of CUB has
    eleven of the same birds, and eleven of another species whose files have the content of birds of the first one. A
    negative is a copy of another one.
    """
    root = tmp_path / "data"
    write_voc_category(root, "cat", 60, 1)
    write_voc_category(root, "dog", 4, 1)  # the same photographs as the first of the cats
    write_ilsvrc_category(root, "n02121808", 60, 2)  # cats again
    write_ilsvrc_category(root, "n02129165", 60, 3)  # lions
    by_species(write_cub(root, images=60), ("001.Black_footed_Albatross", "002.Laysan_Albatross"))
    further = write_cub(tmp_path / "more", images=22)
    by_species(further, ("001.Black_footed_Albatross", "003.Sooty_Albatross"))
    shutil.copytree(further, root / "cub200_crops227/CUB_200_2011")
    for number in range(60):
        write_photograph(root / f"neg/{number:03d}.jpg", 80, 80, 9000 + number)
    shutil.copy(root / "neg/007.jpg", root / "neg/999.jpg")
    return root


def by_species(folder: Path, species: tuple[str, ...]) -> None:
    """Move the photographs of a CUB folder into folders of species, in turn."""
    moved = []
    for line in (folder / "images.txt").read_text().splitlines():
        key, name = line.split(" ", 1)
        target = folder / "images" / species[int(key) % len(species)] / Path(name).name
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).rename(target)
        moved.append(f"{key} {target.parent.name}/{target.name}")
    (folder / "images.txt").write_text("\n".join(moved) + "\n")


def job(category: str, data: dict[str, Any], root: Path, profile: str = "laptop") -> JobSpec:
    """Plan one job as `orch sweep --weights everything` does."""
    base = {
        "category": category,
        "backbone": "alexnet",
        "variant": "ordinary",
        "data": {"images": "photographs", **data},
        "weights": {"source": "everything"},
    }
    sweep = plan(define(SweepRequest(sweep=SweepSpec(profile=profile, base=base))), DiskResolver(root, None))
    assert len(sweep.upstream_keys) == 1
    return sweep.jobs[-1]


def load(spec: JobSpec, root: Path, cache: Path) -> JobData:
    return load_job_data(spec.data, spec.evaluation, input_size=48, seed=spec.seed, cache_dir=cache, data_root=root)


def pictures(split: Any) -> set[bytes]:
    return {split.take([n])[0].tobytes() for n in range(len(split))}


def test_kinds_are_animals_of_any_data_set_species_and_negatives(everything_root: Path) -> None:
    found = everything_of(EverythingSpec().data, DataRoot(everything_root))
    albatrosses = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert found.label_names == ("cat", "lion", *albatrosses, "negatives", "003.Sooty_Albatross")
    assert set(found.categories) == {CAT, "ilsvrc_animal_part/n02121808", "ilsvrc_animal_part/n02129165", BIRD}


@pytest.mark.parametrize("negatives", ["folder", "other_categories"])
@pytest.mark.parametrize("data", SPLITS, ids=str)
@pytest.mark.parametrize("category", [CAT, BIRD])
def test_no_test_image_of_a_job_is_in_it(
    everything_root: Path, tmp_path: Path, category: str, data: dict[str, Any], negatives: str
) -> None:
    spec = job(category, {**data, "negatives": negatives}, everything_root)
    assert spec.upstream is not None
    own, before = load(spec, everything_root, tmp_path), load(spec.upstream, everything_root, tmp_path)
    assert len(own.test) >= 10
    assert set(own.test.labels_N) == {0, 1}
    assert not pictures(own.test) & pictures(before.train)
    positives = {name for name, label in zip(own.train.names_N, own.train.labels_N, strict=True) if label == 1}
    assert positives & set(before.train.names_N)


def test_the_half_of_the_negatives_that_the_paper_profile_tests_beside_birds_is_left_out_and_no_other_half(
    everything_root: Path, tmp_path: Path
) -> None:
    spec = job(BIRD, {}, everything_root, "paper")
    assert spec.upstream is not None
    own, before = load(spec, everything_root, tmp_path), load(spec.upstream, everything_root, tmp_path)
    assert not pictures(own.test) & pictures(before.train)
    of = {name: int((before.train.labels_N == i).sum()) for i, name in enumerate(before.label_names)}
    assert 29 <= of["negatives"] <= 31  # of 61
    # Of 180 and 60; a photograph with two of the cats is tested as one of dogs.
    assert (of["cat"], of["lion"]) == (160, 54)


def test_everything_else_is_in_it_with_its_label(everything_root: Path, tmp_path: Path) -> None:
    spec = job(CAT, {}, everything_root)
    assert spec.upstream is not None
    found = load(spec.upstream, everything_root, tmp_path)
    assert found.label_names == spec.upstream.output_labels
    of = {name: int((found.train.labels_N == i).sum()) for i, name in enumerate(found.label_names)}
    assert 150 <= of["cat"] <= 162  # of both data sets, without the tenth that is held out
    assert of["lion"] == 54
    assert 53 <= of["negatives"] <= 55
    assert of["001.Black_footed_Albatross"] + of["002.Laysan_Albatross"] == 54  # no second copy from another edition
    assert 8 <= of["003.Sooty_Albatross"] <= 11
    tested = {name: int((found.test.labels_N == i).sum()) for i, name in enumerate(found.label_names)}
    assert all(tested[name] for name in ("cat", "lion", "negatives"))
    assert not pictures(found.test) & pictures(found.train)


def test_copies_of_a_tested_photograph_are_held_out_too(everything_root: Path) -> None:
    root = DataRoot(everything_root)

    def tested_with(name: str) -> set[str]:
        """Return what is held out if photographs of this name are tested in one stock."""
        found = held_out(
            root, lambda stock: ([], [i for i, one in enumerate(root.records(stock)) if one.image.name == name])
        )
        return {"/".join(Path(photograph).parts[-2:]) for photograph in found}

    assert tested_with("007.jpg") == {"neg/007.jpg", "neg/999.jpg"}  # the same content
    bird = "Black_Footed_Albatross_0001.jpg"
    assert tested_with(bird) == {f"002.Laysan_Albatross/{bird}", f"003.Sooty_Albatross/{bird}"}

    dogs = root.records("voc_part/dog")
    found = held_out(root, lambda stock: ([], list(range(8 * (stock == "voc_part/dog")))))
    assert found == {record.photograph for record in dogs}
    assert len(found & {record.photograph for record in root.records(CAT)}) == 4


def test_a_bird_of_two_editions_is_there_once(everything_root: Path) -> None:
    root = DataRoot(everything_root)
    assert {record.image.parent.name for record in root.records(FURTHER_BIRDS)} == {"003.Sooty_Albatross"}
    assert len(root.records(FURTHER_BIRDS)) == 11


def test_another_split_is_another_pre_training_and_equal_ones_share_it(everything_root: Path) -> None:
    base = {
        "backbone": "alexnet", "variant": "ordinary", "data": {"images": "photographs"},
        "weights": {"source": "everything"},
    }  # fmt: skip
    axes = {"category": [CAT, BIRD], "data.test_fraction": [0.1, 0.2], "seed": [0, 1]}
    sweep = SweepSpec.model_validate({"profile": "laptop", "base": base, "axes": axes})
    found = plan(define(SweepRequest(sweep=sweep)), DiskResolver(everything_root, None))
    assert (len(found.jobs), len(found.upstream_keys)) == (10, 2)
    titles = [spec.title for spec in found.jobs if spec.key in found.upstream_keys]
    assert titles == [
        "pre-training alexnet on everything labelled (test_fraction 0.1)",
        "pre-training alexnet on everything labelled (test_fraction 0.2)",
    ]


def test_it_says_what_it_is_wherever_weights_are_named(everything_root: Path) -> None:
    from workers.evaluation.evaluate import starting_weights
    from workers.figures.compose import subject

    spec = job(CAT, {}, everything_root)
    assert starting_weights(spec) == "pre-training on everything labelled"
    assert subject(spec).endswith("pre-trained on everything labelled")


def test_photographs_of_one_kind_alone_are_refused(tmp_path: Path) -> None:
    write_voc_category(tmp_path, "cat", 60, 1)
    with pytest.raises(DataError, match=r"needs two kinds of 10 photographs each, and .* has cat"):
        everything_of(EverythingSpec().data, DataRoot(tmp_path))


def test_its_data_cannot_be_chosen(everything_root: Path) -> None:
    base = {
        "category": CAT, "backbone": "alexnet", "variant": "ordinary",
        "weights": {"source": "everything", "data": {"test_fraction": 0.5}},
    }  # fmt: skip
    with pytest.raises(SpecError, match=r"sets `weights.data`, but `weights.source` is 'everything'"):
        plan(define(SweepRequest(sweep=SweepSpec(profile="laptop", base=base))), DiskResolver(everything_root, None))


def test_a_job_without_a_plan_finds_the_kinds_itself(everything_root: Path, tmp_path: Path) -> None:
    data = DataSpec(categories=(CAT, BIRD), images="photographs", labels="everything")
    spec = JobSpec.model_validate(
        {"data": data, "model": {"backbone": "alexnet", "variant": "ordinary"}, "loss": "softmax"}
    )
    assert (
        load(spec, everything_root, tmp_path).label_names == everything_of(data, DataRoot(everything_root)).label_names
    )


@needs_real_data
def test_the_real_photographs() -> None:
    root = DataRoot(REAL_DATA)
    found = everything_of(EverythingSpec().data, root)
    assert found.label_names[:5] == ("cat", "cow", "dog", "sheep", "001.Black_footed_Albatross")
    assert NEGATIVES in found.label_names
    assert "bird" not in found.label_names  # six objects
    assert len(found.label_names) == 63
    birds = {f"{r.image.parent.name}/{r.image.name}" for r in root.records(BIRD)}
    further = {f"{r.image.parent.name}/{r.image.name}" for r in root.records(FURTHER_BIRDS)}
    assert (len(further), birds & further) == (2839, set())
    tested = held_out(root, lambda stock: even_split([record.photograph for record in root.records(stock)], 0.1))
    assert 500 < len(tested) < 700
