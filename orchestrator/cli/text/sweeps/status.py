"""What `orch status` prints: the sweeps of a store or the jobs of one, and the shapes of `--json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.cli.text.jobs import RecordJson, recorded
from orchestrator.cli.text.sweeps.job_status import STYLES, counts_text
from orchestrator.cli.text.sweeps.plan import PlannedJobJson, planned_fields
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.records import RunningJob, Waiting
from orchestrator.planning.diff import PlanStatus
from orchestrator.wording import to_the_minute, when

if TYPE_CHECKING:
    from orchestrator.services.sweeps import SweepStatus


def sweeps_text(sweeps: Sequence[SweepStatus]) -> RenderableType:
    """A table of the store's sweeps."""
    if not sweeps:
        return Text("No sweep yet. To run a first one: orch sweep --grid first")
    table = PlainTable("sweep", "started", "driven", "jobs")
    for sweep in sweeps:
        table.add_row(
            sweep.record.name, to_the_minute(sweep.record.started_at), _who_drives(sweep), _what_is_known(sweep)
        )
    return table


def _who_drives(sweep: SweepStatus) -> str:
    lease = sweep.record.lease
    if lease is None:
        return "no"
    who = f"{lease.pid} on {lease.host}"
    return f"by {who}" if sweep.is_driven else f"no: {who} died"


def _what_is_known(sweep: SweepStatus) -> str:
    return f"unknown: `orch status {sweep.record.name}` shows why" if sweep.problem else counts_text(sweep.counts)


class SweepJson(JsonModel):
    """One sweep of the store, as in `orch status --json`."""

    sweep: str
    started_at: float
    """Unix seconds."""
    is_driven: bool
    lease: Lease | None
    """Process that drives the sweep; null if none does."""
    waiting: Waiting | None = None
    """Why some of its jobs have no worker; null if none waits for a machine."""
    counts: dict[str, int]
    """Jobs by status."""
    problem: str | None
    """Why the jobs of the sweep are unknown."""

    @classmethod
    def of_sweep(cls, sweep: SweepStatus) -> Self:
        """Convert the answer of the service."""
        return cls(**_sweep(sweep))


def _sweep(sweep: SweepStatus) -> dict[str, Any]:
    return {
        "sweep": sweep.record.name,
        "started_at": sweep.record.started_at,
        "is_driven": sweep.is_driven,
        "lease": sweep.record.lease if sweep.is_driven else None,
        "waiting": sweep.record.waiting if sweep.is_driven else None,
        "counts": dict(sweep.counts),
        "problem": sweep.problem or None,
    }


def status_text(sweep: SweepStatus, resume: str) -> RenderableType:
    """A table of a sweep's jobs, or of those of a large sweep that were asked for.

    Args:
        sweep: the sweep.
        resume: the command that goes on with the sweep, offered if its driver died.
    """
    table = PlainTable(
        "key", "job", "status", "attempts", "accuracy", "chance", "instability", "why",
        numbers=("attempts", "accuracy", "chance", "instability"), optional=("why", "attempts", "chance"),
    )  # fmt: skip
    for job in sweep.jobs:
        metrics = job.record.result.metrics if job.record and job.record.result else None
        instability = metrics.location_instability if metrics else None
        table.add_row(
            job.spec.key,
            job.spec.title,
            Text(job.status.value, style=STYLES.get(job.status.value, "")),
            str(job.record.attempt if job.record else 0),
            f"{metrics.test_accuracy:.3f}" if metrics else "",
            f"{metrics.chance_accuracy:.3f}" if metrics and metrics.chance_accuracy is not None else "",
            f"{instability:.4f}" if instability is not None else "",
            "" if job.status.value == "done" else job.why,
        )
    return Group(
        Text(
            f"sweep {sweep.record.name}, started {to_the_minute(sweep.record.started_at)}: {counts_text(sweep.counts)}"
        ),
        *([Text(waiting.reason)] if sweep.is_driven and (waiting := sweep.record.waiting) else []),
        table,
        *([Text(f"... and {sweep.left_out} more (--all lists them)")] if sweep.left_out else []),
        *advice_text(sweep, resume),
    )


def change_text(sweep: SweepStatus, now: float) -> str:
    """A line for a log: when, and how many jobs have which status."""
    return f"{when(now)} {sweep.record.name}: {counts_text(sweep.counts)}"


def advice_text(sweep: SweepStatus, resume: str) -> Iterator[Text]:
    """Who has died before the sweep was done, and what to type."""
    lease = sweep.record.lease
    if lease is not None and not sweep.is_driven and set(sweep.counts) != {PlanStatus.DONE.value}:
        yield Text(f"Its driver, process {lease.pid} on {lease.host}, died. Go on with: {resume}", style="yellow")


class StatusJobJson(RecordJson, PlannedJobJson):
    """One job of a sweep: its status, its last attempt and its spec."""

    progress: RunningJob | None
    """How far it is; null unless it runs, and if its driver has not written it yet."""
    spec: dict[str, Any]


class StatusJson(SweepJson):
    """The answer of `orch status SWEEP --json`."""

    jobs: list[StatusJobJson]

    @classmethod
    def of_sweep(cls, sweep: SweepStatus) -> Self:
        """Convert the answer of the service."""
        upstream = sweep.record.plan.upstream_keys if sweep.record.plan else frozenset()
        jobs = [
            StatusJobJson(
                **planned_fields(job, upstream),
                **(recorded(job.record) if job.record else {}),
                progress=sweep.running.get(job.spec.key),
                spec=job.spec.model_dump(mode="json"),
            )
            for job in sweep.jobs
        ]
        return cls(**_sweep(sweep), jobs=jobs)
