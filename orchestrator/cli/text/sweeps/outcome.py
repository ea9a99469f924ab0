"""What `orch sweep` and `orch resume` print at the end: results, failures, and the shape of `--json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.cli.text.sweeps.job_status import counts_text
from orchestrator.report.summary import HEADINGS, OPTIONAL, TEXT_COLUMNS, ResultTable, as_json, cells_of, used_columns
from orchestrator.wording import in_words

if TYPE_CHECKING:
    from orchestrator.execution.sweep_outcome import SweepOutcome


def outcome_text(outcome: SweepOutcome) -> RenderableType:
    """The results of a sweep, and what failed."""
    parts: list[RenderableType] = [Text("")]
    if outcome.table.rows:
        parts.append(_result_table(outcome.table))
        parts += [Text(line) for line in outcome.table.headlines]
    parts += [Text(f"failed: {title}: {reason}", style="red") for title, reason in outcome.table.failed]
    if outcome.table.skipped_images:
        parts.append(Text(f"{outcome.table.skipped_images} unreadable images were skipped.", style="yellow"))
    parts.append(Text(f"sweep {outcome.name}: {counts_text(outcome.counts)} ({in_words(outcome.seconds)})"))
    parts.append(Text("Curves, filters and tables of every job: orch ui"))
    return Group(*parts)


def _result_table(results: ResultTable) -> PlainTable:
    columns = used_columns(results)
    headings = [HEADINGS[i] for i in columns]
    table = PlainTable(*headings, title=results.caption, numbers=HEADINGS[TEXT_COLUMNS:], optional=OPTIONAL)
    for row in results.rows:
        cells = cells_of(row)
        table.add_row(*(cells[i] for i in columns))
    for row in results.averages:
        cells = cells_of(row)
        table.add_row(*(cells[i] for i in columns), style="bold")
    return table


class OutcomeJson(JsonModel):
    """The answer of `orch sweep --json` and `orch resume --json`."""

    sweep: str
    counts: dict[str, int]
    """Jobs by status."""
    is_complete: bool
    interrupted: bool
    paused_by: str | None
    """Failure that the first jobs had in common, because of which the sweep was paused."""
    ran: int
    """Jobs that this command started."""
    seconds: float
    warnings: tuple[str, ...]
    """Warnings of planning, as in `PlanJson`."""
    table: dict[str, Any]
    """Results, ordinary beside interpretable networks (`orchestrator.report.summary.as_json`)."""

    @classmethod
    def of_outcome(cls, outcome: SweepOutcome) -> Self:
        """Convert the answer of the service."""
        return cls(
            sweep=outcome.name,
            counts=outcome.counts,
            is_complete=outcome.is_complete,
            interrupted=outcome.interrupted,
            paused_by=outcome.paused_by or None,
            ran=outcome.ran,
            seconds=round(outcome.seconds, 1),
            warnings=outcome.warnings,
            table=as_json(outcome.table),
        )
