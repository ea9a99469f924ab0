"""Shared drawing primitives of all figures: colours, titles, and image tiles placed pixel by pixel.

Shape legend: S side of an image   H = W map side.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

DPI = 110
INK, MUTED, FAINT = "#22272e", "#6b7280", "#e5e7eb"
PAPER_WHITE = "#ffffff"
BLUE, GREEN, PURPLE, ORANGE = "#1f6feb", "#0f9d76", "#8250df", "#d9730d"

FILTER_COLOURS = ("#e6194b", "#ffc400", "#00c2d1", "#c05bff", "#3ddc5b", "#ff7a1a")
"""One colour per filter, distinct from each other and from fur, grass and sky."""

GAP, GROUP_GAP = 3, 16
"""Gap between the tiles of one image, and between images, pixels."""
MIN_WIDTH = 860
"""Minimum width of a figure, pixels."""
EDGE = 14
"""Margin, pixels."""
BAR, BAR_WIDTH = 30, 150
"""Height of the band with the colour scales below a figure, and width of one scale, pixels."""
CAPTION = 16
"""Height of a line of the caption, pixels."""

PNG = (cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)
"""How PNG files are compressed."""

DIMMED = 0.36
"""Factor of an image's brightness outside a region."""

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


class Title(NamedTuple):
    """Two-line title of a figure."""

    subject: str
    """Network and kind of images."""
    what: str
    """Content of the figure."""


def blank(width: int, height: int, title: Title) -> Figure:
    """Return an empty figure with a title at the top; width and height are in pixels."""
    width = max(width, MIN_WIDTH)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    left = EDGE / width
    subject = figure.text(left, 1 - 11 / height, title.subject, va="top", fontsize=9, weight="bold", color=INK)
    what = figure.text(left, 1 - 31 / height, title.what, va="top", fontsize=8.5, color=MUTED)
    for line in (subject, what):
        fit(line, width - 2 * EDGE)
    return figure


def fit(text: Text, width: float) -> None:
    """Lower the font size of a text, if necessary, so that it is at most `width` pixels wide."""
    # Glyphs are as wide as whole pixels, so a text does not shrink in proportion to its font.
    while (wide := text.get_window_extent().width) > width:
        text.set_fontsize(float(text.get_fontsize()) * min(width / wide, 0.97))


def caption(figure: Figure, lines: Sequence[str]) -> None:
    """Write what was measured along the lower border of a figure, in a band of `CAPTION` pixels per line."""
    width, height = figure.get_size_inches() * DPI
    for number, line in enumerate(reversed(lines)):
        bottom = (EDGE + number * CAPTION) / height
        fit(figure.text(EDGE / width, bottom, line, va="bottom", fontsize=7.5, color=MUTED), width - 2 * EDGE)


def name_row(axes: Axes, middle: float, label: str, width: float) -> None:
    """Write the label of a row of tiles at its left, within `width` pixels."""
    text = axes.text(-10, middle, label, ha="right", va="center", fontsize=7.5, color=INK, linespacing=1.4)
    fit(text, width - 10 - GAP)


def scale_bar(figure: Figure, colours_W3: Bytes, ends: tuple[str, str], what: str, left: int) -> None:
    """Draw a colour scale at the lower border of a figure, between the words of its ends, and what it shows.

    Args:
        figure: the figure; its lowest `BAR` pixels are free.
        colours_W3: colours from the lowest value to the highest, see `heat_colours`.
        ends: the lowest and the highest value.
        what: what the colours show.
        left: left edge, pixels.
    """
    top = round(figure.get_size_inches()[1] * DPI) - BAR + 8
    axes = place(figure, resized(colours_W3[None], BAR_WIDTH, 10), left, top)
    axes.text(-5, 5, ends[0], ha="right", va="center_baseline", fontsize=7, color=MUTED)
    axes.text(BAR_WIDTH + 5, 5, f"{ends[1]}   {what}", ha="left", va="center_baseline", fontsize=7, color=MUTED)


def heat_colours() -> Bytes:
    """Return the colours of `heat` from 0 to the highest value: (256, 3)."""
    return np.asarray(heat(np.arange(256, dtype=np.float32)[None], 255, 256)[0], np.uint8)


def grey_colours() -> Bytes:
    """Return the colours of `grey` from 0 to 1: (256, 3)."""
    return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


def place(figure: Figure, canvas: Bytes, left: int, top: int) -> Axes:
    """`canvas` pixel for pixel, at a place given in pixels."""
    axes = figure.add_axes(box(figure, left, top, canvas.shape[1], canvas.shape[0]))
    axes.imshow(canvas, interpolation="none", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    axes.set_axis_off()
    return axes


def box(figure: Figure, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
    """Convert a rectangle in pixels from the upper left corner to matplotlib's figure coordinates."""
    whole_width, whole_height = figure.get_size_inches() * DPI
    return left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG at its original size in pixels."""
    drawn: Any = FigureCanvasAgg(figure)  # its methods have no types
    drawn.draw()
    pixels = np.asarray(drawn.buffer_rgba())
    path.parent.mkdir(parents=True, exist_ok=True)
    # Less time and smaller files than matplotlib's own way; OpenCV's defaults would make larger ones.
    path.write_bytes(cv2.imencode(".png", pixels[:, :, 2::-1], PNG)[1].tobytes())


def stack(tiles: Sequence[Bytes], *, axis: int, gap: int) -> Bytes:
    """Concatenate tiles side by side (axis 1) or vertically (axis 0), with white gaps of `gap` pixels."""
    space = list(tiles[0].shape)
    space[axis] = gap
    white = np.full(space, 255, dtype=np.uint8)
    parts = [part for tile in tiles for part in (white, tile)][1:]
    return np.concatenate(parts, axis=axis)


def resized(image: Bytes, width: int, height: int | None = None, how: int = cv2.INTER_LINEAR) -> Bytes:
    """Resize an image to a square, or to width x height pixels."""
    return np.asarray(cv2.resize(image, (width, width if height is None else height), interpolation=how), np.uint8)


def enlarged(map_HW: Floats, width: int, height: int | None = None) -> Floats:
    """Resize a map bilinearly to a square, or to width x height pixels."""
    size = (width, width if height is None else height)
    return np.asarray(cv2.resize(map_HW, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def heat(map_HW: Floats, highest: float, side: int, how: int = cv2.INTER_NEAREST) -> Bytes:
    """Return a map as a colour image from black (0) to yellow (`highest`)."""
    level_HW = np.clip(map_HW * (255 / highest if highest > 0 else 0), 0, 255).astype(np.uint8)
    coloured = cv2.applyColorMap(level_HW, cv2.COLORMAP_INFERNO)[:, :, ::-1]
    return resized(np.ascontiguousarray(coloured), side, how=how)


def grey(mask_HW: Floats, side: int) -> Bytes:
    """Return a mask as a grey image from black (0) to white (1)."""
    level_HW = (np.clip(mask_HW, 0, 1) * 255).astype(np.uint8)
    return resized(np.repeat(level_HW[:, :, None], 3, axis=2), side, how=cv2.INTER_NEAREST)


def lit(image: Bytes, region: Bools, colour: str = PAPER_WHITE) -> Bytes:
    """Return the image darkened outside the region, with the region's outline."""
    inside = region[:, :, None]
    shown = np.where(inside, image, (image * DIMMED).astype(np.uint8))
    return outlined(shown, region, colour, 1)


def outlined(image: Bytes, region: Bools, colour: str, width: int) -> Bytes:
    """Return the image with the region's outline, `width` pixels wide."""
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.ascontiguousarray(image).copy()
    cv2.drawContours(drawn, outlines, -1, rgb(colour), width, cv2.LINE_AA)
    return drawn


def rgb(colour: str) -> tuple[int, int, int]:
    """Convert `#rrggbb` to (red, green, blue), 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def laid_over(map_HW: Floats, centre_H: Floats, side: int) -> Floats:
    """Return a map at image resolution, bilinear between the centres of its units: (side, side).

    Args:
        map_HW: the map.
        centre_H: centres of the units along one axis, in pixels from the image's edge; beyond the outermost ones the
            value is that of the nearest unit.
        side: side of the image, pixels.
    """
    unit_S = np.interp(np.arange(side) + 0.5, centre_H, np.arange(len(centre_H))).astype(np.float32)
    column_SS, row_SS = np.meshgrid(unit_S, unit_S)
    return np.asarray(cv2.remap(map_HW, column_SS, row_SS, cv2.INTER_LINEAR), dtype=np.float32)


def glowing(image: Bytes, heat_HW: Floats, highest: float) -> Bytes:
    """Return the darkened image under a heat map whose opacity grows with its value, up to `highest`."""
    level_HW = np.clip(heat_HW / highest, 0, 1) if highest > 0 else np.zeros_like(heat_HW)
    hot = cv2.applyColorMap((level_HW * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    cover = 0.85 * np.sqrt(level_HW)[:, :, None]
    return np.asarray(image * 0.75 * (1 - cover) + hot * cover, dtype=np.uint8)


def one_below_the_other(pngs: Sequence[bytes]) -> bytes:
    """Stack PNG images vertically, aligned to the left, and return the PNG."""
    images = [Image.open(BytesIO(png)).convert("RGB") for png in pngs]
    whole = Image.new("RGB", (max(p.width for p in images), sum(p.height for p in images)), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    file = BytesIO()
    whole.save(file, "PNG")
    return file.getvalue()
