"""Networks that distinguish species have an output for each of CUB's, and for other data sets' categories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.job import DataSpec, EvaluationSpec, JobSpec
from tests.support.photograph_files import write_cub, write_voc_category
from tests.support.real_data import REAL_DATA, needs_real_data
from workers.data.data_root import DataRoot
from workers.data.dataset import JobData, load_job_data
from workers.data.readers.species import label_names


def spec(*categories: str, **changes: Any) -> DataSpec:
    return DataSpec(categories=categories, images="photographs", labels="species", **changes)


def load(data: DataSpec, root: Path, cache: Path) -> JobData:
    return load_job_data(data, EvaluationSpec(), input_size=48, seed=0, cache_dir=cache, data_root=root)


@pytest.fixture
def species_root(tmp_path: Path) -> Path:
    """Return a root of sixty birds of two species and sixty cats."""
    folder = write_cub(tmp_path / "data", images=60)
    lines = (folder / "images.txt").read_text().splitlines()
    moved = []
    for line in lines:
        key, name = line.split(" ", 1)
        species = "002.Laysan_Albatross" if int(key) % 2 else "001.Black_footed_Albatross"
        target = folder / "images" / species / Path(name).name
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).rename(target)
        moved.append(f"{key} {species}/{Path(name).name}")
    (folder / "images.txt").write_text("\n".join(moved) + "\n")
    write_voc_category(tmp_path / "data", "cat", 60, 1)
    return tmp_path / "data"


def test_species_and_categories_are_outputs_side_by_side(species_root: Path, tmp_path: Path) -> None:
    data = load(spec("voc_part/cat", "cub200/bird"), species_root, tmp_path / "cache")
    assert data.label_names == ("voc-cat", "001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert data.category_names == ("voc_part/cat", "cub200/bird")  # on which filters are measured
    assert set(zip(data.train.labels_N, data.train.categories_N, strict=True)) == {(0, 0), (1, 1), (2, 1)}
    albatrosses = (species_root / "CUB_200_2011/images/002.Laysan_Albatross").iterdir()
    laysan = {path.name for path in albatrosses}
    for label, name in zip(data.train.labels_N, data.train.names_N, strict=True):
        assert (label == 2) == (name in laysan)


def test_species_of_one_category_need_no_negatives(species_root: Path, tmp_path: Path) -> None:
    data = load(spec("cub200/bird"), species_root, tmp_path / "cache")
    assert set(data.train.labels_N.tolist()) == {0, 1}
    assert set(data.train.categories_N.tolist()) == {0}


def test_a_job_has_an_output_for_every_species_that_is_there(species_root: Path) -> None:
    names = label_names(spec("voc_part/cat", "cub200/bird"), DataRoot(species_root).records)
    planned = spec("voc_part/cat", "cub200/bird", label_names=names)
    job = JobSpec.model_validate(
        {"data": planned, "model": {"backbone": "alexnet", "variant": "ordinary"}, "loss": "softmax"}
    )
    assert (job.n_outputs, job.output_labels[0], job.is_single) == (3, "voc-cat", False)
    assert job.title == "2 categories softmax by species alexnet ordinary"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "generated", "train_per_category": 5, "test_per_category": 5}, "only photographs of cub200/bird"),
        ({"categories": ("voc_part/cat", "voc_part/dog")}, "only photographs of cub200/bird"),
    ],
)
def test_species_where_there_are_none_are_refused(changes: dict[str, Any], message: str) -> None:
    fields = {"categories": ("cub200/bird",), "images": "photographs", "labels": "species", **changes}
    with pytest.raises(ValueError, match=message):
        DataSpec.model_validate(fields)


def test_an_interpretable_network_takes_categories(species_root: Path) -> None:
    fields = {"data": spec("cub200/bird"), "model": {"backbone": "alexnet", "variant": "interpretable"}}
    with pytest.raises(ValueError, match="Species are for pre-training"):
        JobSpec.model_validate(fields)


@needs_real_data
def test_the_real_species_are_found() -> None:
    names = label_names(spec("voc_part/sheep", "cub200/bird"), DataRoot(REAL_DATA).records)
    assert names[:2] == ("voc-sheep", "001.Black_footed_Albatross")
    assert len(names) == 11
