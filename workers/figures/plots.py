"""Figures of a job: training curves, a gallery of filters, and peaks on the images.

Shape legend: F filters   H = W = map side   S side of the network's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from interp_model.explain.occlusion import REGION_THRESHOLD
from workers.figures.canvas import (
    BAR,
    BLUE,
    EDGE,
    FAINT,
    FILTER_COLOURS,
    GAP,
    GREEN,
    GROUP_GAP,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    Bytes,
    Floats,
    Title,
    blank,
    enlarged,
    glowing,
    grey,
    grey_colours,
    heat,
    heat_colours,
    lit,
    name_row,
    place,
    resized,
    scale_bar,
    stack,
)
from workers.training.records import EpochRecord

LANDMARK_MARKERS = ("P", "X", "D", "^", "s")

TILE = 104
"""Side of a tile in the gallery, pixels."""
LABELS = 150
"""Width of the labels of the rows, pixels."""
PEAK_TILE = 190
PEAK_SIZES = (105, 74, 50, 31, 17, 8)
"""Areas of the markers, points squared; peaks at the same position show as rings."""


class Shown(NamedTuple):
    """One filter on one image."""

    image_SS3: Bytes
    """The image, RGB."""
    map_HW: Floats
    """Map after ReLU, before masking."""
    mask_HW: Floats | None
    """Mask; None in a layer without masks."""
    over_SS: Floats
    """Map after masking at image resolution, see `laid_over`."""
    field_SS: Floats | None = None
    """Receptive field of the layer's output at image resolution; None if it was not computed."""


class FilterStrip(NamedTuple):
    """One row of the gallery."""

    label: str
    """Label of the filter."""
    shown: Sequence[Shown]
    """The filter on several images."""


class Marked(NamedTuple):
    """One image with the peaks of some filters and its visible landmarks, (row, column) in pixel indices."""

    image_SS3: Bytes
    """The image, RGB."""
    peak_F2: NDArray[np.float64]
    """Peaks; NaN where a filter does not fire."""
    landmarks: Mapping[str, tuple[float, float]]
    """Name -> position of each visible landmark."""


def draw_curves(records: Sequence[EpochRecord], title: Title, chance: float | None = None) -> Figure:
    """Draw the curves of training: task loss, accuracies, peak activation, the filter loss with lambda if there is one,
    and the information in the filters (Eq. 5).

    Args:
        records: the epochs.
        title: the figure's title.
        chance: accuracy of the best constant answer on the held-out images; None draws no line.
    """
    epochs = [record.epoch for record in records]
    has_filter_loss = any(record.lambda_ for record in records)
    count = 5 + has_filter_loss
    height = 530
    figure = blank(1150, height, title)
    panels = list(figure.subplots(2, 3, squeeze=False).flat)
    top, bottom = 1 - 79 / height, 49 / height
    figure.subplots_adjust(left=0.05, right=0.95, top=top, bottom=bottom, wspace=0.28, hspace=0.45)
    for unused in panels[count:]:
        unused.set_axis_off()

    _line(_panel(panels[0], "task loss"), epochs, [record.task_loss for record in records], INK)
    accuracy = _panel(panels[1], "accuracy")
    _line(accuracy, epochs, [record.train_accuracy for record in records], MUTED, "training (augmented, dropout)")
    _line(accuracy, epochs, [record.validation_accuracy for record in records], BLUE, "held out")
    lowest = min(min(record.train_accuracy, record.validation_accuracy) for record in records)
    if chance is not None:
        accuracy.axhline(chance, color=MUTED, linestyle=":", linewidth=1, label="held out, by chance")
        lowest = min(lowest, chance)
    accuracy.set_ylim(lowest - 0.65 * (1.01 - lowest), 1.01)  # leaves space for the legend
    accuracy.legend(frameon=False, fontsize=7, loc="lower right")
    peak = _panel(panels[2], "mean peak activation")
    _line(peak, epochs, [record.mean_peak for record in records], GREEN)
    peak.set_ylim(bottom=0)
    if has_filter_loss:
        lambdas = [record.lambda_ for record in records]
        right = _two(panels[3], "filter loss (left) and λ (right)", epochs, [r.filter_loss for r in records], lambdas)
        right.set_ylim(bottom=0)
    _draw_information(panels[count - 2], panels[count - 1], records)
    return figure


def _draw_information(information: Axes, entropies: Axes, records: Sequence[EpochRecord]) -> None:
    """Draw the filters' mutual information, and the two entropies of Eq. 5."""
    epochs = [record.epoch for record in records]
    panel = _panel(information, "mutual information, nats")
    _line(panel, epochs, [record.mutual_information for record in records], BLUE)
    where = [record.spatial_entropy for record in records]
    category = [record.category_entropy for record in records]
    _two(entropies, "entropy of place (left), of category (right), nats", epochs, where, category)


def _two(panel: Axes, title: str, epochs: Sequence[int], left: Sequence[float], right: Sequence[float]) -> Axes:
    """Draw two curves with separate y-axes and return the right axes."""
    left_axes = _panel(panel, title)
    _line(left_axes, epochs, left, PURPLE)
    right_axes = left_axes.twinx()
    _line(right_axes, epochs, right, ORANGE)
    for axes, colour in ((left_axes, PURPLE), (right_axes, ORANGE)):
        axes.tick_params(axis="y", labelsize=7, colors=colour, length=2)
    right_axes.spines[:].set_visible(False)
    return right_axes


def draw_gallery(strips: Sequence[FilterStrip], title: Title) -> Figure:
    """Draw the paper's Fig. 4: image, feature map, mask, masked map over the image and receptive field of some filters.

    Args:
        strips: one row per filter. Layers without masks have no mask column; the column of the receptive fields is left
            out where they were not computed.
        title: title of the figure.
    """
    headings = _headings(strips[0].shown[0])
    rows = _equally_wide([_strip(strip.shown) for strip in strips])
    height, width = TILE * len(rows) + GAP * (len(rows) - 1), rows[0].shape[1]
    left, top = LABELS, 78
    figure = blank(left + width + EDGE, top + height + BAR, title)
    axes = place(figure, stack(rows, axis=0, gap=GAP), left, top)
    for number, strip in enumerate(strips):
        name_row(axes, number * (TILE + GAP) + TILE / 2, strip.label, LABELS)
    scale_bar(figure, heat_colours(), ("0", "1"), "activation, relative to each filter's highest", left)
    if strips[0].shown[0].mask_HW is not None:
        scale_bar(figure, grey_colours(), ("0", "1"), "mask", left + 460)
    group = len(headings) * (TILE + GAP) - GAP + GROUP_GAP
    for image in range(max(len(strip.shown) for strip in strips)):
        for column, heading in enumerate(headings):
            middle = image * group + column * (TILE + GAP) + TILE / 2
            axes.text(middle, -6, heading, ha="center", va="bottom", fontsize=7.5, color=MUTED)
    return figure


def _equally_wide(rows: list[Bytes]) -> list[Bytes]:
    """Pad rows with white to the width of the widest."""
    width = max(row.shape[1] for row in rows)
    return [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]


def _headings(item: Shown) -> list[str]:
    masked = ["map on image"] if item.mask_HW is None else ["mask", "masked map"]
    return ["image", "feature map", *masked, *(["receptive field"] if item.field_SS is not None else [])]


def draw_peaks(marked: Sequence[Marked], filters: Sequence[str], title: Title, *, columns: int = 6) -> Figure:
    """Draw the peaks of some filters and the landmarks on several images.

    Args:
        marked: images with peaks and landmarks.
        filters: label of each filter, for the legend.
        title: title of the figure.
        columns: number of images per row.
    """
    rows = [marked[start : start + columns] for start in range(0, len(marked), columns)]
    tiles = [[resized(item.image_SS3, PEAK_TILE) for item in row] for row in rows]
    tiles[-1] += [np.full_like(tiles[0][0], 255)] * (len(rows[0]) - len(rows[-1]))
    canvas = stack([stack(row, axis=1, gap=GAP) for row in tiles], axis=0, gap=GAP)
    top, bottom = 58, 34
    figure = blank(canvas.shape[1] + 2 * EDGE, canvas.shape[0] + top + bottom, title)
    axes = place(figure, canvas, EDGE, top)
    scale = PEAK_TILE / marked[0].image_SS3.shape[0]
    names = list(dict.fromkeys(name for item in marked for name in item.landmarks))
    markers = dict(zip(names, cycle(LANDMARK_MARKERS), strict=False))
    corners = [np.array([n // columns, n % columns]) * (PEAK_TILE + GAP) for n in range(len(marked))]
    _mark_landmarks(axes, [item.landmarks for item in marked], markers, corners, scale)
    _mark_peaks(axes, [item.peak_F2 for item in marked], corners, scale)
    handles = [_handle("o", colour, name) for colour, name in zip(FILTER_COLOURS, filters, strict=False)]
    handles += [_handle(marker, "white", name.replace("_", " ")) for name, marker in markers.items()]
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=8, handletextpad=0.1,
        bbox_to_anchor=(0.5, 0.0), borderaxespad=0.4,
    )  # fmt: skip
    return figure


def _mark_peaks(
    axes: Axes, peaks: Sequence[NDArray[np.float64]], corners: Sequence[NDArray[np.int64]], scale: float
) -> None:
    # Receptive-field centres may lie outside the image; markers are moved to its border.
    at = [
        corner + np.clip((peak_F2 + 0.5) * scale, 5, PEAK_TILE - 6)
        for corner, peak_F2 in zip(corners, peaks, strict=True)
    ]
    y, x = np.concatenate(at).T
    images, filters = len(at), len(at[0])
    axes.scatter(
        x, y, s=PEAK_SIZES[:filters] * images, c=FILTER_COLOURS[:filters] * images, edgecolors="white",
        linewidths=0.8, zorder=3,
    )  # fmt: skip


def _mark_landmarks(
    axes: Axes,
    landmarks: Sequence[Mapping[str, tuple[float, float]]],
    markers: Mapping[str, str],
    corners: Sequence[NDArray[np.int64]],
    scale: float,
) -> None:
    for name, marker in markers.items():  # one call of matplotlib per landmark, because each takes milliseconds
        at = [
            corner + (np.array(seen[name]) + 0.5) * scale
            for corner, seen in zip(corners, landmarks, strict=True)
            if name in seen
        ]
        y, x = np.array(at).T
        axes.scatter(x, y, s=58, c="white", marker=marker, edgecolors=INK, linewidths=0.9, zorder=2)


def _strip(shown: Sequence[Shown]) -> Bytes:
    """Return the tiles of one filter side by side, with one colour scale for its maps."""
    highest = max(float(item.map_HW.max()) for item in shown)
    groups = [stack(_tiles(item, highest), axis=1, gap=GAP) for item in shown]
    return stack(groups, axis=1, gap=GROUP_GAP)


def _tiles(item: Shown, highest: float) -> list[Bytes]:
    tiles = [resized(item.image_SS3, TILE), heat(item.map_HW, highest, TILE)]
    if item.mask_HW is not None:
        tiles.append(grey(item.mask_HW, TILE))
    tiles.append(glowing(tiles[0], enlarged(item.over_SS, TILE), highest))
    if item.field_SS is not None:
        tiles.append(lit(tiles[0], enlarged(item.field_SS, TILE) >= REGION_THRESHOLD))
    return tiles


def _panel(axes: Axes, title: str) -> Axes:
    axes.set_title(title, fontsize=8.5, color=INK, loc="left", y=1.0)  # else matplotlib measures all labels
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
