"""Reading a user's photograph: upright, 8-bit RGB, cropped to a box."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from schemas.errors import DataError, SpecError
from workers.data.disk_files import brief, open_regular, printable
from workers.data.image_facts import UNREADABLE
from workers.data.prepared.crops import Pixels, as_rgb
from workers.data.readers.records import Box

MIN_BOX = 8
"""Minimum side of a box, pixels."""


def open_photograph(path: Path) -> Image.Image:
    """Open a photograph as 8-bit RGB, rotated by its EXIF orientation.

    Raises:
        DataError: the file does not exist, is not an image, or is truncated.
    """
    if not os.path.isfile(path):
        raise DataError(f"There is no photograph {printable(path)}. Name an image file, such as a JPEG or a PNG.")
    try:
        with open_regular(path) as file, Image.open(file) as picture:
            return as_rgb(ImageOps.exif_transpose(picture))
    except UNREADABLE as error:
        raise DataError(
            f"{printable(path)} cannot be read as a photograph ({brief(str(error), 100)}). See that it is a whole "
            "image file; another program may be able to save it again."
        ) from error


def parse_box(text: str) -> Box:
    """Parse `x0,y0,x1,y1`, in pixels.

    Raises:
        SpecError: the text is not four numbers, they are in the wrong order, or the box is too small.
    """
    words = text.replace(" ", "").split(",")
    try:
        left, top, right, bottom = (float(word) for word in words)
    except ValueError:
        raise SpecError(
            f"`--box {text}` is not four numbers. Give x0,y0,x1,y1 in pixels, such as 40,12,310,280."
        ) from None
    if not (right - left >= MIN_BOX and bottom - top >= MIN_BOX):
        raise SpecError(
            f"`--box {text}` is {right - left:g} by {bottom - top:g} pixels. Give x0,y0,x1,y1, the upper left corner "
            f"before the lower right one, at least {MIN_BOX} pixels apart."
        )
    return Box(left, top, right, bottom)


def within(box: Box | None, picture: Image.Image) -> Box:
    """Return the box, or the box of the whole photograph if it is None.

    Raises:
        SpecError: the box extends beyond the photograph.
    """
    if box is None:
        return Box(0, 0, picture.width, picture.height)
    if box.left < 0 or box.top < 0 or box.right > picture.width or box.bottom > picture.height:
        raise SpecError(
            f"The box {box.left:g},{box.top:g},{box.right:g},{box.bottom:g} reaches beyond the photograph, which is "
            f"{picture.width} by {picture.height} pixels when upright. Give a `--box` inside it."
        )
    return box


def cut(picture: Image.Image, box: Box, width: int, height: int) -> Pixels:
    """Crop the box and resize it: (height, width, 3)."""
    resized = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized, dtype=np.uint8)
