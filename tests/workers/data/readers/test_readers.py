"""Each published format is read from files in its original layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import DataError
from tests.support.photograph_files import write_cub, write_ilsvrc_category, write_photograph, write_voc_table
from workers.data.data_root import DataRoot
from workers.data.readers.cub import Cub200
from workers.data.readers.records import Box, DatasetReader
from workers.data.readers.sources import NEGATIVES, READERS
from workers.data.readers.voc import VocPart


@pytest.fixture
def full_root(data_root: Path) -> Path:
    """Return a root with every data set."""
    write_ilsvrc_category(data_root, "n02402425", 4, seed=70)
    return data_root


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_reader_finds_its_data_under_a_root_or_at_it(reader: type[DatasetReader], full_root: Path) -> None:
    found = reader.find(full_root)
    assert found is not None
    assert reader.find(found) == found
    assert reader.find(full_root / "neg") is None


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_reader_names_the_files_that_decide_its_records(reader: type[DatasetReader], full_root: Path) -> None:
    folder = reader.find(full_root)
    assert folder is not None
    opened = reader(folder)
    for key in opened.categories():
        assert all(path.is_file() for path in opened.annotation_files(key))
        records = opened.records(key)
        assert records == reader(folder).records(key)
        assert len({record.name for record in records}) == len(records) > 0
        assert all(record.image.is_file() for record in records)


def test_voc_counts_pixels_from_one_and_includes_the_last(data_root: Path) -> None:
    first, second = DataRoot(data_root).records("voc_part/cat")[:2]
    assert (first.image.name, first.object_id, second.object_id) == ("2008_010000.jpg", "1", "2")
    assert second.box == Box(60, 0, 120, 60)
    assert second.landmarks == {"head": (15.0, 70.0), "torso": (30.0, 90.0)}


def test_voc_keeps_the_paper_s_three_landmarks_and_large_boxes(tmp_path: Path) -> None:
    write_photograph(tmp_path / "VOCdevkit/VOC2010/JPEGImages/a.jpg", 200, 100, 0)
    shared = {"image": "a.jpg", "ymin": 1, "ymax": 100, "part_y": 50, "part_x": 40}
    big = [{**shared, "object_id": 1, "xmin": 1, "xmax": 80, "part": part} for part in (1, 2, 3, 4, 17)]
    small = [{**shared, "object_id": 2, "xmin": 1, "xmax": 24, "part": 1}]
    narrow = [{**shared, "object_id": 3, "xmin": 1, "xmax": 25, "part": 1}]
    write_voc_table(tmp_path / "truth/dog.csv", big + small + narrow)
    record, kept = VocPart(tmp_path).records("dog")
    assert kept.object_id == "3"  # 25 x 100 pixels are 50 squared
    assert sorted(record.landmarks) == ["head", "neck", "torso"]


def test_a_broken_voc_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "VOCdevkit/VOC2010/JPEGImages").mkdir(parents=True)
    row = {"image": "a.jpg", "object_id": 1, "xmin": 1, "ymin": 1, "xmax": 80, "ymax": 80, "part": 1}
    write_voc_table(tmp_path / "truth/dog.csv", [row, {**row, "xmin": "eleven"}])
    with pytest.raises(DataError, match=r"dog\.csv, line 3.*eleven"):
        VocPart(tmp_path).records("dog")


def test_cub_boxes_landmarks_and_split(data_root: Path) -> None:
    first, second, third = DataRoot(data_root).records("cub200/bird")[:3]
    assert first.box == Box(20, 10, 80, 70)
    assert first.landmarks == {"back": (40.0, 50.0), "forehead": (25.0, 35.0), "tail": (55.0, 65.0)}
    assert "tail" not in third.landmarks
    assert (first.official, second.official) == ("train", "test")


def test_an_incomplete_cub_says_which_file_is_missing(tmp_path: Path) -> None:
    folder = write_cub(tmp_path, 2)
    (folder / "bounding_boxes.txt").unlink()
    with pytest.raises(DataError, match=r"bounding_boxes\.txt"):
        Cub200(folder).records("bird")


def test_a_broken_cub_line_is_named(tmp_path: Path) -> None:
    folder = write_cub(tmp_path, 2)
    (folder / "parts/part_locs.txt").write_text("1 1 50.0 40.0 1\n1 6 35.0\n")
    with pytest.raises(DataError, match=r"part_locs\.txt, line 2"):
        Cub200(folder).records("bird")


@pytest.mark.parametrize(("file", "line"), [("bounding_boxes.txt", "2 1 1 60 60 7"), ("train_test_split.txt", "2 1 1")])
def test_a_line_with_a_number_too_many_is_named(tmp_path: Path, file: str, line: str) -> None:
    folder = write_cub(tmp_path, 2)
    lines = (folder / file).read_text().splitlines()
    (folder / file).write_text("\n".join([lines[0], line]))
    with pytest.raises(DataError, match=rf"{file}, line 2, cannot be read: '{line}'"):
        Cub200(folder).records("bird")


def test_a_value_that_is_no_number_is_named(tmp_path: Path) -> None:
    folder = write_cub(tmp_path, 2)
    (folder / "bounding_boxes.txt").write_text("1 20.0 10.0 60.0 60.0\n2 20.0 wide 60.0 60.0\n")
    with pytest.raises(DataError, match=r"bounding_boxes\.txt, line 2.*wide"):
        Cub200(folder).records("bird")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"part": 31}, r"line 3.*part 31 is not"),
        ({"part": 0}, r"line 3.*part 0 is not"),
        ({"xmin": 30, "xmax": 110}, "line 3, .*two objects 1 in a.jpg, with different boxes.*line 2"),
    ],
)
def test_voc_labels_and_ids_that_cannot_be_are_refused(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    (tmp_path / "VOCdevkit/VOC2010/JPEGImages").mkdir(parents=True)
    row: dict[str, object] = {"image": "a.jpg", "object_id": 1, "xmin": 1, "ymin": 1, "xmax": 80, "ymax": 80, "part": 1}
    write_voc_table(tmp_path / "truth/dog.csv", [row, {**row, **changed}])
    with pytest.raises(DataError, match=said):
        VocPart(tmp_path).records("dog")


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("images.txt", "2 001.Black/again.jpg", "id 2 occurs twice"),
        ("bounding_boxes.txt", "1 20.0 10.0 60.0 60.0", "id 1 occurs twice"),
        ("train_test_split.txt", "9 2", "should end with 0 or 1"),
        ("parts/part_locs.txt", "1 16 1.0 1.0 1", r"part 16 is not one of parts/parts\.txt"),
        ("parts/part_locs.txt", "1 1 1.0 1.0 1", "image 1 has its back twice"),
        ("parts/part_locs.txt", "1 1 1.0 1.0 yes", "should be 5 numbers"),
    ],
)
def test_cub_labels_and_ids_that_cannot_be_are_refused(tmp_path: Path, file: str, line: str, said: str) -> None:
    folder = write_cub(tmp_path, 2)
    (folder / file).write_text(f"{(folder / file).read_text().rstrip()}\n{line}\n")
    with pytest.raises(DataError, match=said):
        Cub200(folder).records("bird")


def test_cub_without_the_names_of_its_landmarks_is_refused(tmp_path: Path) -> None:
    folder = write_cub(tmp_path, 2)
    (folder / "parts/parts.txt").write_text("1 back\n2 beak\n")
    with pytest.raises(DataError, match=r"parts\.txt does not name forehead, tail"):
        Cub200(folder).records("bird")


def test_a_changed_table_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "VOCdevkit/VOC2010/JPEGImages").mkdir(parents=True)
    row: dict[str, object] = {"image": "a.jpg", "object_id": 1, "xmin": 1, "ymin": 1, "xmax": 80, "ymax": 80, "part": 1}
    write_voc_table(tmp_path / "truth/dog.csv", [row])
    before = len(VocPart(tmp_path).records("dog"))
    write_voc_table(tmp_path / "truth/dog.csv", [row, {**row, "object_id": 2}])
    assert (before, len(VocPart(tmp_path).records("dog"))) == (1, 2)


def test_the_same_animal_of_another_data_set_is_no_negative(data_root: Path) -> None:
    root = DataRoot(data_root)
    assert root.present_categories() == ["voc_part/cat", "voc_part/cow", "voc_part/dog", "cub200/bird"]
    assert root.other_categories("voc_part/cat") == ["voc_part/cow", "voc_part/dog", "cub200/bird"]
    assert "cub200/bird" not in root.other_categories("voc_part/bird")
    assert "voc_part/cow" not in root.other_categories("ilsvrc_animal_part/n02402425")


def test_the_folder_of_negatives_gives_whole_photographs(data_root: Path) -> None:
    records = DataRoot(data_root).records(NEGATIVES)
    assert [record.image.name for record in records] == [f"{number:02d}.jpg" for number in range(50)]
    assert all(record.box is None for record in records)
    with pytest.raises(DataError, match="neg/"):
        DataRoot(data_root / "voc_part").records(NEGATIVES)
