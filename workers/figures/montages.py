"""The paper's Figs. 5 and 6: receptive fields of filters on many images, and the distribution of all peaks.

Shape legend: S side of the network's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp_model.explain.occlusion import REGION_THRESHOLD
from workers.figures.canvas import (
    BAR,
    BLUE,
    EDGE,
    GAP,
    INK,
    MUTED,
    Bytes,
    Floats,
    Title,
    blank,
    box,
    enlarged,
    fit,
    glowing,
    heat_colours,
    lit,
    name_row,
    place,
    resized,
    scale_bar,
    stack,
)

TILE = 118
LABELS = 150
TOP = 58
HEADED_TOP = 78
HEAT_COLUMNS = 4
HIGHEST_HEAT = 0.25
"""End of the colour scale of heat maps. Peaks of many filters hardly ever agree better."""
HEAT_SCALE = "of the filters peak here at full strength (middle of the scale: 6%)"
BARS = 330
"""Width of the bar chart with its labels, pixels."""


class Lit(NamedTuple):
    """A filter's receptive field on one image."""

    image_SS3: Bytes
    """The image, RGB."""
    field_SS: Floats
    """Receptive field, scaled to a maximum of 1."""


class MontageRow(NamedTuple):
    """A filter on several images."""

    label: str
    """Label of the filter."""
    shown: Sequence[Lit]
    """Images with the filter's receptive field."""


class Heated(NamedTuple):
    """An image with the density of the filters' peaks."""

    image_SS3: Bytes
    """The image, RGB."""
    heat_SS: Floats
    """Density of the peaks: 1 where all filters peak at one place at their full strength."""


def draw_montage(rows: Sequence[MontageRow], title: Title) -> Figure:
    """Draw the paper's Fig. 5: one row per filter, one column per image, dark outside the filter's receptive field."""
    columns = max(len(row.shown) for row in rows)
    strips = [_padded([_lit(item) for item in row.shown], columns) for row in rows]
    canvas = stack([stack(strip, axis=1, gap=GAP) for strip in strips], axis=0, gap=GAP)
    figure = blank(LABELS + canvas.shape[1] + EDGE, TOP + canvas.shape[0] + EDGE, title)
    axes = place(figure, canvas, LABELS, TOP)
    for number, row in enumerate(rows):
        name_row(axes, number * (TILE + GAP) + TILE / 2, row.label, LABELS)
    return figure


def draw_heat(whole: Heated, shown: Sequence[Heated], shares: Mapping[str, float], what: str, title: Title) -> Figure:
    """Draw the paper's Fig. 6: heat maps of all filters' peaks, and the shares of parts or landmarks.

    Args:
        whole: mean image and density over all measured images. The colours have one scale in all figures: that of the
            density's square root, because few densities are high.
        shown: single images.
        shares: part or landmark -> share of the filters' peaks; may be empty.
        what: caption of the shares.
        title: title of the figure.
    """
    large = 2 * TILE + GAP
    tiles = [_heated(item, TILE) for item in shown]
    rows = [_padded(tiles[start : start + HEAT_COLUMNS], HEAT_COLUMNS) for start in range(0, len(tiles), HEAT_COLUMNS)]
    canvas = stack([stack(row, axis=1, gap=GAP) for row in rows], axis=0, gap=GAP)
    left = EDGE + large + 2 * EDGE
    width = left + canvas.shape[1] + 2 * EDGE + BARS
    figure = blank(width, HEADED_TOP + large + BAR, title)
    scale_bar(figure, heat_colours(), ("0", "25%"), HEAT_SCALE, 2 * EDGE)
    over_all = place(figure, _heated(whole, large), EDGE, HEADED_TOP)
    _head(over_all, "all images, over their mean")
    _head(place(figure, canvas, left, HEADED_TOP), "single images")
    if shares:
        _bars(figure, shares, what, left + canvas.shape[1] + 2 * EDGE, large)
    return figure


def _bars(figure: Figure, shares: Mapping[str, float], what: str, left: int, height: int) -> None:
    names, labels = list(shares), 92
    axes = figure.add_axes(box(figure, left + labels, HEADED_TOP, BARS - labels - 50, min(height, 34 * len(names))))
    axes.barh(range(len(names)), [shares[name] for name in names], height=0.62, color=BLUE)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8, color=INK)
    for name_text in axes.get_yticklabels():
        fit(name_text, labels)
    for at, name in enumerate(names):
        axes.text(shares[name] + 0.015, at, f"{shares[name]:.0%}", va="center", fontsize=8, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max(shares.values()) or 1)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.text(-labels / (BARS - labels - 50), 1.0, what, transform=axes.transAxes, fontsize=7.5, color=MUTED,
              va="bottom", ha="left")  # fmt: skip


def _head(axes: Axes, text: str) -> None:
    axes.text(0, -6, text, ha="left", va="bottom", fontsize=7.5, color=MUTED)


def _lit(item: Lit) -> Bytes:
    return lit(resized(item.image_SS3, TILE), enlarged(item.field_SS, TILE) >= REGION_THRESHOLD)


def _heated(item: Heated, side: int) -> Bytes:
    return glowing(resized(item.image_SS3, side), np.sqrt(enlarged(item.heat_SS, side)), HIGHEST_HEAT**0.5)


def _padded(tiles: list[Bytes], columns: int) -> list[Bytes]:
    white = np.full((TILE, TILE, 3), 255, np.uint8)
    return tiles + [white] * (columns - len(tiles))
