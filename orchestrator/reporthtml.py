"""A report as one HTML file that needs nothing beside it: numbers, dot plots and pictures of filters."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.compare import PlannedJob, PlanStatus
from orchestrator.dotplot import dot_plots
from orchestrator.reportmodel import METRICS, Report, ReportTable
from orchestrator.reporttext import NOTHING, comparison_text, headings, notes, rows, text_columns
from orchestrator.tables import VARIANTS
from schemas.paper import AVERAGE

TEMPLATE = Path(__file__).with_name("report.html.jinja")
GALLERY_PAIRS = 3
"""Categories in the gallery, each with its ordinary and its interpretable network."""


class Picture(NamedTuple):
    title: str
    png: bytes


class Headline(NamedTuple):
    network: str
    change: str
    is_better: bool
    sentence: str


def as_html(report: Report, pictures: Sequence[Picture] = ()) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        headlines=_headlines(report),
        plots=dot_plots(report),
        tables=[_table(table) for table in report.tables],
        pictures=[(p.title, f"data:image/png;base64,{base64.b64encode(p.png).decode()}") for p in pictures],
        nothing=NOTHING,
    )


def gallery(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    """Jobs whose filters are worth a look side by side: both variants, categories and backbones spread out."""
    done = [job for job in jobs if job.status is PlanStatus.DONE and job.spec.is_single]
    twins: dict[tuple[str, str], dict[str, PlannedJob]] = {}
    for job in done:
        pair = twins.setdefault((job.spec.data.categories[0], job.spec.model.backbone), {})
        pair.setdefault(job.spec.model.variant, job)
    whole = [pair for pair in twins.values() if len(pair) == len(VARIANTS)]
    step = max(1, len(whole) // GALLERY_PAIRS)
    return [pair[variant] for pair in whole[::step][:GALLERY_PAIRS] for variant in VARIANTS]


def _headlines(report: Report) -> list[Headline]:
    """One per network: over all data sets where there are several, else from its only table."""
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
        )
        for backbone, setting, comparison in found
    ]


def _table(table: ReportTable) -> dict[str, Any]:
    words = text_columns(table)
    listed, before = [], None
    for line, cells in rows(table):
        network = cells[: words - 1]
        begins = network != before
        listed.append(
            {
                "cells": cells if begins else [""] * len(network) + cells[len(network) :],
                "is_average": table.is_one_data_set and line.place.category == AVERAGE,
                "is_empty": not line.has_ours,
                "begins": begins,
            }
        )
        before = network
    return {
        "id": f"table-{table.number}", "title": table.title, "words": headings(table)[:words],
        "rows": listed, "notes": notes(table), "word_count": words,
    }  # fmt: skip
