"""Contact sheets show what a job sees, and say where it comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import DataError, StoreError
from workers.data.contact_sheet import Cell, contact_sheet, generated_sheet, photograph_sheet, write_contact_sheet


def test_a_landmark_is_drawn_at_its_pixel_and_a_hidden_one_is_not() -> None:
    grey = np.full((100, 100, 3), 128, dtype=np.uint8)
    sheet = contact_sheet("title", {"row": [Cell(grey, {"head": (20.0, 70.0), "neck": (np.nan, np.nan)})]})
    picture = sheet[-100:, :100]
    rows, columns = np.nonzero((picture != 128).any(axis=2))
    assert (rows.mean(), columns.mean()) == pytest.approx((20, 70), abs=0.1)
    assert np.ptp(rows) < 10


def test_true_parts_are_outlined() -> None:
    grey = np.full((60, 60, 3), 128, dtype=np.uint8)
    parts = np.zeros((60, 60), dtype=np.uint8)
    parts[10:30, 10:30] = 1
    picture = contact_sheet("title", {"row": [Cell(grey, {}, parts)]})[-60:, :60]
    assert (picture[10, 10:30] != 128).any(axis=1).all()
    assert (picture[20, 20] == 128).all()
    assert (picture[40:, 40:] == 128).all()


def test_sheets_of_both_kinds_are_written(data_root: Path, tmp_path: Path) -> None:
    generated = generated_sheet(["voc_part/cat", "cub200/bird"], per_category=3, size=48)
    photographs = photograph_sheet(["voc_part/cat", "voc_part/horse"], data_root, per_category=2, size=48)
    for name, sheet in (("a.png", generated), ("b.png", photographs)):
        write_contact_sheet(tmp_path / "sheets" / name, sheet)
        with Image.open(tmp_path / "sheets" / name) as written:
            assert (np.asarray(written) == sheet).all()
    assert len(generated) == len(photographs) + 18 + 48  # two rows against one: there are no horses


def test_no_photographs_at_all_is_an_error(data_root: Path) -> None:
    with pytest.raises(DataError, match="voc_part/horse"):
        photograph_sheet(["voc_part/horse"], data_root)


def test_a_sheet_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="--out"):
        write_contact_sheet(tmp_path / "file/sheet.png", np.zeros((4, 4, 3), dtype=np.uint8))
