"""One function per command. Nothing here prints, except a running sweep through its display."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.execution.control import WALL, put_back
from orchestrator.execution.progress import Display
from orchestrator.execution.selection import Which
from orchestrator.execution.sweep_run import OpenPool, SweepOutcome, SweepRun, open_ray_pool
from orchestrator.ledger import opening
from orchestrator.ledger.base import Ledger, known_sweep
from orchestrator.ledger.liveness import Liveness
from orchestrator.ledger.records import JobOutline, JobRecord, StoredPlan, SweepRecord
from orchestrator.planning.diff import PlannedJob, check_same_sweep, compare
from orchestrator.planning.planner import NullResolver, PlannedSweep, plan
from orchestrator.planning.request import SweepRequest, define
from orchestrator.planning.resolver import check_all_data, check_all_weights, resolver_for
from orchestrator.report.coverage import TableCoverage, table_coverage
from orchestrator.services.reports import SweepTables, read_tables
from orchestrator.settings import Settings
from schemas.errors import Interrupted, StoreError, SweepIncomplete
from schemas.sweep import Resources


@dataclass(frozen=True)
class Plan:
    sweep: PlannedSweep
    data_root: str | None
    jobs: list[PlannedJob]
    data_seen: bool = True
    """False where photographs are wanted and nobody said where they are: then finished jobs are not known either."""

    @property
    def filled(self) -> tuple[TableCoverage, ...]:
        """Values of the paper's tables that the jobs give."""
        return table_coverage([job.spec for job in self.jobs if job.spec.key not in self.sweep.upstream_keys])

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(job.status.value for job in self.jobs))


@dataclass(frozen=True)
class SweepStatus:
    record: SweepRecord
    is_driven: bool
    jobs: Sequence[PlannedJob[JobOutline]]
    problem: str = ""
    """Why its jobs cannot be told."""

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(job.status.value for job in self.jobs))


def plan_sweep(settings: Settings, request: SweepRequest) -> Plan:
    """What `orch sweep` would do, against what the store has. Touches nothing."""
    if request.data_root is None:
        planned = plan(define(request), NullResolver())
        if any(job.data.images == "photographs" for job in planned.jobs):
            return Plan(
                planned, None, compare(planned.jobs, {}, Liveness(opening.open_ledger(settings))), data_seen=False
            )
    planned = _plan(settings, request)
    check_all_weights(planned.jobs)
    check_all_data(planned.jobs, request.data_root, _existing_cache(settings))
    ledger = opening.open_ledger(settings)
    existing = ledger.sweep(planned.name)
    if existing is not None and existing.plan is not None:
        check_same_sweep(existing.plan, planned.jobs)
    jobs = compare(planned.jobs, ledger.jobs(), Liveness(ledger))
    return Plan(planned, request.data_root, jobs)


def run_sweep(
    settings: Settings, request: SweepRequest, display: Display, *, workers: int | None = None,
    open_pool: OpenPool = open_ray_pool,
) -> SweepOutcome:  # fmt: skip
    """Run what is not yet done of a sweep, what was cancelled with it included, and report all of it."""
    planned = _plan(settings, request)
    stored = StoredPlan.of(
        planned.name, planned.profile, request.data_root, planned.jobs, planned.upstream_keys, planned.resources
    )
    ledger = opening.open_ledger(settings)
    existing = ledger.sweep(planned.name)
    if existing is not None and existing.plan is not None:
        check_same_sweep(existing.plan, planned.jobs)
    return _run(settings, ledger, _with_workers(stored, workers), display, open_pool, Which(cancelled_with_sweep=True))


def resume_sweep(
    settings: Settings, name: str, display: Display, *, workers: int | None = None, failed: bool = False,
    open_pool: OpenPool = open_ray_pool,
) -> SweepOutcome:  # fmt: skip
    """Run what is left of a sweep as it was planned, and what was cancelled with it; with `failed`, what failed too."""
    ledger = opening.open_ledger(settings)
    record = known_sweep(ledger, name)
    if record.plan is None:
        raise StoreError(f"Sweep {name!r} was stopped before it was planned. Start it again with `orch sweep`.")
    again = Which(failed=failed, cancelled_with_sweep=True)
    return _run(settings, ledger, _with_workers(record.plan, workers), display, open_pool, again)


def _run(
    settings: Settings, ledger: Ledger, stored: StoredPlan, display: Display, open_pool: OpenPool, again: Which
) -> SweepOutcome:
    """Put ended jobs back and run the sweep; a sweep that is refused has none put back."""

    def prepare() -> None:
        if ledger.sweep(stored.name) is not None:
            put_back(settings, ledger, stored.name, again, WALL)

    return SweepRun(settings, stored, display, open_pool).execute(prepare)


def list_sweeps(settings: Settings) -> list[SweepStatus]:
    """Every sweep of the store, newest first."""
    ledger = opening.open_reader(settings)
    sweeps, records = ledger.sweeps(), ledger.jobs()
    alive = Liveness(ledger, sweeps)
    return [_listed(sweep, records, alive) for sweep in sweeps]


def sweep_status(settings: Settings, name: str) -> SweepStatus:
    ledger = opening.open_reader(settings)
    alive = Liveness(ledger, ledger.sweeps())
    return status_of(known_sweep(ledger, name), ledger.jobs(), alive)


def sweep_tables(settings: Settings, name: str, numbers: tuple[int, ...] = (), *, partial: bool = False) -> SweepTables:
    """The paper's tables, filled with what a sweep measured; those asked for, or all it has something to say to."""
    return read_tables(settings, opening.open_ledger(settings), name, numbers, partial=partial)


def raise_if_incomplete(report: SweepOutcome) -> None:
    """
    Raises:
        Interrupted: the user stopped the sweep.
        SweepIncomplete: it ended, but some jobs did not succeed.
    """
    if report.is_complete:
        return
    left = ", ".join(f"{number} {status}" for status, number in report.counts.items() if status != "done")
    if report.paused_by:
        raise SweepIncomplete(
            f"sweep {report.name} was paused, because its first jobs all fail alike: {report.paused_by} ({left}). "
            f"`orch why {report.name}` shows where. Once that is repaired: orch resume {report.name} --failed"
        )
    if report.interrupted:
        raise Interrupted(f"sweep {report.name} was stopped ({left}). Go on with: orch resume {report.name}")
    raise SweepIncomplete(
        f"some jobs of sweep {report.name} did not succeed ({left}). `orch status {report.name}` says why; "
        f"`orch resume {report.name} --failed` tries them again."
    )


def _plan(settings: Settings, request: SweepRequest) -> PlannedSweep:
    return plan(define(request), resolver_for(settings, request.data_root))


def _with_workers(stored: StoredPlan, workers: int | None) -> StoredPlan:
    if workers is None:
        return stored
    resources = Resources.model_validate({**stored.resources.model_dump(), "workers": workers})
    return stored.model_copy(update={"resources": resources})


def _existing_cache(settings: Settings) -> Path | None:
    return settings.cache_dir if settings.cache_dir.is_dir() else None


def _listed(sweep: SweepRecord, records: dict[str, JobRecord], alive: Liveness) -> SweepStatus:
    """One sweep whose plan cannot be read does not hide the others."""
    try:
        return status_of(sweep, records, alive)
    except StoreError as error:
        return SweepStatus(sweep, alive(sweep.name), [], problem=str(error))


def status_of(sweep: SweepRecord, records: dict[str, JobRecord], alive: Liveness) -> SweepStatus:
    """Held against its own jobs alone: that another sweep has done a similar job makes none that waits `changed`."""
    outlines = sweep.plan.outlines if sweep.plan else ()
    jobs = compare(outlines, {job.key: records[job.key] for job in outlines if job.key in records}, alive)
    return SweepStatus(sweep, alive(sweep.name), jobs)
