"""What a run of a sweep came to: its table, counts and key numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import fmean

from orchestrator.ledger.base import RunStatus
from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.diff import PlannedJob, PlanStatus
from orchestrator.report.summary import VARIANTS, ResultTable, result_table


@dataclass(frozen=True)
class SweepOutcome:
    """The end of one run of a sweep."""

    name: str
    table: ResultTable
    counts: dict[str, int]
    """Number of jobs by plan status."""
    ran: int
    """Number of jobs that this run began."""
    interrupted: bool
    """Whether the user asked it to stop."""
    seconds: float
    """Duration of the run."""
    paused_by: str = ""
    """The failure that the first jobs share, if the sweep was paused because of it."""
    warnings: tuple[str, ...] = ()
    """Warnings of planning, such as an `exclude` row that matches no job."""

    @property
    def is_complete(self) -> bool:
        """Whether every job has succeeded."""
        return set(self.counts) <= {PlanStatus.DONE.value}

    @property
    def run_status(self) -> RunStatus:
        """MLflow's status of the sweep's run."""
        if self.is_complete:
            return "FINISHED"
        return "KILLED" if self.interrupted else "FAILED"


def outcome_of(
    stored: StoredPlan, jobs: list[PlannedJob], *, ran: int, interrupted: bool, seconds: float, paused_by: str
) -> SweepOutcome:
    """Return the outcome of a run.

    Args:
        stored: The sweep.
        jobs: Its jobs as the ledger has them after the run.
        ran: Number of jobs that the run began.
        interrupted: Whether the user asked it to stop.
        seconds: Its duration.
        paused_by: The failure that the first jobs share, or an empty string.
    """
    return SweepOutcome(
        name=stored.name,
        table=result_table([job.record for job in jobs if job.record], stored.upstream_keys),
        counts=dict(Counter(job.status.value for job in jobs)),
        ran=ran,
        interrupted=interrupted,
        seconds=seconds,
        paused_by=paused_by,
    )


def metrics_of(outcome: SweepOutcome) -> dict[str, float]:
    """Return the key numbers of a sweep, which MLflow shows as columns: counts, and means per variant."""
    values = {"jobs_done": float(outcome.counts.get(PlanStatus.DONE.value, 0)),
              "jobs_failed": float(outcome.counts.get(PlanStatus.FAILED.value, 0))}  # fmt: skip
    for variant in VARIANTS:
        cells = [row.cells[variant] for row in outcome.table.rows if variant in row.cells]
        measured = [cell.instability for cell in cells if cell.instability is not None]
        if cells:
            values[f"accuracy/{variant}"] = fmean(cell.accuracy for cell in cells)
        chance = [cell.chance for cell in cells if cell.chance is not None]
        if chance:
            values[f"chance_accuracy/{variant}"] = fmean(chance)
        if measured:
            values[f"location_instability/{variant}"] = fmean(measured)
        tracking = [cell.measures.tracking for cell in cells if cell.measures.tracking is not None]
        if tracking:
            values[f"tracking_share/{variant}"] = fmean(tracking)
    return values


def opening_line(stored: StoredPlan, jobs: list[PlannedJob], left: int) -> str:
    """Return the first line that a user sees: how many jobs there are, are done and are left.

    Args:
        stored: The sweep.
        jobs: Its jobs as the ledger has them before the run.
        left: Number of jobs that will run.
    """
    done = sum(job.status is PlanStatus.DONE for job in jobs)
    upstream = sum(job.spec.key in stored.upstream_keys for job in jobs)
    what = f"{len(jobs) - upstream} jobs" + (f" and {upstream} pre-training" if upstream else "")
    ended = Counter(job.status.value for job in jobs if job.status in (PlanStatus.FAILED, PlanStatus.CANCELLED))
    others = "".join(f", {number} {status} (not retried)" for status, number in ended.items())
    if not left:
        return f"Sweep {stored.name}: nothing to run, {done} of {len(jobs)} are done{others}."
    return f"Sweep {stored.name}: {what}; {done} done, {left} to run{others}. Starting the workers."
