"""ILSVRC Animal-Part: both MATLAB formats and the tables say the same, in both layouts of photographs."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from schemas.categories import BY_ID
from schemas.errors import DataError
from schemas.job import DataSpec, EvaluationSpec
from tests.support.photograph_files import (
    ILSVRC_COLUMNS,
    write_ilsvrc_category,
    write_photograph,
    write_table,
    write_truth_v5,
    write_truth_v73,
)
from tests.support.real_data import REAL_DATA
from workers.data.data_root import DataRoot
from workers.data.dataset import load_job_data
from workers.data.readers.ilsvrc import IlsvrcAnimalPart
from workers.data.readers.records import AnnotatedObject, Box

OTTER, GOLDFISH, ELEPHANT = "n02444819", "n01443537", "n02503517"
Write = Callable[[Path, Sequence[Mapping[str, object]]], None]
WRITERS: dict[str, Write] = {"v5": write_truth_v5, "v7.3": write_truth_v73}

CORNERS = {"xmin": "20", "xmax": "131", "ymin": "10", "ymax": "65"}
"""112 x 56 pixels, so that 224ths of it are halves and quarters of a pixel."""
FIRST = {"ID": 1, "filename": "n02444819_10012", "bndbox": CORNERS}
SECOND = {"ID": 3, "filename": "n02444819_77", "bndbox": CORNERS}
HEADS = [{**FIRST, "centres": [[112.0], [56.0]]}, {}, {**SECOND, "centres": [[56.0, 200.0], [224.0, 10.0]]}]
LEGS = [{}, {}, {**SECOND, "centres": np.array([[200], [112]], np.uint8)}]


@pytest.fixture(params=WRITERS)
def mats(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Write the authors' layout: three photographs, the second without a marked part."""
    folder = tmp_path / "detanimalpart"
    for number in (1, 2, 3):
        write_photograph(folder / f"{OTTER}_obj/img/img/{number:05d}.jpg", 160, 90, number)
    write = WRITERS[request.param]
    write(folder / OTTER / "truth_part01.mat", HEADS)
    write(folder / OTTER / "truth_part02.mat", LEGS)
    return folder


def test_centres_are_224ths_of_the_box_and_the_first_instance_counts(mats: Path) -> None:
    one, three = IlsvrcAnimalPart(mats).records(OTTER)
    assert (one.image.name, three.image.name) == ("00001.jpg", "00003.jpg")
    assert one.box == three.box == Box(20, 10, 132, 66)
    assert one.landmarks == {"head": (10 + 28.0, 20 + 28.0)}
    assert three.landmarks == {"head": (10 + 14.0, 20 + 112.0), "frontal_legs": (10 + 50.0, 20 + 56.0)}


def test_photographs_may_have_their_imagenet_names(mats: Path) -> None:
    (mats / f"{OTTER}_obj").rename(mats / "elsewhere")
    assert IlsvrcAnimalPart.find(mats) is None
    write_photograph(mats / f"images/{OTTER}/n02444819_10012.JPEG", 160, 90, 1)
    assert IlsvrcAnimalPart.find(mats) == mats
    images = [record.image for record in IlsvrcAnimalPart(mats).records(OTTER)]
    assert images == [mats / f"images/{OTTER}/{name}.JPEG" for name in ("n02444819_10012", "n02444819_77")]


def test_the_authors_list_adds_objects_without_marked_parts(mats: Path) -> None:
    bndbox = {"xmin": 1.0, "xmax": 60.0, "ymin": 1.0, "ymax": 70.0}
    samples = np.array([[({"bndbox": bndbox},)] * 9], [("obj", object)])
    savemat(mats / f"{OTTER}_obj/img/data.mat", {"samples": samples})
    records = IlsvrcAnimalPart(mats).records(OTTER)
    assert [record.object_id for record in records] == ["1", "2", "3"]  # the list has more objects than photographs
    assert (records[1].image.name, records[1].box, records[1].landmarks) == ("00002.jpg", Box(1, 1, 61, 71), {})
    assert records[0].box == Box(20, 10, 132, 66)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize(
    ("name", "elements", "said"),
    [
        ("truth_part03.mat", LEGS, "part 3 is not a part of n02444819, which has head and frontal_legs"),
        ("truth_part02.mat", [{**FIRST, "filename": "n02444819_5", "centres": [[1.0], [1.0]]}], "object 1 differs"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, write: Write, name: str, elements: Sequence[Mapping[str, object]], said: str
) -> None:
    write(tmp_path / OTTER / "truth_part01.mat", HEADS)
    write(tmp_path / OTTER / name, elements)
    with pytest.raises(DataError, match=said):
        IlsvrcAnimalPart(tmp_path).records(OTTER)


@pytest.mark.parametrize(
    "content", ["empty", "text", "v5 header, HDF5 inside", "7.3 header, v5 inside", "cut", "other"]
)
def test_what_is_no_annotation_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / OTTER / "truth_part01.mat"
    write_truth_v73(path, HEADS)
    hdf5 = path.read_bytes()
    write_truth_v5(path, HEADS)
    v5 = path.read_bytes()
    header_v5 = v5[:124] + bytes([0, 1]) + b"IM"
    path.write_bytes(
        {
            "empty": b"",
            "text": b"no MATLAB file at all " * 20,
            "v5 header, HDF5 inside": header_v5 + hdf5[128:],
            "7.3 header, v5 inside": v5[:124] + bytes([0, 2]) + b"IM" + v5[128:],
            "cut": hdf5[: len(hdf5) // 2],
            "other": v5,
        }[content]
    )
    if content == "other":
        savemat(path, {"truth": np.zeros(3)})
    with pytest.raises(DataError, match=r"truth_part01\.mat cannot be read as the authors' part annotation"):
        IlsvrcAnimalPart(tmp_path).records(OTTER)


ROW: dict[str, object] = {
    "image": "n01443537_7.JPEG", "object_id": 1, "xmin": 0, "ymin": 0, "xmax": 79, "ymax": 79, "part": 1,
    "part_y": 20, "part_x": 30,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"part": 2}, r"line 3.*part 2 is not a part of n01443537, which has head"),
        ({"part_y": "high"}, "line 3.*high"),
        ({"xmax": 90}, "line 3.*object 1 is in two photographs, or has two boxes"),
        ({"image": "n01443537_8.JPEG"}, "line 3.*object 1 is in two photographs"),
        ({"object_id": 2, "xmax": 0}, "line 3.*is empty"),
        ({"object_id": 2, "xmin": "nan"}, "line 3.*`xmin` is 'nan', which is not a number"),
    ],
)
def test_table_lines_that_cannot_be_are_refused(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    write_table(tmp_path / f"annotations/{GOLDFISH}.csv", ILSVRC_COLUMNS, [ROW, {**ROW, **changed}])
    with pytest.raises(DataError, match=said):
        IlsvrcAnimalPart(tmp_path).records(GOLDFISH)


def test_annotations_without_photographs_are_no_data_set(tmp_path: Path) -> None:
    write_table(tmp_path / f"ilsvrc_animal_part/annotations/{GOLDFISH}.csv", ILSVRC_COLUMNS, [ROW])
    assert DataRoot(tmp_path).present_categories() == []
    write_ilsvrc_category(tmp_path, OTTER, 2, seed=1)
    assert DataRoot(tmp_path).present_categories() == [f"ilsvrc_animal_part/{OTTER}"]


def test_a_job_runs_on_the_authors_layout(tmp_path: Path) -> None:
    for seed, key in enumerate((OTTER, GOLDFISH), start=80):
        write_ilsvrc_category(tmp_path / "data", key, 50, seed)
    data = DataSpec(categories=(f"ilsvrc_animal_part/{OTTER}",), images="photographs")
    loaded = load_job_data(
        data, EvaluationSpec(), input_size=48, seed=0, cache_dir=tmp_path, data_root=tmp_path / "data"
    )
    assert (len(loaded.train), len(loaded.test)) == (90, 10)
    head, legs = loaded.measured.landmarks_NK2[:, 0], loaded.measured.landmarks_NK2[:, 1]
    np.testing.assert_allclose(head, 23.5, atol=1e-4)
    assert np.isnan(legs).all()


def test_objects_of_one_photograph_stay_on_one_side_though_each_has_a_file(tmp_path: Path) -> None:
    write_ilsvrc_category(tmp_path, OTTER, 60, seed=80)
    write_ilsvrc_category(tmp_path, GOLDFISH, 50, seed=81)
    table = tmp_path / f"ilsvrc_animal_part/annotations/{OTTER}.csv"
    with table.open(newline="") as file:
        rows: list[dict[str, object]] = [dict(row) for row in csv.DictReader(file)]
    for row in rows:
        row["image"] = f"{OTTER}_{(int(str(row['object_id'])) - 1) // 2}.JPEG"
    write_table(table, ILSVRC_COLUMNS, rows)
    data = DataSpec(categories=(f"ilsvrc_animal_part/{OTTER}",), images="photographs")
    loaded = load_job_data(data, EvaluationSpec(), input_size=48, seed=0, cache_dir=tmp_path, data_root=tmp_path)
    tested = {int(name[:5]) for name in loaded.measured.names_N}
    assert {(number - 1) // 2 for number in tested} == {(n - 1) // 2 for n in tested if n % 2}
    assert len(tested) == 6


real = pytest.mark.skipif(
    not (REAL_DATA / "ilsvrc_animal_part/annotations").is_dir(), reason=f"no real annotations under {REAL_DATA}"
)


def real_records(tmp_path: Path, key: str, annotations: Path) -> Sequence[AnnotatedObject]:
    """Return the records of real annotations, linked into a data root with an empty folder of photographs."""
    (tmp_path / f"{key}_obj/img/img").mkdir(parents=True)
    (tmp_path / "annotations").symlink_to(annotations)
    return DataRoot(tmp_path).records(f"ilsvrc_animal_part/{key}")


@real
@pytest.mark.parametrize("key", [OTTER, ELEPHANT])
def test_real_files_of_both_formats_say_what_the_real_tables_say(tmp_path: Path, key: str) -> None:
    if not (REAL_DATA / "authors_mat" / key).is_dir():
        pytest.skip(f"no MATLAB files of {key} under {REAL_DATA}")
    table = real_records(tmp_path / "table", key, REAL_DATA / "ilsvrc_animal_part/annotations")
    mats = real_records(tmp_path / "mats", key, REAL_DATA / "authors_mat")
    assert len(table) == len(mats) > 150
    for one, other in zip(table, mats, strict=True):
        assert (one.object_id, one.box, set(one.landmarks)) == (other.object_id, other.box, set(other.landmarks))
        for name in one.landmarks:
            np.testing.assert_allclose(one.landmarks[name], other.landmarks[name], atol=0.006)  # hundredths there


@real
def test_all_thirty_real_tables_are_read(tmp_path: Path) -> None:
    keys = [category.key for category in BY_ID.values() if category.dataset == "ilsvrc_animal_part"]
    (tmp_path / "annotations").symlink_to(REAL_DATA / "ilsvrc_animal_part/annotations")
    for key in keys:
        (tmp_path / f"{key}_obj/img/img").mkdir(parents=True)
    assert [name.split("/")[1] for name in DataRoot(tmp_path).present_categories()] == keys
    records = {key: DataRoot(tmp_path).records(f"ilsvrc_animal_part/{key}") for key in keys}
    assert sum(map(len, records.values())) == 6349
    assert len({record.photograph for found in records.values() for record in found}) == 5806
    for key, found in records.items():
        with (REAL_DATA / f"ilsvrc_animal_part/annotations/{key}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        marked = {(row["object_id"], row["part"]) for row in rows}
        assert sum(len(record.landmarks) for record in found) == len(marked)
        assert set().union(*(record.landmarks for record in found)) == set(BY_ID[f"ilsvrc_animal_part/{key}"].landmarks)


@real
def test_real_rows_are_cropped_where_their_photographs_are(tmp_path: Path) -> None:
    root = tmp_path / "ilsvrc_animal_part"
    for record in real_records(root, GOLDFISH, REAL_DATA / "ilsvrc_animal_part/annotations"):
        assert record.box is not None
        write_photograph(record.image, int(record.box.right) + 9, int(record.box.bottom) + 9, int(record.object_id))
    data = DataSpec(categories=(f"ilsvrc_animal_part/{GOLDFISH}",), images="photographs", negatives="folder")
    for number in range(50):
        write_photograph(tmp_path / f"neg/{number}.jpg", 90, 70, number)
    measured = load_job_data(
        data, EvaluationSpec(split="all"), input_size=48, seed=0, cache_dir=tmp_path / "cache", data_root=tmp_path
    ).measured
    assert len(measured) == len(DataRoot(tmp_path).records(data.categories[0])) > 150
    assert np.isfinite(measured.landmarks_NK2).mean() > 0.98  # a few heads are marked beyond their box
