"""What `orch figure` and `orch explain` print, and the shapes of their `--json`: FiguresJson and ExplanationJson."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.services.figures import Drawn, Explained

LISTED = 8
"""Filters that the text lists; JSON has all."""


def figures_text(drawn: Sequence[Drawn]) -> RenderableType:
    """One line per figure."""
    return Text("\n".join(
        f"{one.path}  Fig. {one.figure} of {' and '.join(one.jobs)}{' (from the run)' if one.from_run else ''}"
        for one in drawn
    ))  # fmt: skip


class FigureJson(JsonModel):
    """One figure that was written."""

    figure: int
    """Number in the paper."""
    file: Path
    jobs: list[str]
    """Titles of the jobs that it shows."""
    from_run: bool
    """True if it was copied from the job's MLflow run."""


class FiguresJson(JsonModel):
    """The answer of `orch figure --json`."""

    figures: list[FigureJson]

    @classmethod
    def of_drawn(cls, drawn: Sequence[Drawn]) -> Self:
        """Convert the answer of the service."""
        return cls(
            figures=[
                FigureJson(figure=one.figure, file=one.path, jobs=list(one.jobs), from_run=one.from_run)
                for one in drawn
            ]
        )


def explanation_text(explained: Explained) -> RenderableType:
    """The decision, the parts of its logit, and the filters that contribute most."""
    found = explained.found
    total = sum(says.contribution for says in found.filters)
    headings = ("filter", "usually peaks", "contribution", "alone", "activation", "peak at x, y")
    table = PlainTable(*headings, numbers=("filter", "contribution", "alone", "activation", "peak at x, y"))
    for says in found.filters[:LISTED]:
        at = f"{says.peak[0]:.0f}, {says.peak[1]:.0f}" if says.peak else "silent"
        table.add_row(
            str(says.filter), says.place or "-", f"{says.contribution:+z.3f}", f"{says.alone:+z.3f}",
            f"{says.activation:.2f}", at,
        )  # fmt: skip
    left = len(found.filters) - LISTED
    lines: list[RenderableType] = [
        Text(f"{found.spec.title}: {found.decision}", style="bold"),
        f"logit of {found.label} {found.logit:+z.3f} = {found.base:+z.3f} without filters {total:+z.3f} from "
        f"{len(found.filters)} filters of {found.layer}",
        table,
    ]
    if left > 0:
        lines.append(f"... and {left} more filters with smaller contributions (--json lists all)")
    if explained.path:
        lines.append(Text(str(explained.path)))
    return Group(*lines)


class FilterJson(JsonModel):
    """What one filter contributes to the explained logit."""

    filter: int
    usually_peaks: str
    """Where on the animal the filter peaks on most images; empty if unknown."""
    contribution: float
    """Integrated gradient along the filter's feature map."""
    alone: float
    """Decrease of the logit when only this filter is silenced."""
    activation: float
    """Peak of the feature map."""
    peak: tuple[float, float] | None
    """Position (x, y) of the peak in pixels; null if the filter is silent."""


class ExplanationJson(JsonModel):
    """The answer of `orch explain --json`, in which base + sum of contributions + residual = logit."""

    job: str
    """Key of the job."""
    title: str
    image: Path
    box: tuple[float, float, float, float]
    """Left, top, right and bottom in pixels."""
    decision: str
    """One sentence."""
    probabilities: dict[str, float]
    """By category."""
    layer: str
    explained: str
    """Category of the explained logit."""
    logit: float
    base: float
    """Logit without any filter."""
    residual: float
    """Error of the numerical integration."""
    filters: list[FilterJson]
    """All filters of the layer, largest contributions first."""
    file: Path | None
    """Picture that was written."""

    @classmethod
    def of_explained(cls, explained: Explained) -> Self:
        """Convert the answer of the service."""
        found = explained.found
        return cls(
            job=explained.key,
            title=found.spec.title,
            image=explained.image,
            box=(found.box.left, found.box.top, found.box.right, found.box.bottom),
            decision=found.decision,
            probabilities=dict(found.probabilities),
            layer=found.layer,
            explained=found.label,
            logit=found.logit,
            base=found.base,
            residual=found.residual,
            filters=[
                FilterJson(
                    filter=says.filter,
                    usually_peaks=says.place,
                    contribution=says.contribution,
                    alone=says.alone,
                    activation=says.activation,
                    peak=says.peak,
                )
                for says in found.filters
            ],
            file=explained.path,
        )
