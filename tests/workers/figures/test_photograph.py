"""Photographs of every kind are read upright and in eight bits, and what is none says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import DataError, SpecError
from workers.data.readers.records import Box
from workers.figures.photograph import cut, open_photograph, parse_box, within


def test_grey_cmyk_and_sixteen_bit_images_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (20, 10), 100).save(tmp_path / "grey.png")
    Image.new("CMYK", (20, 10), (0, 0, 0, 0)).save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.full((10, 20), 40_000, np.uint16)).save(tmp_path / "deep.png")
    seen = {path.stem: open_photograph(path) for path in tmp_path.iterdir()}
    assert sorted(seen) == ["cmyk", "deep", "grey"]
    assert {(picture.mode, picture.size) for picture in seen.values()} == {("RGB", (20, 10))}
    assert seen["grey"].getpixel((0, 0)) == (100, 100, 100)
    assert seen["deep"].getpixel((0, 0)) == (156, 156, 156)  # 40,000 of 65,536


def test_a_photograph_is_turned_as_its_tag_says(tmp_path: Path) -> None:
    picture = Image.new("RGB", (20, 10))
    picture.paste("red", (0, 0, 5, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = open_photograph(tmp_path / "turned.png")
    assert upright.size == (10, 20)
    assert upright.getpixel((5, 0)) == (255, 0, 0)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\xff\xd8\xff\xe0 cut off"])
def test_what_is_no_photograph_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cat.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"cat\.jpg cannot be read as a photograph"):
        open_photograph(tmp_path / "cat.jpg")


def test_a_photograph_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"half\.jpg"):
        open_photograph(tmp_path / "half.jpg")


def test_a_missing_photograph_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no photograph"):
        open_photograph(tmp_path / "cat.jpg")


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "10,10,5,50", "10,10,12,12", "", "0,0,nan,9"])
def test_a_box_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="--box"):
        parse_box(text)


def test_a_box_lies_inside_its_photograph() -> None:
    picture = Image.new("RGB", (30, 20))
    picture.paste("red", (10, 0, 30, 20))
    assert within(None, picture) == Box(0, 0, 30, 20)
    box = within(parse_box("10, 0, 30, 20"), picture)
    assert cut(picture, box, 8, 4).shape == (4, 8, 3)
    assert (cut(picture, box, 8, 4)[:, 1:] == [255, 0, 0]).all()  # a border pixel's weights reach beyond the box
    with pytest.raises(SpecError, match="30 by 20"):
        within(parse_box("10,0,31,20"), picture)
