"""Masks of Pascal VOC Part are merged as in the paper, assigned to their object, and refused when they do not fit."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from schemas.categories import BY_ID
from schemas.errors import DataError
from schemas.job import DataSpec, EvaluationSpec
from tests.support.photograph_files import write_part_masks, write_voc_table
from tests.support.real_data import REAL_DATA, needs_real_data
from workers.data.data_root import DataRoot
from workers.data.dataset import JobData, load_job_data
from workers.data.readers import voc_masks
from workers.data.readers.parse_cache import ParseCache
from workers.data.readers.records import AnnotatedObject, Box
from workers.data.readers.voc import MASKS, VocPart
from workers.data.readers.voc_masks import MERGED, part_map, read_objects

CAT, COW, BIRD = BY_ID["voc_part/cat"], BY_ID["voc_part/cow"], BY_ID["voc_part/bird"]
HEIGHT, WIDTH = 40, 60
Boxes = dict[str, tuple[int, int, int, int]]


def write(path: Path, *objects: tuple[str, Boxes]) -> Path:
    """Write objects that fill the boxes of all their parts; a box is top, left, bottom, right."""
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


def record(masks: Path, box: Box) -> AnnotatedObject:
    return AnnotatedObject(masks.with_suffix(".jpg"), "1", box, {}, masks=masks)


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


def original(root: Path, *files: tuple[str, Sequence[tuple[str, Boxes]]]) -> Path:
    """Write a devkit as published: photographs and masks without tables."""
    masks = root / MASKS
    masks.mkdir(parents=True)
    (root / "VOCdevkit/VOC2010/JPEGImages").mkdir()
    for name, objects in files:
        write_part_masks(masks / f"{name}.mat", 100, 120, objects)
    return root


BODY = {"head": (10, 10, 30, 40), "leye": (12, 12, 14, 14), "torso": (30, 20, 80, 90)}


def test_without_tables_the_masks_say_which_objects_there_are(tmp_path: Path) -> None:
    small = {"head": (0, 0, 49, 51)}
    root = original(tmp_path, ("b", [("cow", BODY)]), ("a", [("sofa", {}), ("cat", BODY), ("cat", small)]), ("c", []))
    (cat,) = VocPart(root).records("cat")
    assert (cat.image.name, cat.object_id, cat.size) == ("a.jpg", "2", (120, 100))
    assert (cat.box, cat.masks) == (Box(10, 10, 90, 80), root / MASKS / "a.mat")
    assert cat.landmarks == {"head": (20.0, 25.0), "torso": (55.0, 55.0)}
    assert [record.image.name for record in VocPart(root).records("cow")] == ["b.jpg"]
    assert VocPart(root).records("sheep") == []
    assert VocPart(root).annotation_files("cat") == [root / MASKS / "a.mat"]


def test_tables_alone_say_which_objects_there_are(tmp_path: Path) -> None:
    root = original(tmp_path, ("a", [("cat", BODY), ("cat", BODY), ("dog", BODY)]))
    row: dict[str, object] = {"image": "a.jpg", "object_id": 1, "xmin": 11, "ymin": 11, "xmax": 90, "ymax": 80}
    write_voc_table(root / "truth/cat.csv", [{**row, "part": 1, "part_y": 20.5, "part_x": 25.5}])
    (cat,) = VocPart(root).records("cat")
    assert (cat.box, cat.masks) == (Box(10, 10, 90, 80), root / MASKS / "a.mat")
    assert VocPart(root).categories() == ["cat"]
    assert VocPart(root).records("dog") == []


def test_masks_are_read_once_and_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = original(tmp_path / "voc", ("a", [("cat", BODY)]), ("b", [("cat", BODY)])), tmp_path / "cache"

    def records() -> list[AnnotatedObject]:
        return VocPart(root, ParseCache(cache)).records("cat")  # nothing in memory, as in another process

    before = records()
    read: list[Path] = []
    real = voc_masks._summarise
    monkeypatch.setattr(voc_masks, "_summarise", lambda path: (read.append(path), real(path))[1])
    assert records() == before
    assert read == []
    write_part_masks(root / MASKS / "b.mat", 100, 120, [("cat", BODY), ("cat", BODY)])
    assert len(records()) == 3
    assert read == [root / MASKS / "b.mat"]


def test_an_unknown_part_of_an_animal_and_a_broken_file_are_refused_by_name(tmp_path: Path) -> None:
    root = original(tmp_path, ("a", [("cat", {**BODY, "fin": (0, 0, 9, 9)})]), ("b", [("cat", BODY)]), ("c", []))
    (root / MASKS / "c.mat").write_bytes((root / MASKS / "b.mat").read_bytes()[:300])
    with pytest.raises(DataError, match=r"a\.mat cannot be read .*'fin' is not a part of an animal"):
        VocPart(root).records("cat")
    assert [flaw.path.name for flaw in VocPart(root).flaws("cat")] == ["a.mat", "c.mat"]


def test_an_empty_silhouette_is_left_out_and_named(tmp_path: Path) -> None:
    root = original(tmp_path, ("a", [("cat", {"head": (5, 5, 5, 5)}), ("cat", BODY)]))
    assert [record.object_id for record in VocPart(root).records("cat")] == ["2"]
    (flaw,) = VocPart(root).flaws("cat")
    assert (flaw.path.name, flaw.why) == (
        "a.mat",
        "the silhouette of object 1 (cat) is empty, so the object is ignored",
    )
    assert VocPart(root).flaws("dog") == []


def load(root: Path, cache: Path) -> JobData:
    data = DataSpec(categories=("voc_part/cat",), images="photographs")
    return load_job_data(data, EvaluationSpec(split="all"), input_size=48, seed=0, cache_dir=cache, data_root=root)


def write_masks_of_all_cats(root: Path) -> None:
    folder = root / "voc_part" / MASKS
    folder.mkdir()
    for photograph in {record.image.stem for record in DataRoot(root).records(CAT.id)}:
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


def shared_photographs() -> list[tuple[str, str]]:
    """Return (category key, stem) of photographs that have both a real table row and a real mask."""
    tables = sorted((REAL_DATA / "voc_part/truth").glob("*.csv"))
    masked = {path.stem for path in (REAL_DATA / "voc_part" / MASKS).glob("*.mat")}
    found = []
    for table in tables:
        with table.open(newline="") as file:
            named = {Path(row["image"]).stem for row in csv.DictReader(file) if "image" in row}
        found += [(table.stem, stem) for stem in sorted(named & masked)]
    return found


@needs_real_data
@pytest.mark.parametrize(("key", "photograph"), shared_photographs())
def test_centres_and_boxes_of_real_masks_are_those_of_the_table(key: str, photograph: str, tmp_path: Path) -> None:
    devkit = tmp_path / "voc_part/VOCdevkit/VOC2010"
    devkit.mkdir(parents=True)
    (devkit / "JPEGImages").symlink_to(REAL_DATA / "voc_part/VOCdevkit/VOC2010/JPEGImages")
    (devkit / "Annotations_Part").mkdir()
    shutil.copy(REAL_DATA / "voc_part" / MASKS / f"{photograph}.mat", devkit / "Annotations_Part")
    from_masks = DataRoot(tmp_path).records(f"voc_part/{key}")
    from_table = [r for r in DataRoot(REAL_DATA).records(f"voc_part/{key}") if r.image.stem == photograph]
    assert len(from_masks) == len(from_table) > 0
    for one, other in zip(from_masks, from_table, strict=True):
        assert one.image.name == other.image.name
        assert one.size == other.size
        assert one.box is not None
        assert other.box is not None
        # Two editions of the masks: they differ by a pixel or two.
        np.testing.assert_allclose(one.box, other.box, atol=4)
        assert set(one.landmarks) == set(other.landmarks)
        for name, centre in one.landmarks.items():
            np.testing.assert_allclose(centre, other.landmarks[name], atol=1)


@needs_real_data
def test_every_part_name_of_the_real_files_is_known() -> None:
    from scipy.io import loadmat

    animals = {category.key for category in BY_ID.values() if category.dataset == "voc_part"}
    known = {name for members in MERGED.values() for name in members}
    seen = set()
    for path in (REAL_DATA / "voc_part" / MASKS).glob("*.mat"):
        for found in loadmat(path)["anno"][0, 0]["objects"].ravel():
            if found["class"].item() in animals:
                seen |= {part["part_name"].item() for part in found["parts"].ravel()}
    assert seen <= known
