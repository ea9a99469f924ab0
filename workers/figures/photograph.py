"""A photograph as a person sees it, whatever its format: upright, eight bits of red, green and blue, cut to a box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from schemas.errors import DataError, SpecError
from workers.data.prepared.crops import UNREADABLE, Pixels, as_rgb
from workers.data.readers.records import Box

MIN_BOX = 8
"""A side of fewer pixels shows nothing."""


def open_photograph(path: Path) -> Image.Image:
    """RGB, turned as its orientation tag says; sixteen bits a pixel become eight.

    Raises:
        DataError: there is no such file, or it is no image, or not a whole one.
    """
    if not path.is_file():
        raise DataError(f"There is no photograph {path}. Name an image file, such as a JPEG or a PNG.")
    try:
        with Image.open(path) as picture:
            return as_rgb(ImageOps.exif_transpose(picture))
    except UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read as a photograph ({error}). See that it is a whole image file; another program may "
            "be able to save it again."
        ) from error


def parse_box(text: str) -> Box:
    """`x0,y0,x1,y1`.

    Raises:
        SpecError: those are not four numbers, or they are in the wrong order.
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
    """The box, or the whole photograph.

    Raises:
        SpecError: the box reaches beyond the photograph.
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
    """The box at another size: (height, width, 3)."""
    resized = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized, dtype=np.uint8)
