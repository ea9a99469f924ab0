"""Masks of Pascal VOC Part: merged as the paper merges them, laid on their object, refused when they do not fit."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from photograph_files import write_part_masks
from scipy.io import savemat
from test_real_photographs import ROOT

from schemas.categories import BY_ID
from schemas.errors import DataError
from schemas.job import DataSpec, EvaluationSpec
from workers.data.dataset import JobData, load_job_data
from workers.data.records import Box, Record
from workers.data.sources import records_of
from workers.data.voc import LANDMARK_OF_PART, MASKS
from workers.data.voc_masks import MERGED, part_map, read_objects

CAT, COW, BIRD = BY_ID["voc_part/cat"], BY_ID["voc_part/cow"], BY_ID["voc_part/bird"]
HEIGHT, WIDTH = 40, 60
Boxes = dict[str, tuple[int, int, int, int]]


def write(path: Path, *objects: tuple[str, Boxes]) -> Path:
    """Objects that fill the boxes of all their parts; a box is top, left, bottom, right."""
    write_part_masks(path, HEIGHT, WIDTH, objects)
    return path


def bits(category: str, *names: str) -> int:
    return sum(1 << BY_ID[category].parts.index(name) for name in names)


def rectangle(top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_parts_are_merged_and_may_overlap(tmp_path: Path) -> None:
    drawn = {"head": (0, 0, 10, 10), "lear": (0, 10, 5, 12), "neck": (8, 0, 14, 10), "lfpa": (30, 0, 33, 4)}
    (found,) = read_objects(write(tmp_path / "a.mat", ("cat", drawn)), CAT)
    head, torso = rectangle(0, 0, 10, 10) | rectangle(0, 10, 5, 12), rectangle(8, 0, 14, 10)
    assert (((found.parts_HW & bits(CAT.id, "head")) > 0) == head).all()
    assert (((found.parts_HW & bits(CAT.id, "torso")) > 0) == torso).all()
    assert found.parts_HW[9, 3] == bits(CAT.id, "head", "torso")
    assert found.parts_HW[31, 2] == bits(CAT.id, "frontal_legs")
    assert found.box == Box(0, 0, 12, 33)


def test_a_cow_has_horns_and_no_tail_and_a_bird_has_a_beak_and_wings(tmp_path: Path) -> None:
    cow = {"lhorn": (0, 0, 4, 4), "tail": (10, 10, 20, 20), "lblleg": (20, 0, 30, 4), "lfuleg": (20, 20, 30, 24)}
    (found,) = read_objects(write(tmp_path / "cow.mat", ("cow", cow)), COW)
    assert found.parts_HW[1, 1] == bits(COW.id, "head")
    assert found.parts_HW[15, 15] == 0
    assert (found.parts_HW[25, 1], found.parts_HW[25, 21]) == (bits(COW.id, "back_legs"), bits(COW.id, "frontal_legs"))
    bird = {"beak": (0, 0, 4, 4), "rwing": (10, 10, 20, 20), "lfoot": (30, 0, 34, 4), "tail": (0, 30, 9, 40)}
    (found,) = read_objects(write(tmp_path / "bird.mat", ("bird", bird)), BIRD)
    at = [found.parts_HW[place] for place in ((1, 1), (15, 15), (31, 1), (5, 35))]
    assert at == [bits(BIRD.id, name) for name in BIRD.parts]


def test_landmarks_are_the_centres_of_the_parts_that_can_be_seen(tmp_path: Path) -> None:
    drawn = {"head": (0, 10, 11, 20), "torso": (10, 20, 20, 25), "neck": (5, 5, 5, 5)}
    (found,) = read_objects(write(tmp_path / "a.mat", ("cat", drawn)), CAT)
    assert found.landmarks == {"head": (5.5, 15.0), "torso": (15.0, 22.5)}


def test_only_the_categorys_own_objects_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mat", ("person", {"head": (0, 0, 9, 9)}), ("cat", {"torso": (5, 5, 9, 9)}), ("chair", {})
    )
    assert [found.box for found in read_objects(path, CAT)] == [Box(5, 5, 9, 9)]
    assert read_objects(path, COW) == []


def record(masks: Path, box: Box) -> Record:
    return Record(masks.with_suffix(".jpg"), "1", box, {}, masks=masks)


def test_a_record_has_the_parts_of_the_object_that_fills_its_box(tmp_path: Path) -> None:
    left, right = {"head": (0, 0, 20, 20)}, {"torso": (0, 30, 20, 50)}
    path = write(tmp_path / "a.mat", ("cat", left), ("cat", right))
    found = part_map(record(path, Box(29, 1, 50, 20)), CAT, (HEIGHT, WIDTH))
    assert (found == bits(CAT.id, "torso") * rectangle(0, 30, 20, 50)).all()
    assert part_map(record(path, Box(10, 20, 40, 40)), CAT, (HEIGHT, WIDTH)).max() == 0


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mat", ("cat", {"head": (0, 0, 20, 20)}))
    with pytest.raises(DataError, match=r"a\.mat are 60 x 40 pixels, and .*a\.jpg is 30 x 20"):
        part_map(record(path, Box(0, 0, 20, 20)), CAT, (20, 30))


def test_what_is_no_annotation_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "other.mat", {"x": np.zeros(3)})
    (tmp_path / "text.mat").write_text("no mat file")
    (tmp_path / "empty.mat").write_bytes(b"")
    hdf5 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400)
    (tmp_path / "v73.mat").write_bytes(hdf5)
    for name in ("other", "text", "empty", "v73", "missing"):
        with pytest.raises(DataError, match=rf"{name}\.mat cannot be read as a part annotation"):
            read_objects(tmp_path / f"{name}.mat", CAT)


def load(root: Path, cache: Path) -> JobData:
    data = DataSpec(categories=("voc_part/cat",), images="photographs")
    return load_job_data(data, EvaluationSpec(split="all"), input_size=48, seed=0, cache_dir=cache, data_root=root)


def write_masks_of_all_cats(root: Path) -> None:
    folder = root / "voc_part" / MASKS
    folder.mkdir()
    for photograph in {record.image.stem for record in records_of(CAT.id, root)}:
        halves = [
            ("cat", {"head": (0, 60 * side, 30, 60 * side + 60), "tail": (30, 60 * side, 60, 60 * side + 60)})
            for side in (0, 1)
        ]
        write_part_masks(folder / f"{photograph}.mat", 60, 120, halves)


def test_photographs_have_their_parts_in_the_crop_once_all_have_masks(data_root: Path, tmp_path: Path) -> None:
    without = load(data_root, tmp_path)
    assert without.measured.parts_NSS is None
    write_masks_of_all_cats(data_root)
    with_masks = load(data_root, tmp_path)
    assert with_masks.measured.parts_NSS is not None
    assert with_masks.digest != without.digest
    maps_NSS = with_masks.measured.parts_NSS.take(range(60))
    assert (maps_NSS[:, :24] == bits(CAT.id, "head")).all()
    assert (maps_NSS[:, 24:] == bits(CAT.id, "tail")).all()
    (data_root / "voc_part" / MASKS / "2008_010003.mat").unlink()
    assert load(data_root, tmp_path).measured.parts_NSS is None


@pytest.mark.skipif(not ROOT.is_dir(), reason=f"no photographs: ORCH_TEST_DATA is unset and {ROOT} is missing")
@pytest.mark.parametrize(("key", "photograph"), [("cat", "2008_003228"), ("dog", "2008_005643")])
def test_centres_of_real_masks_are_the_landmarks_of_the_table(key: str, photograph: str) -> None:
    table, masks = ROOT / f"voc_part/truth/{key}.csv", ROOT / "voc_part" / MASKS / f"{photograph}.mat"
    if not (table.is_file() and masks.is_file()):
        pytest.skip("not among the photographs at hand")
    with open(table, newline="") as file:
        of_photograph = [row for row in csv.DictReader(file) if row["image"] == f"{photograph}.jpg"]
    rows = [row for row in of_photograph if row["part"] in LANDMARK_OF_PART]
    (found,) = read_objects(masks, BY_ID[f"voc_part/{key}"])
    assert len(found.landmarks) == len(rows) == 3
    for row in rows:
        centre = found.landmarks[LANDMARK_OF_PART[row["part"]]]
        # From 1 there and from the edge of the first pixel here. Two editions of the masks: they differ by a pixel.
        np.testing.assert_allclose(centre, (float(row["part_y"]) - 0.5, float(row["part_x"]) - 0.5), atol=1)
        np.testing.assert_allclose(found.box.left, float(row["xmin"]) - 1, atol=4)
        np.testing.assert_allclose(found.box.bottom, float(row["ymax"]), atol=4)


@pytest.mark.skipif(not ROOT.is_dir(), reason=f"no photographs: ORCH_TEST_DATA is unset and {ROOT} is missing")
def test_every_part_name_of_the_real_files_is_known() -> None:
    from scipy.io import loadmat

    animals = {category.key for category in BY_ID.values() if category.dataset == "voc_part"}
    known = {name for members in MERGED.values() for name in members}
    seen = set()
    for path in (ROOT / "voc_part" / MASKS).glob("*.mat"):
        for found in loadmat(path)["anno"][0, 0]["objects"].ravel():
            if found["class"].item() in animals:
                seen |= {part["part_name"].item() for part in found["parts"].ravel()}
    assert seen <= known
