"""What `orch watch` shows of a sweep that another process drives."""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.text.sweeps.job_status import counts_text
from orchestrator.cli.text.sweeps.status import advice_text
from orchestrator.execution.estimate import Estimate
from orchestrator.execution.job_matrix import STYLES as CELL_STYLES
from orchestrator.execution.job_matrix import Cell, place_of
from orchestrator.execution.progress import Now, picture
from orchestrator.ledger.records import JobOutline, RunningJob
from orchestrator.planning.diff import PlannedJob, PlanStatus
from orchestrator.wording import to_the_minute
from schemas.order import Progress

if TYPE_CHECKING:
    from orchestrator.services.sweeps import SweepStatus


def live_text(sweep: SweepStatus, resume: str, width: int, height: int, now: float) -> RenderableType:
    """A sweep as `orch watch` shows it: counts and time left, the matrix of its jobs, what runs and what failed.

    Args:
        sweep: the sweep.
        resume: the command that goes on with the sweep, offered if its driver died.
        width: columns of the terminal.
        height: most lines.
        now: Unix seconds.
    """
    head = Text(f"sweep {sweep.record.name}, {to_the_minute(sweep.record.started_at)}: {counts_text(sweep.counts)}")
    head.truncate(width, overflow="ellipsis")
    advice = list(advice_text(sweep, resume))  # not cut, because it ends with the command to type
    shown = len(sweep.jobs)
    notes = [f"Shown are the {shown} most urgent of {shown + sweep.left_out:,} jobs."] if sweep.left_out else []
    lines = 1 + sum(ceil(len(line) / width) for line in notes + advice)
    return Group(head, *notes, picture(_progress_of(sweep, now), width, height - lines), *advice)


def _progress_of(sweep: SweepStatus, now: float) -> Now:
    """What the store knows of the progress of a sweep that another process drives."""
    known = sweep.running
    running = [job for job in sweep.jobs if job.status is PlanStatus.RUNNING]
    return Now(
        done=sum(sweep.counts.get(status.value, 0) for status in (PlanStatus.DONE, PlanStatus.FAILED)),
        total=sum(sweep.counts.values()),
        running=tuple((job.spec.title, _seen(job, known.get(job.spec.key), sweep.record.name)) for job in running),
        left=_time_left(sweep, now),
        waiting=sweep.record.waiting.reason if sweep.is_driven and sweep.record.waiting else "",
        cells=tuple(_cells(sweep)),
        failures=Counter(
            str(job.record.stop_reason)
            for job in sweep.jobs
            if job.status is PlanStatus.FAILED and job.record is not None
        ),
        epoch_seconds={
            job.spec.title: seconds
            for job in running
            if job.spec.key in known and (seconds := known[job.spec.key].epoch_seconds) is not None
        },
    )


def _seen(job: PlannedJob[JobOutline], known: RunningJob | None, sweep: str) -> Progress | None:
    """How far a running job is; of one that another sweep drives, which sweep that is."""
    if known is not None:
        return Progress(job_key=known.key, phase=known.phase, epoch=known.epoch, epochs=known.epochs)
    if job.record is not None and job.record.driven_by != sweep:
        return Progress(job_key=job.spec.key, phase=f"in sweep {job.record.driven_by}")
    return None


def _time_left(sweep: SweepStatus, now: float) -> Estimate | None:
    """The time left that the driver has written, less the time since then."""
    told = sweep.record.progress
    if not sweep.is_driven or told is None or told.low is None or told.high is None:
        return None
    passed = max(0.0, now - told.at)
    return Estimate(max(0.0, told.low - passed), max(0.0, told.high - passed), told.unknown)


def _cells(sweep: SweepStatus) -> list[Cell]:
    cells = []
    for job in sweep.jobs:
        place = place_of(job.spec.title, job.spec.model_dump(mode="json"))
        metrics = job.record.result.metrics if job.record and job.record.result else None
        status = job.status.value if job.status.value in CELL_STYLES else "waiting"
        known = sweep.running.get(job.spec.key)
        share = known.epoch / known.epochs if known and known.epochs else None
        if place is not None:
            cells.append(Cell(place, status, share, metrics.test_accuracy if metrics else None))
    return cells
