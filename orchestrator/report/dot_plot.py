"""Draws dot plots: the ordinary and the interpretable network of each category as two dots on one line."""

from __future__ import annotations

import io
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.report.model import DATASET_TITLES, METRICS, Block, Line, Metric, Place, Report, ReportTable
from orchestrator.report.summary import VARIANTS
from schemas.categories import CATEGORIES
from schemas.paper import ALL, AVERAGE, MetricName

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, FAINT, BLUE, RED = "#22272e", "#6b7280", "#e5e7eb", "#1f6feb", "#cf3d2e"
ROW_INCHES, NAMES_INCHES, PAGE_INCHES = 0.2, 1.3, 11.2
MAX_PANEL_INCHES = 6.0
LETTERS_PER_INCH = 12
"""Letters of a panel's title that surely fit into an inch of its width."""
PANELS_PER_ROW = 3


class Panel(NamedTuple):
    """The plot of one backbone and setting."""

    title: str
    lines: tuple[Line, ...]
    """One per category that has a value, in the order of the paper's tables."""


def dot_plots(report: Report) -> list[tuple[MetricName, str]]:
    """Draw the plots of a report.

    Returns:
        Measure and inline SVG, one per measure that has a category with both variants.
    """
    found = [(name, panels(report, name)) for name in METRICS if METRICS[name].change_is_relative]
    return [(name, _svg(METRICS[name], drawn)) for name, drawn in found if drawn]


def panels(report: Report, metric: MetricName) -> list[Panel]:
    """Return one panel per backbone and setting that has a category with both variants."""
    members = [table for table in report.tables if table.metric == metric]
    blocks = {(b.backbone, b.setting): b for table in members for b in table.blocks if b.pairs()}
    per_panel = {key: _lines(members, *key) for key in blocks}
    return [
        Panel(backbone + (f", {setting}" if setting else ""), tuple(line for line in lines if line.has_ours))
        for (backbone, setting), lines in per_panel.items()
    ]


def _lines(tables: Sequence[ReportTable], backbone: str, setting: str) -> list[Line]:
    return [line for table in tables for block in _blocks(table, backbone, setting) for line in _categories(block)]


def _blocks(table: ReportTable, backbone: str, setting: str) -> list[Block]:
    """The block of the setting, or the only block of the backbone if the table has no other settings."""
    mine = [block for block in table.blocks if block.backbone == backbone]
    return [block for block in mine if block.setting == setting] or (mine if len(mine) == 1 else [])


def _categories(block: Block) -> list[Line]:
    return [line for line in block.lines if line.place.category not in (AVERAGE, ALL)]


def _svg(metric: Metric, drawn: Sequence[Panel]) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(PANELS_PER_ROW, len(drawn))
    rows = -(-len(drawn) // columns)
    found = {line.place for panel in drawn for line in panel.lines}
    in_paper = [(c.dataset, c.name) for c in CATEGORIES]
    order = list(dict.fromkeys((*in_paper, *((line.place.dataset, line.place.category)
                                             for panel in drawn for line in panel.lines))))  # fmt: skip
    places = sorted(found, key=lambda place: order.index((place.dataset, place.category)))
    panel_width = min(MAX_PANEL_INCHES, (PAGE_INCHES - NAMES_INCHES) / columns)
    titles = [fill(panel.title, int(panel_width * LETTERS_PER_INCH)) for panel in drawn]
    title_height = max(title.count("\n") for title in titles) * ROW_INCHES
    height = rows * (ROW_INCHES * len(places) + title_height + 1.0) + 0.5
    width = NAMES_INCHES + columns * panel_width
    # Text is not converted to paths, so that the page's fonts apply. The salt is fixed: equal reports are equal files.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "orch", "font.size": 8.5}):
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.12))
        FigureCanvasSVG(figure)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes, panel, title in zip(grid.flat, drawn, titles, strict=False):
            axes.set_title(title, loc="left", fontsize=9.5, fontweight="bold", color=INK)
            _draw(axes, panel, places, metric)
        for axes in list(grid.flat)[len(drawn) :]:
            axes.set_axis_off()
        axes = grid.flat[0]
        axes.set_yticks(range(len(places)), [f"{_short(place.dataset)} {place.category}" for place in places])
        axes.set_ylim(len(places) - 0.4, -0.6)
        handles, labels = axes.get_legend_handles_labels()
        by_label = dict(zip(labels, handles, strict=True))
        figure.legend(by_label.values(), by_label, loc="outside upper center", ncols=len(by_label), frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def _short(dataset: str) -> str:
    return DATASET_TITLES.get(dataset, dataset).split()[0]


def _draw(axes: Axes, panel: Panel, places: Sequence[Place], metric: Metric) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, length=0, labelbottom=True)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{metric.title} ({'lower' if metric.lower_is_better else 'higher'} is better)", color=MUTED)
    colours = dict(zip(VARIANTS, (MUTED, BLUE), strict=True))
    for line in panel.lines:
        row = places.index(line.place)
        ordinary, interpretable = (line.entries[variant] for variant in VARIANTS)
        if ordinary.ours is not None and interpretable.ours is not None:
            better = (interpretable.ours < ordinary.ours) == metric.lower_is_better
            axes.plot(
                [ordinary.ours, interpretable.ours], [row, row], color=BLUE if better else RED, lw=1.6, alpha=0.45
            )
        if ordinary.ours is not None:
            axes.plot(ordinary.ours, row, "o", color="white", mec=INK, ms=5.5, mew=1.2, label="ordinary")
        if interpretable.ours is not None:
            axes.plot(interpretable.ours, row, "o", color=BLUE, ms=6, label="interpretable")
        for variant, entry in line.entries.items():
            if entry.published is not None:
                axes.plot(entry.published, row, "|", color=colours[variant], ms=7, mew=1.1, alpha=0.5,
                          label=f"{variant}, published")  # fmt: skip
