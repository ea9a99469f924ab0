"""Fifty photographs with all kinds of damage: each is read correctly, or listed with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import DataError
from schemas.job import DataSpec, EvaluationSpec
from tests.support.photograph_files import (
    write_cub,
    write_ilsvrc_category,
    write_part_masks,
    write_photograph,
    write_voc_category,
)
from workers.data.checks import check_data
from workers.data.data_root import DataRoot
from workers.data.dataset import load_job_data
from workers.data.prepared.crops import crop, decode
from workers.data.readers.voc import MASKS
from workers.data.verify import Verified, verify

COUNT = 50
BIRD = DataSpec(categories=("cub200/bird",), images="photographs", negatives="folder")
Colours = NDArray[np.uint8]

LEFT, RIGHT = np.array([220, 40, 90], np.uint8), np.array([30, 120, 200], np.uint8)


def two_colours(width: int = 100, height: int = 80) -> Image.Image:
    """Return a picture that is red to the left of column 50, and blue from there."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = LEFT, RIGHT
    return Image.fromarray(pixels)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def sixteen_bit(path: Path) -> None:
    """Write 16-bit grey: 40,000 to the left and 10,000 to the right."""
    pixels = np.full((80, 100), 40_000, np.uint16)
    pixels[:, 50:] = 10_000
    Image.fromarray(pixels).save(path, format="PNG")


def rotated(path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6  # shown turned by a quarter
    two_colours().save(path, quality=95, exif=tag)


def thirty_two_bit(path: Path) -> None:
    Image.fromarray(np.full((80, 100), 1e6, np.float32)).save(path, format="TIFF")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncated, "truncated or damaged"),
    "empty": (lambda path: path.write_bytes(b""), "empty (0 bytes)"),
    "zeros": (lambda path: path.write_bytes(bytes(5000)), "not an image, despite its name"),
    "text": (lambda path: path.write_text("a photograph of a bird\n" * 9), "not an image, despite its name"),
    "missing": (lambda path: path.unlink(), "missing"),
    "float": (thirty_two_bit, "cannot be read (its pixels are 32-bit numbers"),
    "folder": (a_folder, "cannot be read"),
}
MISFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "smaller": (lambda path: write_photograph(path, 70, 80, 1), "box (20, 10) to (80, 70)"),
}
GREY_LEFT, GREY_RIGHT = np.full(3, 97), np.full(3, 102)  # of LEFT and RIGHT, by Rec. 601
READABLE: dict[str, tuple[Callable[[Path], object], Colours, Colours]] = {
    "jpeg": (lambda path: two_colours().save(path, quality=95), LEFT, RIGHT),
    "png": (lambda path: two_colours().save(path, format="PNG"), LEFT, RIGHT),
    "cmyk": (lambda path: two_colours().convert("CMYK").save(path, quality=95), LEFT, RIGHT),
    "grey": (lambda path: two_colours().convert("L").save(path, quality=95), GREY_LEFT, GREY_RIGHT),
    "16 bit": (sixteen_bit, np.full(3, 156), np.full(3, 39)),
    "rotated": (rotated, LEFT, RIGHT),
    "alpha": (lambda path: two_colours().convert("RGBA").save(path, format="PNG"), LEFT, RIGHT),
    "palette": (lambda path: two_colours().convert("P").save(path, format="PNG"), LEFT, RIGHT),
    "bytes behind": (lambda path: append(path, bytes(400)), LEFT, RIGHT),
}  # fmt: skip


def append(path: Path, more: bytes) -> None:
    two_colours().save(path, quality=95)
    path.write_bytes(path.read_bytes() + more)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Return a data root of fifty birds and fifty negatives."""
    root = tmp_path / "data"
    write_cub(root, COUNT)
    for number in range(50):
        write_photograph(root / f"neg/{number}.jpg", 90, 70, number)
    return root


def image(root: Path, number: int) -> Path:
    return root / f"CUB_200_2011/images/001.Black_footed_Albatross/Black_Footed_Albatross_{number:04d}.jpg"


def put(root: Path, cases: dict[str, tuple[Callable[[Path], object], str]], first: int) -> dict[Path, str]:
    """Damage one photograph for each case, and return the expected reasons."""
    said = {}
    for number, (spoil, why) in enumerate(cases.values(), start=first):
        spoil(image(root, number))
        said[image(root, number)] = why
    return said


def put_readable(root: Path) -> dict[str, int]:
    for number, (write, _, _) in enumerate(READABLE.values(), start=31):
        write(image(root, number))
    return {name: number for number, name in enumerate(READABLE, start=31)}


def put_landmark_outside(root: Path) -> None:
    path = root / "CUB_200_2011/parts/part_locs.txt"
    path.write_text(path.read_text().replace("50 1 50.0 40.0 1", "50 1 50.0 440.0 1"))


def test_verifying_names_every_bad_file_and_no_good_one(birds: Path) -> None:
    expected = {**put(birds, BROKEN, 1), **put(birds, MISFIT, 20), image(birds, 50): "landmark back (row 440"}
    put_landmark_outside(birds)
    put_readable(birds)
    heard: list[tuple[str, int, int]] = []
    bird, negatives = verify(DataRoot(birds), (), lambda *said: heard.append(said))
    assert {flaw.path for flaw in bird.flaws} == set(expected)
    for flaw in bird.flaws:
        assert expected[flaw.path] in flaw.why
    assert (bird.category, bird.objects, bird.images, bird.note) == ("cub200/bird", COUNT, COUNT, "")
    assert negatives == Verified("negatives", 50, 50, (), "")
    assert heard[-1] == ("negatives", 50, 50)
    assert ("cub200/bird", COUNT, COUNT) in heard


@pytest.mark.parametrize("name", READABLE)
def test_what_can_be_read_is_read_rightly(birds: Path, name: str) -> None:
    number = put_readable(birds)[name]
    _, left, right = READABLE[name]
    record = next(r for r in DataRoot(birds).records("cub200/bird") if r.image == image(birds, number))
    picture = decode(record.image)
    assert picture is not None
    # Stored pixels, whatever the orientation tag says: the box reaches from 30 pixels left of the border to 30 right.
    square_SS3, landmarks = crop(picture, record, 60, ["back"])
    np.testing.assert_allclose(square_SS3[:, :25].mean(axis=(0, 1)), left, atol=8)
    np.testing.assert_allclose(square_SS3[:, 35:].mean(axis=(0, 1)), right, atol=8)
    assert landmarks.tolist() == [[29.5, 29.5]]


def load_names(root: Path, cache: Path) -> tuple[set[str], tuple[str, ...]]:
    loaded = load_job_data(BIRD, EvaluationSpec(split="all"), input_size=48, seed=0, cache_dir=cache, data_root=root)
    return set(loaded.measured.names_N), loaded.skipped


def test_a_job_passes_over_five_bad_photographs_and_names_them(birds: Path, tmp_path: Path) -> None:
    write_cub_more(birds, COUNT + 5)
    bad = put(birds, dict(list(BROKEN.items())[:5]), 1)
    put_readable(birds)
    names, skipped = load_names(birds, tmp_path / "cache")
    assert sorted(skipped) == sorted(path.name for path in bad)
    assert len(names) == COUNT
    assert names.isdisjoint(skipped)


def write_cub_more(root: Path, count: int) -> None:
    """Replace the birds by this many."""
    (root / "CUB_200_2011").rename(root.parent / "fewer")
    write_cub(root, count)


def test_a_job_with_more_bad_photographs_is_refused(birds: Path, tmp_path: Path) -> None:
    write_cub_more(birds, COUNT + 10)
    put(birds, BROKEN, 1)
    with pytest.raises(DataError, match=r"7 of 60 images of cub200/bird cannot be read \(Black_Footed_Albatross_0001"):
        load_names(birds, tmp_path / "cache")


@pytest.mark.parametrize("spoil", [put_landmark_outside, lambda root: put(root, MISFIT, 20)])
def test_a_job_whose_annotations_do_not_fit_is_refused(birds: Path, spoil: Callable[[Path], object]) -> None:
    spoil(birds)
    with pytest.raises(DataError, match=r"of Black_Footed_Albatross_00\d0\.jpg lies outside its image"):
        check_data(BIRD, DataRoot.open(birds))


def test_pixels_that_are_broken_behind_a_good_header_are_named(birds: Path, tmp_path: Path) -> None:
    write_cub_more(birds, COUNT + 1)
    noise = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(image(birds, 7), format="PNG")
    content = bytearray(image(birds, 7).read_bytes())
    content[5000:6000] = bytes(1000)  # its beginning and its end are as they should be
    image(birds, 7).write_bytes(content)
    names, skipped = load_names(birds, tmp_path / "cache")
    assert skipped == ("Black_Footed_Albatross_0007.jpg",)
    assert len(names) == COUNT


def test_an_empty_category_and_a_single_photograph_are_named(tmp_path: Path) -> None:
    write_voc_category(tmp_path, "cat", 1, seed=1)
    write_voc_category(tmp_path, "cow", 0, seed=2)
    said = {one.category: (one.objects, one.images, one.note) for one in verify(DataRoot(tmp_path), ())}
    assert said == {
        "voc_part/cat": (2, 1, "too few: a job needs 50"),
        "voc_part/cow": (0, 0, "too few: a job needs 50"),
    }
    two = DataSpec(categories=("voc_part/cat", "voc_part/cow"), images="photographs")
    with pytest.raises(DataError, match=r"voc_part/cat has 2, voc_part/cow has 0, a category needs 50"):
        check_data(two, DataRoot.open(tmp_path))


def test_masks_that_are_broken_or_of_another_size_are_named_once(tmp_path: Path) -> None:
    write_voc_category(tmp_path, "cat", 3, seed=1)
    masks = tmp_path / "voc_part" / MASKS
    masks.mkdir()
    body = [("cat", {"head": (0, 0, 50, 50)}), ("cat", {"head": (5, 5, 5, 5)})]
    for number, size in enumerate([(60, 120), (60, 90), (60, 120)]):
        write_part_masks(masks / f"2008_01000{number}.mat", *size, body)
    (masks / "2008_010002.mat").write_bytes(b"\0" * 900)
    (cat,) = verify(DataRoot(tmp_path), ())
    assert [flaw.path.name for flaw in cat.flaws] == [f"2008_01000{n}.mat" for n in (0, 1, 1, 2)]
    assert cat.flaws[1].why == "its masks are 90 x 60, its photograph 120 x 60"
    assert "object 2 (cat) is empty" in cat.flaws[0].why
    (tmp_path / "voc_part/truth").rename(tmp_path / "elsewhere")  # the masks alone decide, for all six categories
    found = verify(DataRoot(tmp_path), ())
    assert sum("2008_010002.mat" in flaw.path.name for one in found for flaw in one.flaws) == 1
    assert {one.note for one in found} == {"its annotations cannot be read"}


def test_annotations_that_are_refused_whole_are_one_flaw(tmp_path: Path) -> None:
    write_ilsvrc_category(tmp_path, "n02444819", 2, seed=3)
    table = tmp_path / "ilsvrc_animal_part/annotations/n02444819.csv"
    table.write_text(table.read_text().replace("n02444819_14.JPEG,2", "n02444819_14.JPEG,two"))
    (otter,) = verify(DataRoot(tmp_path), ())
    assert "n02444819.csv, line 3, cannot be read" in otter.flaws[0].why


def test_a_category_that_is_asked_for_and_not_there_is_named(birds: Path) -> None:
    found = {one.category: one.note for one in verify(DataRoot(birds), ("voc_part/cat", "cub200/bird"))}
    assert found == {"cub200/bird": "", "negatives": "", "voc_part/cat": "not under this data root"}
