"""Bad data are refused before any work, with their name and advice; good data have one digest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from schemas.errors import DataError
from schemas.job import DataSpec
from tests.support.photograph_files import write_photograph, write_voc_table
from workers.data.checks import MIN_IMAGES, MIN_NEGATIVES, check_data, data_digest
from workers.data.data_root import DataRoot
from workers.data.image_facts import skip_limit

CAT = DataSpec(categories=("voc_part/cat",), images="photographs")
JPEGS = "voc_part/VOCdevkit/VOC2010/JPEGImages"


def check(data: DataSpec, root: Path | None) -> None:
    check_data(data, DataRoot.open(root))


def digest(data: DataSpec, root: Path, cache_dir: Path | None = None) -> str:
    return data_digest(data, DataRoot.open(root, cache_dir))


def spoil(folder: Path, count: int) -> list[str]:
    """Truncate some photographs to nothing, and return their names."""
    chosen = sorted(folder.glob("2008_01*.jpg"))[:count]
    for path in chosen:
        path.write_bytes(b"")
    return [path.name for path in chosen]


def test_good_photographs_pass(data_root: Path) -> None:
    check(CAT, data_root)
    check(CAT.model_copy(update={"negatives": "folder"}), data_root)


@pytest.mark.parametrize(
    ("root", "said"), [(None, "no data root is given"), ("nowhere", "is not a folder"), ("neg", "holds no data set")]
)
def test_a_root_without_data_says_what_was_looked_for(data_root: Path, root: str | None, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        check(CAT, data_root / root if root else None)
    assert "truth/<category>.csv" in str(error.value)
    assert "bounding_boxes.txt" in str(error.value)


def test_an_empty_root_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no data set that can be read: it is empty"):
        check(CAT, tmp_path)


def test_too_few_images_names_them_and_what_would_run(data_root: Path) -> None:
    few = CAT.model_copy(update={"categories": ("voc_part/dog", "voc_part/horse", "voc_part/cat")})
    with pytest.raises(DataError) as error:
        check(few, data_root)
    said = str(error.value)
    assert "voc_part/dog has 4, voc_part/horse has 0" in said
    assert f"needs {MIN_IMAGES}" in said
    assert said.endswith("These would run: --category voc_part/cat")


def test_where_none_asked_for_has_enough_the_others_of_the_root_are_named(data_root: Path) -> None:
    none = CAT.model_copy(update={"categories": ("voc_part/dog", "voc_part/horse")})
    with pytest.raises(DataError, match="--grid all-categories --category voc_part/cat,voc_part/cow,cub200/bird"):
        check(none, data_root)


def test_a_few_unreadable_photographs_are_passed_over(data_root: Path) -> None:
    spoil(data_root / JPEGS, 2)
    check(CAT, data_root)


def test_many_unreadable_photographs_are_counted_and_named(data_root: Path) -> None:
    first = spoil(data_root / JPEGS, 4)[0]
    with pytest.raises(DataError, match=rf"8 of 60 images of voc_part/cat cannot be read \({first}#1.*up to 5"):
        check(CAT, data_root)


def test_the_limit_grows_with_the_set() -> None:
    assert (skip_limit(60), skip_limit(5000)) == (5, 50)


def test_a_photograph_cut_off_in_the_middle_counts_as_unreadable(data_root: Path) -> None:
    for path in sorted((data_root / JPEGS).glob("2008_01*.jpg"))[:4]:
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="8 of 60"):
        check(CAT, data_root)


def test_a_photograph_of_another_size_than_annotated_is_named(data_root: Path) -> None:
    write_photograph(data_root / JPEGS / "2008_010003.jpg", 240, 120, 0)
    with pytest.raises(DataError, match=r"2008_010003\.jpg#1 is annotated as 120 x 60 pixels, .* has 240 x 120"):
        check(CAT, data_root)


def test_a_box_outside_its_image_is_named(data_root: Path) -> None:
    bird = next((data_root / "CUB_200_2011/images").rglob("*_0004.jpg"))
    write_photograph(bird, 70, 80, 0)
    with pytest.raises(DataError, match=r"cub200/bird: box .* of Black_.*_0004\.jpg lies outside its image, 70 x 80"):
        check(CAT.model_copy(update={"categories": ("cub200/bird",)}), data_root)


def test_a_landmark_outside_its_image_is_named(data_root: Path) -> None:
    row = {"xmin": 1, "xmax": 60, "ymin": 1, "ymax": 60, "object_id": 1, "part": 1, "part_x": 500, "part_y": 9}
    write_voc_table(data_root / "voc_part/truth/cat.csv", [{**row, "image": "2008_010000.jpg"}])
    with pytest.raises(DataError, match=r"landmark head \(row 8\.5, column 499\.5\)"):
        check(CAT, data_root)


def test_broken_negatives_are_refused_too(data_root: Path) -> None:
    for path in (data_root / "neg").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="50 of 50 images of the negatives"):
        check(CAT.model_copy(update={"negatives": "folder"}), data_root)


def test_too_few_negatives_in_the_folder_are_counted(data_root: Path) -> None:
    folder = data_root / "neg"
    check(CAT.model_copy(update={"negatives": "folder"}), data_root)
    (folder / "00.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"{folder} has 49 images that can be read, a job needs {MIN_NEGATIVES}"):
        check(CAT.model_copy(update={"negatives": "folder"}), data_root)


def test_too_few_animals_of_other_categories_are_counted(data_root: Path) -> None:
    shutil.rmtree(data_root / "CUB_200_2011")
    (data_root / "voc_part/truth/cow.csv").unlink()
    with pytest.raises(DataError, match=r"voc_part/cat has too few negatives: .*are 4 \(voc_part/dog 4\), .*needs 50"):
        check(CAT, data_root)


def test_a_lonely_category_has_no_negatives(data_root: Path) -> None:
    shutil.rmtree(data_root / "CUB_200_2011")
    for key in ("cow", "dog"):
        (data_root / f"voc_part/truth/{key}.csv").unlink()
    with pytest.raises(DataError, match="has no negatives"):
        check(CAT, data_root)


def test_the_digest_does_not_depend_on_where_the_data_lie(data_root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(data_root, copy)
    assert digest(CAT, copy) == digest(CAT, data_root)


@pytest.mark.parametrize(
    "changed",
    [f"{JPEGS}/2008_010007.jpg", f"{JPEGS}/2008_020007.jpg", "voc_part/truth/cow.csv", "CUB_200_2011/images.txt"],
)
def test_any_changed_file_that_a_job_may_use_changes_the_digest(data_root: Path, changed: str) -> None:
    before = digest(CAT, data_root)
    path = data_root / changed
    if path.suffix == ".jpg":
        write_photograph(path, 120, 60, 777)
    else:
        lines = path.read_text().splitlines()
        path.write_text("\n".join(lines[:-1]))
        os.utime(path, ns=(1, 1))
    assert digest(CAT, data_root) != before


def test_files_a_job_does_not_use_leave_the_digest_alone(data_root: Path) -> None:
    before = digest(CAT, data_root)
    write_photograph(data_root / "neg/00.jpg", 64, 64, 1)
    assert digest(CAT, data_root) == before


def test_a_known_file_is_not_read_again(data_root: Path, tmp_path: Path) -> None:
    before = digest(CAT, data_root, tmp_path / "cache")
    path = data_root / JPEGS / "2008_010007.jpg"
    stat = path.stat()
    path.write_bytes(b"\0" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest(CAT, data_root, tmp_path / "cache") == before
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert digest(CAT, data_root, tmp_path / "cache") != before


def test_a_damaged_memo_costs_only_time(data_root: Path, tmp_path: Path) -> None:
    before = digest(CAT, data_root, tmp_path / "cache")
    (tmp_path / "cache/files.json").write_text('{"half')
    assert digest(CAT, data_root, tmp_path / "cache") == before


def test_bytes_after_the_end_of_a_photograph_do_not_make_it_unreadable(data_root: Path) -> None:
    for path in (data_root / JPEGS).glob("2008_01*.jpg"):
        path.write_bytes(path.read_bytes() + bytes(500))
    check(CAT, data_root)


def test_a_photograph_that_can_be_read_again_is_no_longer_passed_over(data_root: Path, tmp_path: Path) -> None:
    path = data_root / JPEGS / "2008_010000.jpg"
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=times)
    bad = digest(CAT, data_root, tmp_path)
    path.write_bytes(content)
    os.utime(path, ns=times)
    assert digest(CAT, data_root, tmp_path) != bad
