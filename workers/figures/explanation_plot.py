"""Figure of an explained photograph: regions and contributions of the filters, and the decision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from interp_model.explain.occlusion import REGION_THRESHOLD, occluder_for
from workers.figures.canvas import (
    CAPTION,
    EDGE,
    FILTER_COLOURS,
    GAP,
    INK,
    MUTED,
    PAPER_WHITE,
    Bools,
    Bytes,
    Floats,
    Title,
    blank,
    box,
    caption,
    enlarged,
    lit,
    outlined,
    place,
)
from workers.figures.compose import subject
from workers.figures.explain import SHOWN, Explanation, FilterSays
from workers.figures.photograph import cut

LARGEST = 440
"""Longer side of the photograph, pixels."""
BARS = 8
"""Number of filters with a separate bar."""
REST = "#9aa3af"
LABELS, VALUES = 210, 60
"""Space left and right of the bars, pixels."""
CHART = 560
TOP, BELOW = 66, 44


def draw_explanation(found: Explanation, picture: Image.Image, name: str) -> Figure:
    """Draw the photograph with regions and peaks of the most important filters, and the filters' contributions.

    Args:
        found: the explanation.
        picture: upright RGB photograph.
        name: name of the photograph, for the title.
    """
    image = _shown(found, picture)
    height, width = image.shape[:2]
    body = max(height, 30 * (BARS + 2) + 46)
    total = EDGE + width + 2 * EDGE + CHART + EDGE
    regions = {says.filter: _region(says.field_SS, image) for says in found.filters if says.field_SS is not None}
    measured = _measured(found)
    thumbs = [_thumb(image, regions[says.filter], colour, total) for says, colour in _coloured(found)]
    figure = blank(
        total,
        TOP + body + BELOW + thumbs[0].shape[0] + EDGE + len(measured) * CAPTION + EDGE,
        Title(subject(found.spec, "trained on "), f"{name}: {found.decision}"),
    )
    for says, colour in reversed(_coloured(found)):
        image = outlined(image, regions[says.filter], colour, 2)
    _mark(place(figure, image, EDGE, TOP), found, height / found.box.height, width / found.box.width)
    _bars(figure, found, EDGE + width + 2 * EDGE, body)
    for number, (thumb, (says, _)) in enumerate(zip(thumbs, _coloured(found), strict=True)):
        axes = place(figure, thumb, EDGE + number * (thumb.shape[1] + 2 * GAP), TOP + body + BELOW)
        axes.text(0, -18, f"{number + 1}  filter {says.filter}", fontsize=8, color=INK, weight="bold", va="bottom")
        axes.text(0, -5, _below(says), fontsize=7, color=MUTED, va="bottom")
    caption(figure, measured)
    return figure


def _coloured(found: Explanation) -> list[tuple[FilterSays, str]]:
    return list(zip(found.filters[:SHOWN], FILTER_COLOURS, strict=False))


def _shown(found: Explanation, picture: Image.Image) -> Bytes:
    """Return the box in its original aspect ratio."""
    scale = LARGEST / max(found.box.width, found.box.height)
    return cut(picture, found.box, max(1, round(found.box.width * scale)), max(1, round(found.box.height * scale)))


def _region(field_SS: Floats, image: Bytes) -> Bools:
    return np.asarray(enlarged(field_SS, image.shape[1], image.shape[0]) >= REGION_THRESHOLD)


def _thumb(image: Bytes, region: Bools, colour: str, total: int) -> Bytes:
    width = (total - 2 * EDGE - (SHOWN - 1) * 2 * GAP) // SHOWN
    scale = min(width / image.shape[1], 1.4 * width / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    shown = Image.fromarray(lit(image, region, colour)).resize(size, Image.Resampling.LANCZOS)
    white = np.full((size[1], width, 3), 255, np.uint8)
    white[:, : size[0]] = np.asarray(shown)
    return white


def _mark(axes: Axes, found: Explanation, per_row: float, per_column: float) -> None:
    """Draw a numbered dot at each filter's peak; dots at the same position are placed side by side."""
    taken: list[tuple[float, float]] = []
    for number, (says, colour) in enumerate(_coloured(found), start=1):
        if says.peak is None:
            continue
        x, y = (says.peak[0] - found.box.left) * per_column, (says.peak[1] - found.box.top) * per_row
        while any(abs(x - other_x) < 15 and abs(y - other_y) < 15 for other_x, other_y in taken):
            x += 16
        taken.append((x, y))
        axes.scatter([x], [y], s=120, c=colour, edgecolors=PAPER_WHITE, linewidths=1, zorder=3, clip_on=False)
        axes.text(
            x, y, str(number), ha="center", va="center_baseline", fontsize=7.5, weight="bold", color=INK, zorder=4
        )


def _bars(figure: Figure, found: Explanation, left: int, height: int) -> None:
    own, rest = found.filters[:BARS], found.filters[BARS:]
    colours = [*FILTER_COLOURS[:SHOWN], *([REST] * BARS)]
    lines = [(_name(number, says), says.contribution, colours[number]) for number, says in enumerate(own)]
    if rest:
        lines.append((f"the other {len(rest)} filters", sum(says.contribution for says in rest), REST))
    lines.append(("without any filter", found.base, REST))
    head = 46
    axes = figure.add_axes(
        box(figure, left + LABELS, TOP + head, CHART - LABELS - VALUES, min(height - head, 30 * len(lines)))
    )
    axes.barh(range(len(lines)), [value for _, value, _ in lines], height=0.62, color=[colour for *_, colour in lines])
    axes.axvline(0, color=INK, linewidth=0.8)
    _write_values(axes, [value for _, value, _ in lines])
    axes.set_yticks(range(len(lines)), [name for name, *_ in lines], fontsize=8, color=INK)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    at = box(figure, left, TOP, CHART, head)
    top, low = at[1] + at[3], at[1]
    figure.text(at[0], top, f"What the filters of {found.layer} add to the logit of {found.label}", fontsize=8.5,
                color=INK, va="top", weight="bold")  # fmt: skip
    figure.text(at[0], low + 0.52 * (top - low), _sum(found), fontsize=8, color=MUTED, va="top")


def _write_values(axes: Axes, values: Sequence[float]) -> None:
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    # Leave space for the value of a negative bar at its left, next to the names.
    axes.set_xlim(low - (0.24 * span if low < 0 else 0), high)
    for at, value in enumerate(values):
        side = -1 if value < 0 else 1
        at_x, away = value + side * 0.015 * span, "left" if side > 0 else "right"
        axes.text(at_x, at, f"{value:+z.3f}", va="center", ha=away, fontsize=8, color=INK)


def _sum(found: Explanation) -> str:
    total = sum(says.contribution for says in found.filters)
    return (
        f"{found.base:+z.3f} without any filter {total:+z.3f} from {len(found.filters)} filters = {found.logit:+z.3f}"
    )


def _measured(found: Explanation) -> tuple[str, str]:
    """Return the caption: what outlines, dots and bars are."""
    side = found.spec.model.input_size
    share = occluder_for(side).side / side
    return (
        f"Outlines: where a patch of {share:.0%} of the image's side lowers a filter's activation by at least half of "
        "the largest drop.",
        "Dots: receptive-field centres of the peaks. Bars: integrated gradients of the logit, from maps of zeros to "
        f"those of {found.layer} on the photograph.",
    )


def _name(number: int, says: FilterSays) -> str:
    mark = f"{number + 1}  " if number < SHOWN else ""
    return f"{mark}filter {says.filter}" + (f" ({says.place})" if says.place else "")


def _below(says: FilterSays) -> str:
    return f"adds {says.contribution:+z.3f}" if says.activation > 0 else "silent"
