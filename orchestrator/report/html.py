"""Writes a report as one self-contained HTML file: tables, dot plots and figures of filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.report.dot_plot import dot_plots
from orchestrator.report.formats import (
    EMPTY,
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
from schemas.paper import AVERAGE

TEMPLATE = Path(__file__).with_name("report.html.jinja")


class Headline(NamedTuple):
    """The main result of one network."""

    network: str
    change: str
    """Mean change of location instability, in per cent."""
    is_better: bool
    sentence: str
    """The comparison in words."""
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
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        headlines=_headlines(report),
        plots=dot_plots(report),
        tables=[_table(table) for table in report.tables],
        gallery=gallery,
        empty_cell=EMPTY,
        given=given_notes(report),
        legend=legend(report),
    )


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
            change=f"{comparison.mean_change:+.0%}",
            is_better=comparison.mean_change < 0,
            sentence=comparison_text(comparison, metric),
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
