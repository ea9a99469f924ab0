"""A folder of photographs becomes a data set: boxes, landmarks, masks, negatives, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import DataError, SpecError
from tests.support.photograph_files import write_photograph
from workers.data.data_root import DataRoot
from workers.data.importing.storing import Imported, Sources, import_data
from workers.data.prepared.crops import load
from workers.data.readers.part_maps import part_map
from workers.data.readers.records import AnnotatedObject, Box

ROTATED = 6
"""EXIF orientation: the stored picture must be turned by 90 degrees clockwise."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photographs of 100 x 80 pixels and one negative."""
    for seed, name in enumerate(("tom.jpg", "more/kit.jpg", "neg/room.jpg")):
        write_photograph(tmp_path / "pets" / name, 100, 80, seed)
    return tmp_path / "pets"


def table(folder: Path, header: str, *rows: str) -> Path:
    path = folder.parent / "boxes.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def imported(folder: Path, **given: object) -> Imported:
    options = {name: given.pop(name) for name in ("replace_old",) if name in given}
    sources = Sources(folder, **given)  # type: ignore[arg-type]
    return import_data(sources, "mittens", folder.parent / "data", **options)  # type: ignore[arg-type]


def records(folder: Path, category: str) -> Sequence[AnnotatedObject]:
    return DataRoot(folder.parent / "data").records(f"mittens/{category}")


def assert_nothing_imported(folder: Path) -> None:
    assert not (folder.parent / "data").exists()


# -- tables -------------------------------------------------------------------------------------------------------


def test_corners_and_landmarks_of_a_table_are_read_back_exactly(folder: Path) -> None:
    csv = table(
        folder,
        "image,category,x0,y0,x1,y1,head_x,head_y,Left Ear_x,Left Ear_y",
        "tom.jpg,Tabby Cat,10.25,5,70,75,40,20,30,12.5",
        "more/kit.jpg,Tabby Cat,,,,,50,30,,",
    )
    done = imported(folder, csv=csv)
    assert dict(done.objects) == {"tabby_cat": 2, "neg": 1}
    tom, kit = records(folder, "tabby_cat")
    assert (tom.box, dict(tom.landmarks)) == (Box(10.25, 5, 70, 75), {"head": (20, 40), "left_ear": (12.5, 30)})
    assert (kit.box, dict(kit.landmarks)) == (None, {"head": (30, 50)})
    assert DataRoot(folder.parent / "data").category("mittens/tabby_cat").landmarks == ("head", "left_ear")
    assert [record.image.name for record in records(folder, "neg")] == ["room.jpg"]
    assert not list((folder.parent / "data").glob(".*"))


def test_a_width_is_added_to_its_left_edge(folder: Path) -> None:
    imported(folder, csv=table(folder, "image,x,y,width,height", "tom.jpg,10,5,60,70"), category="cat")
    assert [record.box for record in records(folder, "cat")] == [Box(10, 5, 70, 75)]


def test_a_category_is_that_of_the_row_the_folder_or_the_option(folder: Path) -> None:
    csv = table(folder, "image,category", "tom.jpg,", "tom.jpg,lynx", "more/kit.jpg,")
    assert dict(imported(folder, csv=csv, category="cat").objects) == {"cat": 1, "lynx": 1, "more": 1, "neg": 1}


def test_what_a_table_does_not_list_is_named(folder: Path) -> None:
    (folder / "notes.txt").write_text("x")
    done = imported(folder, csv=table(folder, "image,category,colour", "tom.jpg,cat,red"))
    assert done.notes == (
        "columns that were not used: colour",
        "not imported, because boxes.csv has no row of them: more/kit.jpg",
        "not imported, because they are no photographs: notes.txt",
    )


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("gone.jpg,cat,0,0,90,70,,", r"boxes.csv, line 3: there is no photograph gone.jpg in the folder"),
        ("tom.jpg,cat,0,0,x,70,,", r"boxes.csv, line 3, cannot be read: `x1` is 'x', which is not a number"),
        ("tom.jpg,cat,60,0,20,70,,", r"line 3, .*is empty, or its corners are swapped"),
        ("tom.jpg,cat,0,0,,70,,", r"line 3, .*`x1` is empty, and x0, y0, y1 not"),
        ("tom.jpg,cat,0,0,90,70,5,", r"line 3, .*`head_x` is empty, and head_y not|line 3, .*`head_y` is empty"),
        ("tom.jpg,cat,0,0,160,70,,", r"box \(0, 0\) to \(160, 70\) of tom.jpg lies outside .* 100 x 80 .* line 3"),
        ("tom.jpg,cat,0,0,90,70,5,900", r"landmark head .* of tom.jpg lies outside its image.* line 3"),
        ("../pets.jpg,cat,0,0,90,70,,", r"line 3, .*is not a path below the folder of images"),
        ("tom.jpg,c/at,0,0,90,70,,", r"line 3: 'c/at' is no name for a category"),
        ("more/kit.jpg,cat,0,0,90,70,,", r"line 3: the same object of more/kit.jpg is there twice"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_imported(folder: Path, row: str, why: str) -> None:
    csv = table(folder, "image,category,x0,y0,x1,y1,head_x,head_y", "more/kit.jpg,cat,0,0,90,70,,", row)
    with pytest.raises(DataError, match=why) as refused:
        imported(folder, csv=csv)
    assert "Nothing was imported" in str(refused.value)
    assert_nothing_imported(folder)


def test_all_bad_rows_are_named_at_once(folder: Path) -> None:
    csv = table(folder, "image,category,x0,y0,x1,y1", *(f"gone{i}.jpg,cat,0,0,9,9" for i in range(12)))
    with pytest.raises(DataError, match=r"(?s)line 2: .*line 11: .*\.\.\. and 2 more"):
        imported(folder, csv=csv)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("image,head_x", "head_x without head_y"),
        ("image,x0,y0", "lacks the columns x1, y1 of a box"),
        ("image,x0,y0,x1,y1,width", "columns of both"),
        ("picture,x0,y0,x1,y1", "lacks the columns image"),
        ("image;x0;y0", "columns are separated by commas"),
    ],
)
def test_a_header_that_means_nothing_is_refused(folder: Path, header: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        imported(folder, csv=table(folder, header, "tom.jpg" + header.count(",") * ",1"))
    assert_nothing_imported(folder)


# -- COCO ---------------------------------------------------------------------------------------------------------


def coco(folder: Path, **changes: object) -> Path:
    one = {"id": 7, "image_id": 1, "category_id": 3, "bbox": [10, 5, 60, 70], "keypoints": [40, 20, 2, 0, 0, 0]}
    content = {
        "images": [{"id": 1, "file_name": "upload/tom.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 3, "name": "Cat", "keypoints": ["nose", "left ear"]}],
        "annotations": [one | changes],
    }
    path = folder.parent / "keypoints.json"
    path.write_text(json.dumps(content))
    return path


def test_key_points_of_coco_are_landmarks(folder: Path) -> None:
    done = imported(folder, coco=coco(folder))
    (tom,) = records(folder, "cat")
    assert (tom.box, dict(tom.landmarks)) == (Box(10, 5, 70, 75), {"nose": (20, 40)})
    assert done.categories["cat"].landmarks == ("nose",)
    assert done.notes == ("not imported, because keypoints.json has no object in them: more/kit.jpg",)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"image_id": 9}, "annotation 7: there is no image 9"),
        ({"category_id": 9}, "annotation 7: there is no category 9"),
        ({"bbox": [1, 2, 3]}, "annotation 7: `bbox` has 3 numbers"),
        ({"bbox": [1, 2, 0, 3]}, "annotation 7: .*is empty"),
        ({"bbox": [1, 2, 300, 30]}, "lies outside its image, 100 x 80 pixels; see keypoints.json, annotation 7"),
        ({"keypoints": [1, 2, 2]}, "annotation 7: `keypoints` has 3 numbers"),
        ({"bbox": "x"}, "annotations.0.bbox"),
    ],
)
def test_a_bad_annotation_of_coco_is_named(folder: Path, changes: dict[str, object], why: str) -> None:
    with pytest.raises(DataError, match=why):
        imported(folder, coco=coco(folder, **changes))
    assert_nothing_imported(folder)


def test_json_of_another_kind_is_refused(folder: Path) -> None:
    path = folder.parent / "other.json"
    path.write_text('{"shapes": []}')
    with pytest.raises(DataError, match="Export it as COCO JSON"):
        imported(folder, coco=path)


# -- masks --------------------------------------------------------------------------------------------------------


def write_mask(path: Path, rows: slice, columns: slice, size: tuple[int, int] = (100, 80)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask_HW = np.zeros(size[::-1], np.uint8)
    mask_HW[rows, columns] = 255
    Image.fromarray(mask_HW).save(path)


def test_masks_give_parts_landmarks_and_boxes(folder: Path) -> None:
    masks = folder.parent / "masks"
    write_mask(masks / "ear/tom.png", slice(10, 20), slice(30, 40))
    write_mask(masks / "tail/tom.png", slice(60, 70), slice(80, 90))
    write_mask(masks / "object/tom.png", slice(5, 75), slice(20, 95))
    imported(folder, masks=masks, category="cat")
    (tom,) = records(folder, "cat")
    assert tom.box == Box(20, 5, 95, 75)
    assert dict(tom.landmarks) == {"ear": (15, 35), "tail": (65, 85)}
    category = DataRoot(folder.parent / "data").category("mittens/cat")
    assert category.parts == ("ear", "tail")
    parts_HW = part_map(tom, category, (80, 100))
    assert (parts_HW[15, 35], parts_HW[65, 85], parts_HW[0, 0]) == (1, 2, 0)


def test_masks_beside_a_table_only_give_the_parts(folder: Path) -> None:
    write_mask(folder / "masks/ear/tom.png", slice(10, 20), slice(30, 40))
    csv = table(folder, "image,category,head_x,head_y", "tom.jpg,cat,40,20", "more/kit.jpg,cat,40,20")
    done = imported(folder, csv=csv, masks=folder / "masks")
    tom, kit = records(folder, "cat")
    assert (dict(tom.landmarks), tom.box) == ({"head": (20, 40)}, None)
    assert tom.masks is not None
    assert kit.masks is None
    assert done.notes == ("cat: no mask of more/kit.jpg, so no part interpretability: it needs the masks of all",)


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("ear/gone.png", (100, 80), "the mask ear/gone.png has no photograph"),
        ("ear/tom.png", (90, 80), "tom.jpg: the mask .*tom.png has 90 x 80 pixels, and the upright .* 100 x 80"),
    ],
)
def test_a_mask_that_fits_no_photograph_is_refused(folder: Path, name: str, size: tuple[int, int], why: str) -> None:
    write_mask(folder.parent / "masks" / name, slice(0, 9), slice(0, 9), size)
    with pytest.raises(DataError, match=why):
        imported(folder, masks=folder.parent / "masks")
    assert_nothing_imported(folder)


# -- folders ------------------------------------------------------------------------------------------------------


def test_folders_are_categories_of_whole_photographs(tmp_path: Path) -> None:
    for seed, name in enumerate(("cat/a.jpg", "cat/b.png", "dog/a.jpg", "negatives/c.jpg")):
        write_photograph(tmp_path / "pets" / name, 60, 60, seed)
    done = imported(tmp_path / "pets")
    assert dict(done.objects) == {"cat": 2, "dog": 1, "neg": 1}
    assert done.categories["cat"].landmarks == done.categories["cat"].parts == ()
    assert [record.box for record in records(tmp_path / "pets", "cat")] == [None, None]


def test_folders_of_splits_are_no_categories(tmp_path: Path) -> None:
    write_photograph(tmp_path / "pets/train/cat/a.jpg", 60, 60, 0)
    write_photograph(tmp_path / "pets/val/cat/b.jpg", 60, 60, 1)
    with pytest.raises(DataError, match="train, val are splits, not categories"):
        imported(tmp_path / "pets")


def test_copies_of_a_photograph_are_named(tmp_path: Path) -> None:
    write_photograph(tmp_path / "pets/a.jpg", 60, 60, 0)
    write_photograph(tmp_path / "pets/b.jpg", 60, 60, 0)
    (note,) = imported(tmp_path / "pets").notes
    assert note.startswith("photographs with the same content")
    assert note.endswith("a.jpg, b.jpg")


# -- photographs --------------------------------------------------------------------------------------------------


def rotated(path: Path) -> None:
    """Write a photograph that is stored 80 x 40 and shown 40 x 80: the stored left half, white, is shown on top."""
    pixels_HW3 = np.zeros((40, 80, 3), np.uint8)
    pixels_HW3[:, :40] = 255
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    path.parent.mkdir(parents=True)
    Image.fromarray(pixels_HW3).save(path, exif=exif)


def test_a_photograph_is_turned_by_its_exif_tag(tmp_path: Path) -> None:
    rotated(tmp_path / "pets/a.jpg")
    done = imported(tmp_path / "pets", csv=table(tmp_path / "pets", "image,x0,y0,x1,y1", "a.jpg,0,0,40,80"))
    assert done.turned == 1
    (found,) = records(tmp_path / "pets", "mittens")
    picture = load(found.image)
    assert picture.size == (40, 80)
    pixels_HW3 = np.asarray(picture)
    assert pixels_HW3[10, 20].min() > 240
    assert pixels_HW3[70, 20].max() < 15


def test_coordinates_of_the_picture_before_its_turn_are_refused(tmp_path: Path) -> None:
    rotated(tmp_path / "pets/a.jpg")
    path = coco(tmp_path / "pets", bbox=[0, 0, 40, 40], keypoints=[])
    content = json.loads(path.read_text())
    content["images"] = [{"id": 1, "file_name": "a.jpg", "width": 80, "height": 40}]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"80 x 40 pixels, and its upright picture has 40 x 80; it was annot"):
        imported(tmp_path / "pets", coco=path)


def test_a_broken_photograph_is_named_and_nothing_is_imported(folder: Path) -> None:
    (folder / "more/kit.jpg").write_bytes((folder / "more/kit.jpg").read_bytes()[:300])
    (folder / "old.jpg").write_text("not a picture")
    with pytest.raises(DataError, match=r"(?s)more/kit.jpg: cannot be read.*old.jpg: cannot be read"):
        imported(folder)
    assert_nothing_imported(folder)


def test_other_formats_become_png(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    Image.new("RGB", (60, 60), (9, 99, 199)).save(tmp_path / "pets/a.webp", lossless=True)
    imported(tmp_path / "pets")
    (found,) = records(tmp_path / "pets", "mittens")
    assert found.image.name == "a.webp.png"
    assert load(found.image).getpixel((3, 3)) == (9, 99, 199)


# -- places and names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["voc", "voc_part", "neg", "Mittens", "1cat", "a-b", "", "x" * 41])
def test_a_name_that_could_mean_another_data_set_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(SpecError, match="cannot be the name of a data set"):
        import_data(Sources(folder), name, folder.parent / "data")


def test_a_data_set_is_replaced_only_on_request_and_as_a_whole(folder: Path) -> None:
    imported(folder, category="cat")
    with pytest.raises(SpecError, match=r"exists already.*--replace"):
        imported(folder, category="lynx")
    (folder / "old.jpg").write_text("not a picture")
    with pytest.raises(DataError):
        imported(folder, category="lynx", replace_old=True)
    assert DataRoot(folder.parent / "data").present_categories() == ["mittens/more", "mittens/cat"]
    (folder / "old.jpg").unlink()
    imported(folder, category="lynx", replace_old=True)
    assert DataRoot(folder.parent / "data").present_categories() == ["mittens/more", "mittens/lynx"]
    assert [path.name for path in (folder.parent / "data").iterdir()] == ["mittens"]


def test_a_stopped_import_leaves_nothing_behind(folder: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_data(Sources(folder), "mittens", folder.parent / "data", advance=stop)
    assert_nothing_imported(folder)


def test_a_folder_of_other_things_is_never_replaced(folder: Path) -> None:
    (folder.parent / "data/mittens").mkdir(parents=True)
    with pytest.raises(SpecError, match="exists already"):
        imported(folder, replace_old=True)


def test_the_data_root_may_not_lie_in_the_imported_folder(folder: Path) -> None:
    with pytest.raises(SpecError, match="lies in the folder"):
        import_data(Sources(folder), "mittens", folder / "data")


def test_negatives_alone_are_no_data_set(tmp_path: Path) -> None:
    write_photograph(tmp_path / "pets/neg/a.jpg", 60, 60, 0)
    with pytest.raises(DataError, match="only negatives"):
        imported(tmp_path / "pets")
