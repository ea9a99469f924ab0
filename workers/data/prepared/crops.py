"""From an object's box to the network's square input: crop, bilinear resize, and landmarks carried along.

Legend: S side of the square, K landmarks, 2 is (row, column).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.data.image_facts import RANGELESS
from workers.data.readers.records import AnnotatedObject, Box, Point

Pixels = NDArray[np.uint8]
Landmarks = NDArray[np.float32]
"""(K, 2) in pixel indices: 0 is the centre of the first pixel. NaN where a landmark cannot be seen."""


def decode(path: Path) -> Image.Image | None:
    """The photograph, or None when it cannot be read whole. Its orientation tag is ignored, as annotations do."""
    try:
        return load(path)
    except UNREADABLE:
        return None


UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What PIL raises on broken files, and `load` on pixels that it does not understand."""


def load(path: Path) -> Image.Image:
    """The photograph in RGB as its pixels are stored: annotations count those, whatever the orientation tag says.

    Raises:
        UNREADABLE: the file is missing, no image, or cut off.
    """
    with Image.open(path) as picture:
        return as_rgb(picture)


def as_rgb(picture: Image.Image) -> Image.Image:
    """Eight bits of red, green and blue.

    Raises:
        ValueError: its numbers have no known range.
    """
    if picture.mode.startswith("I;16"):  # PIL would cut brighter pixels off at 255
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in RANGELESS:
        raise ValueError("its pixels are 32-bit numbers of no known range")
    return picture.convert("RGB")


def crop(
    picture: Image.Image, record: AnnotatedObject, size: int, landmark_names: Sequence[str]
) -> tuple[Pixels, Landmarks]:
    """Cut the object out and resize it to a square, without keeping its aspect ratio.

    Shrinking averages over the pixels that fall together, as the released code's `imresize` does.
    """
    box = _within(record.box, picture)
    square = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(square, dtype=np.uint8), carry(record.landmarks, landmark_names, box, size)


def crop_parts(parts_HW: Pixels, record: AnnotatedObject, size: int) -> Pixels:
    """The same square of a map of parts, whose values are no quantities: every pixel takes the nearest one's."""
    picture = Image.fromarray(parts_HW)
    return np.asarray(
        picture.resize((size, size), Image.Resampling.NEAREST, box=_within(record.box, picture)), dtype=np.uint8
    )


def _within(box: Box | None, picture: Image.Image) -> Box:
    if box is None:
        return Box(0, 0, picture.width, picture.height)
    return Box(max(0, box.left), max(0, box.top), min(picture.width, box.right), min(picture.height, box.bottom))


def carry(landmarks: Mapping[str, Point], names: Sequence[str], box: Box, size: int) -> Landmarks:
    """Landmarks of the photograph in pixel indices of the square; those outside the box become NaN."""
    carried_K2 = np.full((len(names), 2), np.nan, dtype=np.float32)
    for k, name in enumerate(names):
        row, column = landmarks.get(name, (np.nan, np.nan))
        if box.top <= row <= box.bottom and box.left <= column <= box.right:
            # The resize maps edges onto edges, and pixel 0 has its centre half a pixel from the edge.
            carried_K2[k] = (row - box.top) * size / box.height - 0.5, (column - box.left) * size / box.width - 0.5
    return carried_K2
