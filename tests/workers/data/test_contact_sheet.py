"""Contact sheets show the pictures of a job, and name their source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import DataError, StoreError
from tests.support.photograph_files import write_part_masks
from workers.data.contact_sheet import Tile, contact_sheet, generated_sheet, photograph_sheet, write_contact_sheet
from workers.data.data_root import DataRoot
from workers.data.readers.voc import MASKS


def test_a_landmark_is_drawn_at_its_pixel_and_a_hidden_one_is_not() -> None:
    grey = np.full((100, 100, 3), 128, dtype=np.uint8)
    sheet = contact_sheet("title", {"row": [Tile(grey, {"head": (20.0, 70.0), "neck": (np.nan, np.nan)})]})
    picture = sheet[-100:, :100]
    rows, columns = np.nonzero((picture != 128).any(axis=2))
    assert (rows.mean(), columns.mean()) == pytest.approx((20, 70), abs=0.1)
    assert np.ptp(rows) < 10


def test_parts_are_outlined_and_the_picture_inside_stays_as_it_is() -> None:
    grey = np.full((60, 60, 3), 128, dtype=np.uint8)
    parts = np.zeros((60, 60), dtype=np.uint8)
    parts[10:30, 10:30] = 0b10
    picture = contact_sheet("title", {"row": [Tile(grey, {}, parts, ("head", "tail"))]})[-60:, :60]
    assert (picture[10, 10:30] == (240, 70, 255)).all()  # the tail's colour
    assert (picture[12:28, 12:28] == 128).all()
    assert (picture[40:, 40:] == 128).all()


def test_a_long_legend_takes_further_lines() -> None:
    grey = np.full((60, 60, 3), 128, dtype=np.uint8)
    names = [f"landmark number {number}" for number in range(20)]
    short, long = (
        contact_sheet("title", {"row": [Tile(grey, dict.fromkeys(some, (9.0, 9.0)))]}) for some in (names[:2], names)
    )
    assert long.shape[1] == short.shape[1]
    assert len(long) > len(short)
    edge = long[: len(long) - 60, -6:]
    assert (edge == edge[0, 0]).all()  # no name is cut


def test_masks_of_photographs_lie_on_their_crops(data_root: Path) -> None:
    halves = [("cat", {"head": (0, 0, 60, 60)}), ("cat", {"tail": (30, 60, 60, 120)})]
    (data_root / "voc_part" / MASKS).mkdir()
    write_part_masks(data_root / "voc_part" / MASKS / "2008_010000.mat", 60, 120, halves)
    masked = photograph_sheet(["voc_part/cat"], DataRoot(data_root), per_category=2, size=60)[-60:]
    assert (masked[0, :60] == (255, 40, 40)).all()  # the head is the whole crop
    tail = masked[:, 62:122].astype(int)
    outlined = (tail == (240, 70, 255)).all(axis=2)
    assert outlined[30, 1:20].all()  # further on lies the torso's dot
    assert not outlined[:29].any()


def test_sheets_of_both_kinds_are_written(data_root: Path, tmp_path: Path) -> None:
    generated = generated_sheet(["voc_part/cat", "cub200/bird"], per_category=3, size=48)
    photographs = photograph_sheet(["voc_part/cat", "voc_part/horse"], DataRoot(data_root), per_category=2, size=48)
    for name, sheet in (("a.png", generated), ("b.png", photographs)):
        write_contact_sheet(tmp_path / "sheets" / name, sheet)
        with Image.open(tmp_path / "sheets" / name) as written:
            assert (np.asarray(written) == sheet).all()
    assert len(generated) == len(photographs) + 18 + 48  # two rows against one: there are no horses


def test_names_of_an_imported_data_set_have_colours_too() -> None:
    picture_SS3 = np.zeros((60, 60, 3), np.uint8)
    tile = Tile(picture_SS3, {"whisker": (30.0, 30.0)}, np.full((60, 60), 1, np.uint8), ["ear"])
    sheet = contact_sheet("t", {"mittens-cat": [tile]})
    red, row = (255, 40, 40), sheet[-60:, :60]
    assert tuple(row[30, 30]) == red  # the landmark's dot
    assert tuple(row[0, 0]) == red  # the part's outline, first of its own palette


def test_no_photographs_at_all_is_an_error(data_root: Path) -> None:
    with pytest.raises(DataError, match="voc_part/horse"):
        photograph_sheet(["voc_part/horse"], DataRoot(data_root))


def test_a_sheet_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="--out"):
        write_contact_sheet(tmp_path / "file/sheet.png", np.zeros((4, 4, 3), dtype=np.uint8))
