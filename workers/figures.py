"""The pictures a job leaves: training curves, a gallery of its filters, and their peaks drawn on the images.

Shape legend: F filters   H = W = map side   S side of the network's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from workers.train import EpochRecord

DPI = 110
INK, MUTED, FAINT = "#22272e", "#6b7280", "#e5e7eb"
BLUE, GREEN, PURPLE, ORANGE = "#1f6feb", "#0f9d76", "#8250df", "#d9730d"

FILTER_COLOURS = ("#e6194b", "#ffc400", "#00c2d1", "#c05bff", "#3ddc5b", "#ff7a1a")
"""One a filter, apart from each other and from fur, grass and sky."""

LANDMARK_MARKERS = ("P", "X", "D", "^", "s")

TILE = 104
"""Side of a picture in the gallery, pixels."""
GAP, GROUP_GAP = 3, 16
"""Pixels between the pictures of one image, and between images."""
PEAK_TILE = 190
PEAK_SIZES = (105, 74, 50, 31, 17, 8)
"""Areas of the marks, points squared: filters that peak at one place show as rings."""
MIN_WIDTH = 860
"""Room for the longest title."""
EDGE = 14
"""Margin, pixels."""

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Title(NamedTuple):
    subject: str
    """Whose network, and what its images are."""
    what: str
    """What the figure shows of it."""


class Shown(NamedTuple):
    """One filter on one image."""

    image_SS3: Bytes
    map_HW: Floats
    """After ReLU, before masking."""
    mask_HW: Floats | None
    """None in a layer without masks."""


class FilterStrip(NamedTuple):
    """One row of the gallery."""

    label: str
    shown: Sequence[Shown]


class Marked(NamedTuple):
    """One image with the peaks of some filters and the landmarks it shows: (row, col), pixel indices."""

    image_SS3: Bytes
    peak_F2: NDArray[np.float64]
    """NaN where a filter does not fire."""
    landmarks: Mapping[str, tuple[float, float]]


def draw_curves(records: Sequence[EpochRecord], title: Title) -> Figure:
    """Task loss, accuracies, peak activation and, where there is one, filter loss with lambda against the epoch."""
    epochs = [record.epoch for record in records]
    has_filter_loss = any(record.lambda_ for record in records)
    figure = _figure(1150 if has_filter_loss else 900, 305, title)
    panels = figure.subplots(1, 4 if has_filter_loss else 3)
    figure.subplots_adjust(left=0.05, right=0.955, top=0.74, bottom=0.16, wspace=0.28)

    _line(_panel(panels[0], "task loss"), epochs, [record.task_loss for record in records], INK)
    accuracy = _panel(panels[1], "accuracy")
    _line(accuracy, epochs, [record.train_accuracy for record in records], MUTED, "training (augmented, dropout)")
    _line(accuracy, epochs, [record.validation_accuracy for record in records], BLUE, "held out")
    lowest = min(min(record.train_accuracy, record.validation_accuracy) for record in records)
    accuracy.set_ylim(lowest - 0.5 * (1.01 - lowest), 1.01)  # the legend's place
    accuracy.legend(frameon=False, fontsize=7, loc="lower right")
    peak = _panel(panels[2], "mean peak activation")
    _line(peak, epochs, [record.mean_peak for record in records], GREEN)
    peak.set_ylim(bottom=0)
    if has_filter_loss:
        left = _panel(panels[3], "filter loss (left) and λ (right)")
        _line(left, epochs, [record.filter_loss for record in records], PURPLE)
        right = left.twinx()
        _line(right, epochs, [record.lambda_ for record in records], ORANGE)
        right.set_ylim(bottom=0)
        for axes, colour in ((left, PURPLE), (right, ORANGE)):
            axes.tick_params(axis="y", labelsize=7, colors=colour, length=2)
        right.spines[:].set_visible(False)
    return figure


def draw_gallery(strips: Sequence[FilterStrip], title: Title) -> Figure:
    """The paper's Fig. 4: image, feature map, mask and masked map of several filters; without masks, the first two."""
    has_masks = strips[0].shown[0].mask_HW is not None
    headings = ("image", "feature map", "mask", "masked map") if has_masks else ("image", "feature map")
    rows = [_strip(strip.shown) for strip in strips]
    height, width = TILE * len(rows) + GAP * (len(rows) - 1), rows[0].shape[1]
    left, top = 150, 78
    figure = _figure(left + width + EDGE, top + height + EDGE, title)
    axes = _picture(figure, _stack(rows, axis=0, gap=GAP), left, top)
    for number, strip in enumerate(strips):
        middle = number * (TILE + GAP) + TILE / 2
        axes.text(-10, middle, strip.label, ha="right", va="center", fontsize=7.5, color=INK, linespacing=1.4)
    group = len(headings) * (TILE + GAP) - GAP + GROUP_GAP
    for image in range(len(strips[0].shown)):
        for column, heading in enumerate(headings):
            middle = image * group + column * (TILE + GAP) + TILE / 2
            axes.text(middle, -6, heading, ha="center", va="bottom", fontsize=7.5, color=MUTED)
    return figure


def draw_peaks(marked: Sequence[Marked], filters: Sequence[str], title: Title, *, columns: int = 6) -> Figure:
    """Where some filters peak on several images, and the landmarks that their steadiness is measured against."""
    rows = [marked[start : start + columns] for start in range(0, len(marked), columns)]
    tiles = [[_resized(item.image_SS3, PEAK_TILE) for item in row] for row in rows]
    tiles[-1] += [np.full_like(tiles[0][0], 255)] * (len(rows[0]) - len(rows[-1]))
    canvas = _stack([_stack(row, axis=1, gap=GAP) for row in tiles], axis=0, gap=GAP)
    top, bottom = 58, 34
    figure = _figure(canvas.shape[1] + 2 * EDGE, canvas.shape[0] + top + bottom, title)
    axes = _picture(figure, canvas, EDGE, top)
    scale = PEAK_TILE / marked[0].image_SS3.shape[0]
    names = list(dict.fromkeys(name for item in marked for name in item.landmarks))
    markers = dict(zip(names, cycle(LANDMARK_MARKERS), strict=False))
    for number, item in enumerate(marked):
        corner = np.array([number // columns, number % columns]) * (PEAK_TILE + GAP)
        _mark_landmarks(axes, item.landmarks, markers, corner, scale)
        _mark_peaks(axes, item.peak_F2, corner, scale)
    handles = [_handle("o", colour, name) for colour, name in zip(FILTER_COLOURS, filters, strict=False)]
    handles += [_handle(marker, "white", name.replace("_", " ")) for name, marker in markers.items()]
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=8, handletextpad=0.1,
        bbox_to_anchor=(0.5, 0.0), borderaxespad=0.4,
    )  # fmt: skip
    return figure


def save(figure: Figure, path: Path) -> None:
    """As PNG; the figure's size in pixels is what it was drawn for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, pil_kwargs={"compress_level": 3})


def _mark_peaks(axes: Axes, peak_F2: NDArray[np.float64], corner: NDArray[np.int64], scale: float) -> None:
    # Units near the border look past it; their mark stays on the picture.
    at_F2 = corner + np.clip((peak_F2 + 0.5) * scale, 5, PEAK_TILE - 6)
    axes.scatter(
        at_F2[:, 1], at_F2[:, 0], s=PEAK_SIZES[: len(at_F2)], c=FILTER_COLOURS[: len(at_F2)], edgecolors="white",
        linewidths=0.8, zorder=3,
    )  # fmt: skip


def _mark_landmarks(
    axes: Axes,
    landmarks: Mapping[str, tuple[float, float]],
    markers: Mapping[str, str],
    corner: NDArray[np.int64],
    scale: float,
) -> None:
    for name, (row, column) in landmarks.items():
        y, x = corner[0] + (row + 0.5) * scale, corner[1] + (column + 0.5) * scale
        axes.scatter([x], [y], s=58, c="white", marker=markers[name], edgecolors=INK, linewidths=0.9, zorder=2)


def _strip(shown: Sequence[Shown]) -> Bytes:
    """One filter's pictures side by side; its maps share one scale."""
    highest = max(float(item.map_HW.max()) for item in shown)
    groups = [_stack(_tiles(item, highest), axis=1, gap=GAP) for item in shown]
    return _stack(groups, axis=1, gap=GROUP_GAP)


def _tiles(item: Shown, highest: float) -> list[Bytes]:
    tiles = [_resized(item.image_SS3, TILE), _heat(item.map_HW, highest)]
    if item.mask_HW is not None:
        tiles += [_grey(item.mask_HW), _heat(item.map_HW * item.mask_HW, highest)]
    return tiles


def _heat(map_HW: Floats, highest: float) -> Bytes:
    level_HW = np.clip(map_HW * (255 / highest if highest > 0 else 0), 0, 255).astype(np.uint8)
    coloured = cv2.applyColorMap(level_HW, cv2.COLORMAP_INFERNO)[:, :, ::-1]
    return _resized(np.ascontiguousarray(coloured), TILE, cv2.INTER_NEAREST)


def _grey(mask_HW: Floats) -> Bytes:
    level_HW = (np.clip(mask_HW, 0, 1) * 255).astype(np.uint8)
    return _resized(np.repeat(level_HW[:, :, None], 3, axis=2), TILE, cv2.INTER_NEAREST)


def _resized(image_SS3: Bytes, side: int, how: int = cv2.INTER_LINEAR) -> Bytes:
    return np.asarray(cv2.resize(image_SS3, (side, side), interpolation=how), dtype=np.uint8)


def _stack(tiles: Sequence[Bytes], *, axis: int, gap: int) -> Bytes:
    """Side by side (axis 1) or one below the other (axis 0), white between."""
    space = list(tiles[0].shape)
    space[axis] = gap
    white = np.full(space, 255, dtype=np.uint8)
    parts = [part for tile in tiles for part in (white, tile)][1:]
    return np.concatenate(parts, axis=axis)


def _figure(width: int, height: int, title: Title) -> Figure:
    width = max(width, MIN_WIDTH)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    left = EDGE / width
    figure.text(left, 1 - 11 / height, title.subject, ha="left", va="top", fontsize=9, weight="bold", color=INK)
    figure.text(left, 1 - 31 / height, title.what, ha="left", va="top", fontsize=8.5, color=MUTED)
    return figure


def _picture(figure: Figure, canvas: Bytes, left: int, top: int) -> Axes:
    """`canvas` pixel for pixel, at a place given in pixels."""
    width, height = figure.get_size_inches() * DPI
    box = (left / width, 1 - (top + canvas.shape[0]) / height, canvas.shape[1] / width, canvas.shape[0] / height)
    axes = figure.add_axes(box)
    axes.imshow(canvas, interpolation="none", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    axes.set_axis_off()
    return axes


def _panel(axes: Axes, title: str) -> Axes:
    axes.set_title(title, fontsize=8.5, color=INK, loc="left")
    axes.set_xlabel("epoch", fontsize=7.5, color=MUTED)
    axes.tick_params(labelsize=7, colors=MUTED, length=2)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _line(axes: Axes, epochs: Sequence[int], values: Sequence[float], colour: str, label: str | None = None) -> None:
    axes.plot(epochs, values, color=colour, linewidth=1.5, marker="o", markersize=2.2, label=label)


def _handle(marker: str, colour: str, label: str) -> Line2D:
    edge = INK if colour == "white" else "white"
    return Line2D(
        [], [], linestyle="none", marker=marker, markersize=7, markerfacecolor=colour, markeredgecolor=edge, label=label
    )
