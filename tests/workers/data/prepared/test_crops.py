"""Landmarks stay on their pixels through crop and resize."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workers.data.prepared.crops import carry, crop, decode
from workers.data.readers.records import AnnotatedObject, Box, is_large_enough


def test_the_middle_of_the_box_is_the_middle_of_the_square() -> None:
    middle = carry({"head": (45.0, 60.0)}, ["head"], Box(10, 20, 110, 70), 100)
    assert middle.tolist() == [[49.5, 49.5]]


def test_the_corners_of_the_box_are_the_outer_corners_of_the_square() -> None:
    corners = carry({"head": (20.0, 10.0), "neck": (70.0, 110.0)}, ["head", "neck"], Box(10, 20, 110, 70), 32)
    assert corners.tolist() == [[-0.5, -0.5], [31.5, 31.5]]


def test_landmarks_outside_the_box_or_not_annotated_are_nan() -> None:
    carried = carry({"head": (5.0, 60.0)}, ["head", "neck"], Box(10, 20, 110, 70), 100)
    assert np.isnan(carried).all()


def test_a_bright_pixel_is_found_where_its_landmark_says() -> None:
    pixels = np.zeros((90, 130, 3), dtype=np.uint8)
    pixels[40:43, 70:73] = 255  # its centre is at 41.5, 71.5
    record = AnnotatedObject(Path("x.jpg"), "1", Box(30, 10, 110, 80), {"head": (41.5, 71.5)})
    square, landmarks = crop(Image.fromarray(pixels), record, 224, ["head"])
    weight = square[:, :, 0] / square[:, :, 0].sum(dtype=np.float64)
    rows, columns = np.indices(weight.shape)
    assert [(weight * rows).sum(), (weight * columns).sum()] == pytest.approx(landmarks[0], abs=0.05)


def test_no_box_takes_the_whole_photograph() -> None:
    picture = Image.new("RGB", (80, 40), (10, 20, 30))
    square, landmarks = crop(picture, AnnotatedObject(Path("x.jpg"), "", None, {}), 16, [])
    assert square.shape == (16, 16, 3)
    assert landmarks.shape == (0, 2)
    assert (square == (10, 20, 30)).all()


@pytest.mark.parametrize(("width", "height", "kept"), [(50, 50, True), (25, 100, True), (49, 51, False)])
def test_boxes_of_fewer_pixels_than_fifty_squared_are_dropped(width: int, height: int, kept: bool) -> None:
    assert is_large_enough(Box(7, 3, 7 + width, 3 + height)) is kept


def test_a_file_cut_off_in_the_middle_is_not_decoded(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((64, 64), 80).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:900])
    assert decode(whole) is not None
    assert decode(cut) is None
    assert decode(tmp_path / "missing.jpg") is None
