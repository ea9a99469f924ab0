"""Turns an object's box into the network's square input: crop, bilinear resize, and mapped landmarks.

Legend: S side of the square, K landmarks, 2 is (row, column).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.data.disk_files import open_regular
from workers.data.image_facts import RANGELESS, UNREADABLE
from workers.data.readers.records import AnnotatedObject, Box, Point

Pixels = NDArray[np.uint8]
Landmarks = NDArray[np.float32]
"""(K, 2) in pixel indices: 0 is the centre of the first pixel. NaN for hidden landmarks."""


def decode(path: Path) -> Image.Image | None:
    """Return the photograph as `load` does, or None if it cannot be decoded completely."""
    try:
        return load(path)
    except UNREADABLE:
        return None


def load(path: Path) -> Image.Image:
    """Return the photograph in RGB, without applying its orientation tag: annotations count stored pixels.

    Raises:
        UNREADABLE: the file is missing, truncated or not an image.
    """
    with open_regular(path) as file, Image.open(file) as picture:
        return as_rgb(picture)


def as_rgb(picture: Image.Image) -> Image.Image:
    """Return a picture converted to eight bits of red, green and blue.

    Raises:
        ValueError: the pixels are 32-bit numbers, whose range is unknown.
    """
    if picture.mode.startswith("I;16"):  # PIL would clip brighter pixels at 255
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in RANGELESS:
        raise ValueError("its pixels are 32-bit numbers of unknown range")
    if isinstance(picture.info.get("transparency"), bytes):  # dropped all the same, but PIL warns on the direct way
        return picture.convert("RGBA").convert("RGB")
    return picture.convert("RGB")


def crop(
    picture: Image.Image, record: AnnotatedObject, size: int, landmark_names: Sequence[str]
) -> tuple[Pixels, Landmarks]:
    """Crop the object and resize it to a square, without keeping its aspect ratio.

    Shrinking averages over the source pixels of each target pixel, as the released code's `imresize` does.

    Args:
        size: side of the square, in pixels.
        landmark_names: K landmarks to return, in this order.

    Returns:
        (S, S, 3) in RGB, and (K, 2).
    """
    box = within(record.box, picture)
    square = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(square, dtype=np.uint8), carry(record.landmarks, landmark_names, box, size)


def crop_parts(parts_HW: Pixels, record: AnnotatedObject, size: int) -> Pixels:
    """Return the same square of a map of parts, (S, S), resized by nearest neighbour because its values are bits."""
    picture = Image.fromarray(parts_HW)
    return np.asarray(
        picture.resize((size, size), Image.Resampling.NEAREST, box=within(record.box, picture)), dtype=np.uint8
    )


def within(box: Box | None, picture: Image.Image) -> Box:
    """Return the part of a box that the picture shows, or the whole picture for None."""
    if box is None:
        return Box(0, 0, picture.width, picture.height)
    return Box(max(0, box.left), max(0, box.top), min(picture.width, box.right), min(picture.height, box.bottom))


def carry(landmarks: Mapping[str, Point], names: Sequence[str], box: Box, size: int) -> Landmarks:
    """Map landmarks of the photograph to pixel indices of the square; those outside the box become NaN."""
    carried_K2 = np.full((len(names), 2), np.nan, dtype=np.float32)
    for k, name in enumerate(names):
        row, column = landmarks.get(name, (np.nan, np.nan))
        if box.top <= row <= box.bottom and box.left <= column <= box.right:
            # The resize maps edges to edges, and the centre of pixel 0 is half a pixel from the edge.
            carried_K2[k] = (row - box.top) * size / box.height - 0.5, (column - box.left) * size / box.width - 0.5
    return carried_K2
