"""Plans, runs, resumes and lists sweeps. Nothing here prints, except a running sweep through its display."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

# What only some of the commands need is imported as modules, which the command line loads at their first use.
from orchestrator.execution import control, early_start, selection, sweep_run
from orchestrator.execution import open_pool as pools
from orchestrator.ledger import opening
from orchestrator.ledger.base import LedgerReader, known_sweep
from orchestrator.ledger.liveness import Liveness
from orchestrator.ledger.records import JobOutline, JobRecord, RunningJob, Standing, StoredPlan, SweepRecord
from orchestrator.planning import planner
from orchestrator.planning import request as requesting
from orchestrator.planning import resolver as resolving
from orchestrator.planning.diff import PlannedJob, PlanStatus, check_same_sweep, compare, statuses
from orchestrator.planning.frozen import SharedFeatures, shared_features
from orchestrator.planning.setting_layers import field_of
from orchestrator.report import coverage
from orchestrator.services import costs, reports
from orchestrator.settings import Settings
from schemas.errors import DataAbsent, Interrupted, SpecError, StoreError, SweepIncomplete
from schemas.grids import GRIDS
from schemas.job import RECIPE_VERSION
from schemas.sweep import Resources, SweepSpec

if TYPE_CHECKING:
    from orchestrator.execution.open_pool import OpenPool
    from orchestrator.execution.progress import Display
    from orchestrator.execution.selection import Which
    from orchestrator.execution.sweep_outcome import SweepOutcome
    from orchestrator.planning.planner import PlannedSweep
    from orchestrator.planning.request import SweepRequest
    from orchestrator.report.coverage import TableCoverage
    from orchestrator.services.costs import Cost
    from orchestrator.services.reports import SweepTables


@dataclass(frozen=True)
class Plan:
    """What a sweep would run, compared with the store."""

    sweep: PlannedSweep
    data_root: str | None
    jobs: list[PlannedJob]
    data_seen: bool = True
    """False if photographs are needed and no data root is given. Finished jobs are then unknown, because a job's key
    depends on its images."""
    unmeasurable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Metric -> categories whose photographs lack what it needs. Empty if no photographs were seen."""
    cost: Cost | None = None
    """What the jobs that will run take; None if none will."""

    @property
    def filled(self) -> tuple[TableCoverage, ...]:
        """How many values of the paper's tables the jobs give, by table."""
        measured = [job.spec for job in self.jobs if job.spec.key not in self.sweep.upstream_keys]
        return coverage.table_coverage(measured, self.unmeasurable)

    @property
    def counts(self) -> dict[str, int]:
        """Number of jobs by status."""
        return dict(Counter(job.status.value for job in self.jobs))

    @property
    def frozen(self) -> SharedFeatures:
        """How often the jobs that will run compute features of frozen layers."""
        return shared_features([job.spec for job in self.jobs if job.will_run])


SURVEYED = 100
"""Jobs that are shown of a large sweep, unless all are asked for."""
_URGENCY = {PlanStatus.RUNNING: 0, PlanStatus.FAILED: 1, PlanStatus.DONE: 3}
"""Which jobs of a large sweep are shown before others: those with the lowest number; 2 for any other status."""


@dataclass(frozen=True)
class SweepStatus:
    """A sweep of the store and the status of its jobs."""

    record: SweepRecord
    is_driven: bool
    counts: Mapping[str, int]
    """Number of jobs by status."""
    jobs: Sequence[PlannedJob[JobOutline]] = ()
    """Its jobs, or those that were asked for."""
    problem: str = ""
    """Why its jobs are unknown; empty if they are known."""

    @property
    def left_out(self) -> int:
        """Number of its jobs that `jobs` lacks."""
        return sum(self.counts.values()) - len(self.jobs)

    @cached_property
    def running(self) -> dict[str, RunningJob]:
        """How far its running jobs are, by key, as far as its driver has written it."""
        told = self.record.progress if self.is_driven else None
        runs = {job.spec.key for job in self.jobs if job.status is PlanStatus.RUNNING}
        return {job.key: job for job in told.running if job.key in runs} if told else {}


@dataclass(frozen=True)
class GridFacts:
    """A built-in grid, and what the profile makes of it."""

    grid: SweepSpec
    profile: str
    jobs: int
    """Jobs with the profile, pre-training not counted."""
    all_jobs: int
    """Jobs of the grid as it is written."""
    narrowed: Mapping[str, tuple[str, ...]]
    """Axis -> the values that the profile takes of all that the grid names."""


def list_grids(settings: Settings) -> list[GridFacts]:
    """The built-in grids with the profile of the settings."""
    return [_grid_facts(requesting.find_grid(name), settings.profile) for name in GRIDS]


def _grid_facts(grid: SweepSpec, profile: str) -> GridFacts:
    found = requesting.define(requesting.SweepRequest(SweepSpec(grid=grid.name), default_profile=profile))
    axes = {axis: found.axes[field_of(axis)] for axis in grid.axes}
    narrowed = {axis: values for axis, values in axes.items() if len(values) < len(grid.axes[axis])}
    return GridFacts(
        grid, found.profile.name, _job_count(axes, found.include), _job_count(grid.axes, grid.include), narrowed
    )


def _job_count(axes: Mapping[str, Sized], include: Sized) -> int:
    """Jobs of the product of the axes, and of the rows."""
    return (prod(map(len, axes.values())) if axes else 0) + len(include)


def plan_sweep(settings: Settings, request: SweepRequest) -> Plan:
    """Compare a request with the store, without changing anything.

    Raises:
        SpecError: the request cannot be used as written, or its name belongs to a sweep of other jobs.
        DataError: images are missing, broken or too few.
        WeightsError: a weights file does not fit its network.
    """
    resolver = resolving.resolver_for(settings, request.data_root)
    try:
        planned = planner.plan(requesting.define(request), resolver)
        resolving.check_all_weights(planned.jobs)
        resolver.check_data(planned.jobs)
    except DataAbsent:
        if request.data_root is not None:
            raise
        planned = planner.plan(requesting.define(request), planner.NullResolver())
        ledger = opening.open_reader(settings)
        jobs = compare(planned.jobs, {}, Liveness(ledger))
        return Plan(planned, None, jobs, data_seen=False, cost=_cost(settings, planned, jobs, ledger.jobs()))
    ledger = opening.open_reader(settings)
    existing = ledger.sweep(planned.name)
    if existing is not None and existing.plan is not None:
        check_same_sweep(existing.plan, planned.jobs, settings.resume_command(planned.name))
    records = ledger.jobs()
    jobs = compare(planned.jobs, records, Liveness(ledger))
    measured = [job for job in planned.jobs if job.key not in planned.upstream_keys]
    cost = _cost(settings, planned, jobs, records)
    return Plan(planned, request.data_root, jobs, unmeasurable=resolver.unmeasurable(measured), cost=cost)


def _cost(
    settings: Settings, planned: PlannedSweep, jobs: Sequence[PlannedJob], records: Mapping[str, JobRecord]
) -> Cost | None:
    left = [job.spec for job in jobs if job.will_run]
    return costs.cost_of(settings, left, planned.upstream_keys, planned.resources, records.values())


def run_sweep(
    settings: Settings, request: SweepRequest, display: Display, *, workers: int | None = None,
    open_pool: OpenPool | None = None,
) -> SweepOutcome:  # fmt: skip
    """Run the unfinished jobs of a sweep, including those that were cancelled with it.

    Args:
        display: where progress is shown.
        workers: jobs to run at a time; None takes the number of the profile, the grid or the sweep file.
        open_pool: opens the workers; None opens those of Ray.

    Returns:
        The outcome of all jobs of the sweep, including those that were finished before.

    Raises:
        OrchError: the sweep cannot run; its subclasses say why.
    """
    _refuse_outside(settings)
    planned = planner.plan(requesting.define(request), resolving.resolver_for(settings, request.data_root))
    stored = StoredPlan.of(
        planned.name, planned.profile, request.data_root, planned.jobs, planned.upstream_keys, planned.resources
    )
    ledger = opening.open_reader(settings)
    existing = ledger.sweep(planned.name)
    if existing is not None and existing.plan is not None:
        check_same_sweep(existing.plan, planned.jobs, settings.resume_command(planned.name))
    for warning in planned.warnings:
        display.say(f"warning: {warning}")
    which = selection.Which(cancelled_with_sweep=True)
    outcome = _run(settings, ledger, _with_workers(stored, workers), display, open_pool, which)
    return replace(outcome, warnings=planned.warnings)


def resume_sweep(
    settings: Settings, name: str, display: Display, *, workers: int | None = None, failed: bool = False,
    open_pool: OpenPool | None = None,
) -> SweepOutcome:  # fmt: skip
    """Run the unfinished jobs of a stored sweep as it was planned, including those that were cancelled with it.

    Args:
        name: the sweep's name.
        display: where progress is shown.
        workers: jobs to run at a time; None takes the number of the stored plan.
        failed: run failed jobs again.
        open_pool: opens the workers; None opens those of Ray.

    Returns:
        The outcome of all jobs of the sweep.

    Raises:
        StoreError: the store has no such sweep, or the sweep was stopped before it was planned.
        OrchError: the sweep cannot run; its subclasses say why.
    """
    _refuse_outside(settings)
    ledger = opening.open_reader(settings)
    record = known_sweep(ledger, name)
    if record.plan is None:
        raise StoreError(f"Sweep {name!r} was stopped before it was planned. Repeat its `orch sweep` command.")
    _refuse_other_recipe(record.plan)
    again = selection.Which(failed=failed, cancelled_with_sweep=True)
    stored = _rooted(_with_workers(record.plan, workers), settings)
    return _run(settings, ledger, stored, display, open_pool, again)


def _refuse_outside(settings: Settings) -> None:
    """Refuse to drive a sweep on a machine that only has the address of the cluster's dashboard."""
    if settings.is_outside:
        raise SpecError(
            f"ORCH_RAY_ADDRESS is {settings.ray_address}, the dashboard of a cluster that this machine is not part of, "
            "so a driver cannot run here. Add `--detach` to the command: the cluster then drives the sweep."
        )


def _refuse_other_recipe(stored: StoredPlan) -> None:
    """Refuse to go on with jobs that this version of orch would compute differently."""
    others = sorted({spec.recipe for spec in stored.specs} - {RECIPE_VERSION})
    if others:
        raise SpecError(
            f"Sweep {stored.name!r} was planned by a version of orch whose results differ (recipe {others[0]}, now "
            f"{RECIPE_VERSION}). Repeat its `orch sweep` command with another `--name`, or go on with that version. "
            "Its finished jobs can still be read."
        )


def _rooted(stored: StoredPlan, settings: Settings) -> StoredPlan:
    """The plan with this machine's folder of photographs, where the one it was planned with is not on this machine."""
    if stored.data_root is None or settings.data_root is None or Path(stored.data_root).is_dir():
        return stored
    return stored.model_copy(update={"data_root": str(settings.data_root.expanduser().resolve())})


def _run(
    settings: Settings,
    ledger: LedgerReader,
    stored: StoredPlan,
    display: Display,
    open_pool: OpenPool | None,
    again: Which,
) -> SweepOutcome:
    """Requeue the ended jobs that `again` selects, and run the sweep. If the sweep is refused, no job is requeued."""
    outlook = early_start.outlook(settings, ledger, stored, again)

    def prepare() -> None:
        if outlook.has_ended_badly and ledger.sweep(stored.name) is not None:
            control.put_back(settings, opening.open_ledger(settings), stored.name, again, control.WALL)

    run = sweep_run.SweepRun(settings, stored, display, open_pool or pools.open_ray_pool, outlook.left)
    return run.execute(prepare)


def list_sweeps(settings: Settings) -> list[SweepStatus]:
    """Every sweep of the store with its counts, newest first."""
    ledger = opening.open_reader(settings)
    sweeps, standings = ledger.sweeps(), ledger.standings()
    alive = Liveness(ledger, sweeps)
    return [_listed(sweep, standings, alive) for sweep in sweeps]


def sweep_status(settings: Settings, name: str, *, up_to: int | None = None) -> SweepStatus:
    """The status of one sweep's jobs.

    Args:
        up_to: of a sweep of more jobs, return only SURVEYED of them: running, failed, then other unfinished ones
            first; None returns all jobs.

    Raises:
        StoreError: the store has no such sweep, or its plan cannot be read.
    """
    ledger = opening.open_reader(settings)
    alive = Liveness(ledger, ledger.sweeps())
    sweep = known_sweep(ledger, name)
    if up_to is None or len(sweep.names) <= up_to:
        return status_of(sweep, ledger, alive)
    found = statuses(sweep.names, ledger.standings(), alive)
    places = sorted(range(len(sweep.names)), key=lambda place: _URGENCY.get(found[sweep.names[place].key], 2))
    chosen = [sweep.outline(place) for place in places[:SURVEYED]]
    return SweepStatus(sweep, alive(name), _counted(found.values()), _compared(chosen, ledger, alive))


def sweep_tables(settings: Settings, name: str, numbers: tuple[int, ...] = (), *, strict: bool = False) -> SweepTables:
    """The paper's tables, filled with the values of a sweep.

    Args:
        name: the sweep's name.
        numbers: the tables to fill; none means all for which the sweep has a value.
        strict: refuse a report that lacks values.

    Raises:
        SpecError: the paper has no such table, the sweep has no value for the tables, or, with `strict`, values are
            missing.
        StoreError: the store has no such sweep.
    """
    return reports.read_tables(settings, opening.open_reader(settings), name, numbers, strict=strict)


def raise_if_incomplete(report: SweepOutcome, resume: str = "") -> None:
    """Raise the error that an incomplete sweep ends with.

    Args:
        report: how the sweep ended.
        resume: command that continues it, if it is not `orch resume` alone.

    Raises:
        Interrupted: the user stopped the sweep.
        SweepIncomplete: the sweep ended, but some jobs did not succeed.
    """
    if report.is_complete:
        return
    resume = resume or f"orch resume {report.name}"
    left = ", ".join(f"{number} {status}" for status, number in report.counts.items() if status != "done")
    if report.paused_by:
        raise SweepIncomplete(
            f"sweep {report.name} was paused, because its first jobs all fail alike: {report.paused_by} ({left}). "
            f"`orch why {report.name}` shows the cause. Once it is fixed, run: {resume} --failed"
        )
    if report.interrupted:
        raise Interrupted(f"sweep {report.name} was stopped ({left}). Go on with: {resume}")
    raise SweepIncomplete(
        f"some jobs of sweep {report.name} did not succeed ({left}). `orch why {report.name}` shows the causes; "
        f"`{resume} --failed` runs them again."
    )


def _with_workers(stored: StoredPlan, workers: int | None) -> StoredPlan:
    if workers is None:
        return stored
    resources = Resources.model_validate({**stored.resources.model_dump(), "workers": workers})
    return stored.model_copy(update={"resources": resources})


def _listed(sweep: SweepRecord, standings: Mapping[str, Standing], alive: Liveness) -> SweepStatus:
    """The counts of one sweep; if its plan cannot be read, the reason, so that the other sweeps are still listed."""
    try:
        return SweepStatus(sweep, alive(sweep.name), _counted(statuses(sweep.names, standings, alive).values()))
    except StoreError as error:
        return SweepStatus(sweep, alive(sweep.name), {}, problem=str(error))


def status_of(sweep: SweepRecord, ledger: LedgerReader, alive: Liveness) -> SweepStatus:
    """The status of a sweep's jobs, compared with their own records only.

    A similar job of another sweep therefore never makes a waiting job `changed`.
    """
    jobs = _compared(sweep.outlines, ledger, alive)
    return SweepStatus(sweep, alive(sweep.name), _counted(job.status for job in jobs), jobs)


def _compared(jobs: Sequence[JobOutline], ledger: LedgerReader, alive: Liveness) -> list[PlannedJob[JobOutline]]:
    """Some jobs of a plan with their status, which may depend on the jobs that they start from."""
    needed = {job.key: job for chosen in jobs for job in (*_upstream_of(chosen), chosen)}
    found = {job.spec.key: job for job in compare(needed.values(), ledger.jobs(needed), alive)}
    return [found[job.key] for job in jobs]


def _upstream_of(job: JobOutline) -> list[JobOutline]:
    return [*_upstream_of(job.upstream), job.upstream] if job.upstream else []


def _counted(found: Iterable[PlanStatus]) -> dict[str, int]:
    return {status.value: number for status, number in Counter(found).items()}
