"""Writes a report as one self-contained HTML file: tables, dot plots and figures of filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.report.dot_plot import dot_plots
from orchestrator.report.formats import (
    EMPTY,
    accuracy_text,
    comparison_text,
    given_notes,
    headings,
    legend,
    measure_headings,
    measure_rows,
    notes,
    rows,
    text_columns,
    value_headings,
    worth_text,
)  # fmt: skip
from orchestrator.report.gallery import EMPTY_GALLERY, Gallery
from orchestrator.report.measures import HEADINGS as MEASURE_HEADINGS
from orchestrator.report.model import METRICS, Report, ReportTable
from orchestrator.report.significance import MIN_PAIRS
from schemas.paper import AVERAGE, MetricName

MEASURED_AS: Mapping[MetricName, str] = {
    "location_instability": (
        "Location instability of a filter: the standard deviation, over images, of the distance between the filter's "
        "peak and a landmark, divided by the image's diagonal; mean over landmarks, then over filters. Lower is better."
    ),
    "part_interpretability": (
        "Part interpretability of a filter: the share of images in which the filter's active region matches its best "
        "part (intersection over union above 0.2); mean over filters. Higher is better."
    ),
    "accuracy_percent": "Accuracy: the share of held-out images that are classified correctly.",
}
COMPARED_AS = (
    f"Ordinary and interpretable networks of one category, which differ in nothing else, are a pair. From {MIN_PAIRS} "
    "pairs: 95 % bootstrap interval of the mean change over categories, and one-sided Wilcoxon signed-rank test with "
    "Holm's correction for the number of networks."
)
TEMPLATE = Path(__file__).with_name("report.html.jinja")


class Headline(NamedTuple):
    """The main result of one network."""

    network: str
    change: str
    """Mean change of location instability, in per cent."""
    is_better: bool
    accuracy: str
    """Mean accuracies, in words; empty if they were not measured."""
    sentence: str
    """The comparison in words, without the accuracies."""
    worth: str
    """How much of it follows the part, in words; empty if that was not measured."""


def as_html(report: Report, gallery: Gallery = EMPTY_GALLERY) -> str:
    """Format a report as an HTML page that loads nothing from elsewhere.

    Args:
        report: the tables.
        gallery: figures shown below them.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["capitalise"] = lambda text: text[:1].upper() + text[1:]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        headlines=_headlines(report),
        plots=[(METRICS[name].title.capitalize(), MEASURED_AS[name], svg) for name, svg in dot_plots(report)],
        tables=[_table(table) for table in report.tables],
        gallery=gallery,
        empty_cell=EMPTY,
        given=given_notes(report),
        legend=legend(report),
        methods=_methods(report),
    )


def _methods(report: Report) -> list[str]:
    """Return how the values were measured and compared, one sentence or two per measure."""
    shown = dict.fromkeys(table.metric for table in report.tables)
    compared = any(block.comparison for table in report.tables for block in table.blocks)
    return [*(MEASURED_AS[metric] for metric in shown), *([COMPARED_AS] if compared else [])]


def _headlines(report: Report) -> list[Headline]:
    """One per network: over all data sets if there are several, otherwise from the only table."""
    metric = METRICS["location_instability"]
    found = [(o.backbone, o.setting, o.comparison) for o in report.overall] or [
        (block.backbone, block.setting, block.comparison)
        for table in report.tables
        if table.metric == "location_instability"
        for block in table.blocks
        if block.comparison
    ]
    return [
        Headline(
            network=f"{backbone}, {setting}" if setting else backbone,
            change=f"{comparison.mean_change:+z.0%}",
            is_better=comparison.mean_change < 0,
            accuracy=accuracy_text(comparison),
            sentence=comparison_text(replace(comparison, accuracy=None), metric),
            worth=worth_text(comparison).strip(),
        )
        for backbone, setting, comparison in found
    ]


def _table(table: ReportTable) -> dict[str, Any]:
    count = text_columns(table)
    listed, previous = [], None
    for line, cells in rows(table):
        network = cells[: count - 1]
        begins = network != previous
        listed.append(
            {
                "cells": cells if begins else [""] * len(network) + cells[len(network) :],
                "is_average": table.is_one_data_set and line.place.category == AVERAGE,
                "begins": begins,
            }
        )
        previous = network
    return {
        "id": table.anchor, "name": table.name, "is_published": table.number is not None, "title": table.title,
        "text_headings": headings(table)[:count], "rows": listed, "notes": notes(table),
        "accuracy_columns": len(value_headings(table)) - (3 if table.number is None else 8),
        "measure_headings": measure_headings(table), "measures": measure_rows(table),
        "measure_text_columns": len(measure_headings(table)) - len(MEASURE_HEADINGS),
    }  # fmt: skip
