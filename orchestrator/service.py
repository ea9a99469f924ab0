"""One function per command. Nothing here prints, except a running sweep through its display."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator import control, inspection, store
from orchestrator.causes import Cause, causes
from orchestrator.cleanup import Waste, delete, find_waste
from orchestrator.compare import PlannedJob, check_same_sweep, compare
from orchestrator.control import Clock, Controlled, put_back
from orchestrator.disk import check_all_data, resolver_for
from orchestrator.display import Display
from orchestrator.fsck import Mend, known_keys
from orchestrator.inspection import Mended
from orchestrator.joblogs import LAST_LINES, LogText, follow, read_log
from orchestrator.ledger import InMemoryLedger, Ledger, known_sweep
from orchestrator.planner import PlannedSweep, plan
from orchestrator.records import JobRecord, StoredPlan, SweepRecord, here, pid_exists
from orchestrator.reporting import SweepTables, read_tables
from orchestrator.request import SweepRequest, define
from orchestrator.selection import Which, find_jobs, what_there_is
from orchestrator.settings import Settings
from orchestrator.sweeprun import Liveness, OpenPool, SweepReport, SweepRun, is_driven, open_ray_pool
from orchestrator.tables import ResultTable, result_table
from schemas.base import did_you_mean
from schemas.errors import Interrupted, SpecError, StoreError, SweepIncomplete
from schemas.job import RECIPE_VERSION, JobSpec
from schemas.sweep import Resources

WALL = Clock(time.time, time.sleep)


@dataclass(frozen=True)
class Plan:
    sweep: PlannedSweep
    data_root: str | None
    jobs: list[PlannedJob]

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(job.status.value for job in self.jobs))


@dataclass(frozen=True)
class UiPages:
    jobs: str
    sweeps: str
    moved: bool
    """The wanted port was busy, so another one is used."""


@dataclass(frozen=True)
class SweepStatus:
    record: SweepRecord
    is_driven: bool
    jobs: list[PlannedJob]
    problem: str = ""
    """Why its jobs cannot be told."""

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(job.status.value for job in self.jobs))


@dataclass(frozen=True)
class Requeued:
    sweep: str
    jobs: tuple[JobRecord, ...]
    from_scratch: bool


@dataclass(frozen=True)
class Why:
    sweep: str
    job: str | None
    """Title of the job that was named; None for the whole sweep."""
    causes: tuple[tuple[Cause, str], ...]
    """With the last lines of an example's log."""
    jobs: tuple[PlannedJob, ...]


@dataclass(frozen=True)
class FsckReport:
    found: tuple[Mended, ...]
    repaired: bool
    """Mending was asked for."""

    @property
    def left(self) -> tuple[Mended, ...]:
        return tuple(one for one in self.found if not one.done)


def open_ledger(settings: Settings) -> Ledger:
    """The ledger to read: an empty one where there is no store yet, so that reading makes none."""
    if not store.exists(settings):
        return InMemoryLedger()
    from orchestrator.mlflow_ledger import MlflowLedger

    return MlflowLedger(store.open_client(settings), settings.store_uri)


def plan_sweep(settings: Settings, request: SweepRequest) -> Plan:
    """What `orch sweep` would do, against what the store has. Touches nothing."""
    planned = _plan(settings, request)
    check_all_data(planned.jobs, request.data_root, _existing_cache(settings))
    ledger = open_ledger(settings)
    existing = ledger.sweep(planned.name)
    if existing is not None and existing.plan is not None:
        check_same_sweep(existing.plan, planned.jobs)
    jobs = compare(planned.jobs, ledger.jobs(), Liveness(ledger))
    return Plan(planned, request.data_root, jobs)


def run_sweep(
    settings: Settings, request: SweepRequest, display: Display, *, workers: int | None = None,
    open_pool: OpenPool = open_ray_pool,
) -> SweepReport:  # fmt: skip
    """Run what is not yet done of a sweep, and report all of it."""
    planned = _plan(settings, request)
    stored = StoredPlan(
        name=planned.name,
        profile=planned.profile,
        data_root=request.data_root,
        jobs=tuple(job.model_dump(mode="json") for job in planned.jobs),
        upstream_keys=planned.upstream_keys,
        resources=planned.resources,
    )
    return SweepRun(settings, _with_workers(stored, workers), display, open_pool=open_pool).execute()


def resume_sweep(
    settings: Settings, name: str, display: Display, *, workers: int | None = None, failed: bool = False,
    open_pool: OpenPool = open_ray_pool,
) -> SweepReport:  # fmt: skip
    """Run what is left of a sweep as it was planned, and what was cancelled with it; with `failed`, what failed too."""
    ledger = open_ledger(settings)
    record = known_sweep(ledger, name)
    if record.plan is None:
        raise StoreError(f"Sweep {name!r} was stopped before it was planned. Start it again with `orch sweep`.")
    put_back(settings, ledger, name, Which(failed=failed, cancelled_with_sweep=True), WALL)
    return SweepRun(settings, _with_workers(record.plan, workers), display, open_pool).execute()


def list_sweeps(settings: Settings) -> list[SweepStatus]:
    """Every sweep of the store, newest first."""
    ledger = open_ledger(settings)
    records = ledger.jobs()
    alive = Liveness(ledger)
    return [_listed(sweep, records, alive) for sweep in ledger.sweeps()]


def sweep_status(settings: Settings, name: str) -> SweepStatus:
    ledger = open_ledger(settings)
    record = known_sweep(ledger, name)
    return _status(record, ledger.jobs(), Liveness(ledger))


def sweep_table(status: SweepStatus) -> ResultTable:
    upstream = status.record.plan.upstream_keys if status.record.plan else frozenset()
    return result_table([job.record for job in status.jobs if job.record], upstream)


def sweep_tables(settings: Settings, name: str, numbers: tuple[int, ...] = (), *, partial: bool = False) -> SweepTables:
    """The paper's tables, filled with what a sweep measured; those asked for, or all it has something to say to."""
    return read_tables(settings, open_ledger(settings), name, numbers, partial=partial)


def find_job(settings: Settings, wanted: str) -> JobRecord:
    """The one job whose key starts with `wanted`, or whose title is or holds it.

    Raises:
        SpecError: no job fits, or several; the message lists them.
    """
    records = open_ledger(settings).jobs()
    return records[_one_job(wanted, {key: (record.title, record.sweep) for key, record in records.items()})]


def _one_job(wanted: str, jobs: dict[str, tuple[str, str]]) -> str:
    """The key of the one job that fits, of jobs with their titles and sweeps."""
    found = find_jobs(wanted, [(key, title) for key, (title, _) in jobs.items()])
    if not found:
        advice = did_you_mean(wanted, [title for title, _ in jobs.values()]) if jobs else "None has begun yet."
        raise SpecError(f"No job fits {wanted!r}. {advice} `orch status SWEEP` lists the keys.")
    if len(found) > 1:
        listed = "; ".join(f"{key} {jobs[key][0]} ({jobs[key][1]})" for key in found[:12])
        raise SpecError(f"{wanted!r} fits {len(found)} jobs: {listed}. Give the key.")
    return found[0]


def _target(ledger: Ledger, wanted: str) -> tuple[SweepRecord, JobSpec | None]:
    """A sweep, or a job of one, begun or not: a job is looked for in the sweep that has it in hand, or else the newest.

    Raises:
        SpecError: nothing fits, or several jobs do.
    """
    sweeps = {sweep.name: sweep for sweep in ledger.sweeps()}
    if wanted in sweeps:
        return sweeps[wanted], None
    specs = {spec.key: (spec, sweep.name) for sweep in reversed(sweeps.values()) if sweep.plan
             for spec in sweep.plan.specs}  # fmt: skip
    if not specs:
        known_sweep(ledger, wanted)
    try:
        key = _one_job(wanted, {key: (spec.title, sweep) for key, (spec, sweep) in specs.items()})
    except SpecError as error:
        raise SpecError(f"No sweep is called {wanted!r}, and as a job: {error} Sweeps: {', '.join(sweeps)}.") from None
    spec, newest = specs[key]
    record = ledger.jobs([key]).get(key)
    return sweeps[record.driven_by if record and record.driven_by in sweeps else newest], spec


def requeue(settings: Settings, name: str, which: Which, *, from_scratch: bool = False) -> Requeued:
    """Put failed or cancelled jobs back, for `orch resume` to run.

    Raises:
        SpecError: none is meant by `which`; the message says which there are.
        SweepBusy: a driver runs the sweep.
    """
    ledger = open_ledger(settings)
    record = known_sweep(ledger, name)
    found = put_back(settings, ledger, name, which, WALL, from_scratch=from_scratch)
    if not found:
        there = what_there_is(record.plan, ledger.jobs()) if record.plan else "It was stopped before it was planned."
        raise SpecError(f"Nothing of sweep {name!r} fits. {there} `orch why {name}` tells more.")
    return Requeued(name, tuple(found), from_scratch)


def cancel(settings: Settings, wanted: str) -> Controlled:
    """Cancel a sweep, or one job."""
    ledger = open_ledger(settings)
    sweep, job = _target(ledger, wanted)
    return control.cancel(settings, ledger, sweep.name, job, WALL, lambda name: Liveness(ledger)(name))


def pause(settings: Settings, name: str) -> Controlled:
    """Have a sweep stop in order, for `orch resume` to go on with."""
    return control.pause(settings, open_ledger(settings), name, WALL)


def why(settings: Settings, wanted: str) -> Why:
    """What keeps a sweep, or one job, from being done."""
    ledger = open_ledger(settings)
    sweep, job = _target(ledger, wanted)
    status = _status(sweep, ledger.jobs(), Liveness(ledger))
    jobs = [one for one in status.jobs if job is None or one.spec.key == job.key]
    found = causes(jobs)
    tails = tuple(_last_lines(settings, cause.example) for cause in found)
    return Why(sweep.name, job.title if job else None, tuple(zip(found, tails, strict=True)), tuple(jobs))


def _last_lines(settings: Settings, record: JobRecord | None) -> str:
    """The end of the log of the last attempt; of the traceback, where there is no log."""
    if record is None or not record.attempt:
        return ""
    try:
        return read_log(settings, record.key, record.run_id, record.title).last()
    except SpecError:
        failure = record.result.failure if record.result else None
        return "\n".join(failure.traceback.rstrip().splitlines()[-LAST_LINES:]) if failure else ""


def job_log(settings: Settings, wanted: str, attempt: int | None) -> tuple[JobRecord, LogText]:
    record = find_job(settings, wanted)
    return record, read_log(settings, record.key, record.run_id, record.title, attempt)


def follow_log(settings: Settings, wanted: str, attempt: int | None) -> Iterator[str]:
    """The log as it grows, until the job has ended or nobody drives it."""
    ledger = open_ledger(settings)
    key = find_job(settings, wanted).key
    if attempt is not None:
        job_log(settings, wanted, attempt)

    def is_over() -> bool:
        record = ledger.get(key)
        return record.state.has_ended or not is_driven(ledger.sweep(record.driven_by), time.time())

    return follow(settings, key, attempt, is_over, time.sleep)


def fsck(settings: Settings, *, repair: bool = False) -> FsckReport:
    """What does not hold of the store and the files beside it; with `repair`, mended where it can be."""
    ledger = open_ledger(settings)
    findings = inspection.inspect(settings, ledger)
    if not repair:
        return FsckReport(tuple(Mended(finding, "") for finding in findings), repaired=False)
    return FsckReport(tuple(inspection.mend(settings, ledger, findings, time.time())), repaired=True)


def raise_if_unsound(report: FsckReport) -> None:
    """
    Raises:
        StoreError: something does not hold, and was not mended.
    """
    if not report.left:
        return
    can = sum(one.finding.mend is not Mend.NOTHING for one in report.left)
    mends = f"`orch fsck --repair` mends {can} of them."
    advice = "The table says what to do." if report.repaired or not can else mends
    raise StoreError(f"{len(report.left)} things are not as they should be. {advice}")


def gc(settings: Settings, *, dry_run: bool = False) -> tuple[Waste, ...]:
    """Delete what nothing will ever read again; with `dry_run`, only look.

    Raises:
        StoreError: the store cannot say which jobs it knows, so nothing may be deleted.
    """
    if not store.exists(settings):
        raise StoreError(f"There is no store at {settings.database}, so no file can be told to be waste.")
    ledger = open_ledger(settings)
    sweeps, runs = ledger.sweep_runs(), ledger.job_runs()
    unsure = [entry.problem for entry in sweeps if entry.problem] + [run.problem for run in runs if run.problem]
    if unsure:
        raise StoreError(f"Nothing is deleted while not every job is known: {unsure[0]} `orch fsck` lists them all.")
    waste = tuple(find_waste(settings, known_keys(runs, sweeps), RECIPE_VERSION, here(), pid_exists))
    if not dry_run:
        delete(waste)
    return waste


def artifact_uri(settings: Settings, record: JobRecord) -> str:
    client = store.open_client(settings)
    with store.reaching(settings.store_uri):
        return str(client.get_run(record.run_id).info.artifact_uri)


def serve_ui(settings: Settings, port: int, on_ready: Callable[[UiPages], None]) -> None:
    """Run MLflow's UI until the user stops it; `on_ready` hears where it is."""
    from orchestrator import ui

    if not store.exists(settings):
        raise StoreError(f"There is no store at {settings.database} yet. `orch sweep --grid smoke` makes one.")
    experiment_id = ui.share_views(store.open_client(settings), settings.store_uri)
    chosen = ui.free_port(port)
    base = f"http://{ui.HOST}:{chosen}"
    pages = UiPages(
        jobs=ui.page(base, experiment_id, ui.JOBS), sweeps=ui.page(base, experiment_id, ui.SWEEPS), moved=chosen != port
    )
    ui.serve(settings, chosen, lambda: on_ready(pages))


def raise_if_incomplete(report: SweepReport) -> None:
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
            f"`orch why {report.name}` shows where. Once that is mended: orch requeue {report.name} --failed, then "
            f"orch resume {report.name}"
        )
    if report.interrupted:
        raise Interrupted(f"sweep {report.name} was stopped ({left}). Go on with: orch resume {report.name}")
    raise SweepIncomplete(
        f"some jobs of sweep {report.name} did not succeed ({left}). `orch status {report.name}` says why; "
        f"`orch resume {report.name} --failed` tries them again."
    )


def show_data(categories: tuple[str, ...], data_root: str | None, out: Path, per_category: int, size: int) -> Path:
    """Write a contact sheet of generated animals, or of photographs where there is a data root."""
    from workers.data.contact_sheet import generated_sheet, photograph_sheet, write_contact_sheet

    if data_root is None:
        sheet = generated_sheet(categories, per_category=per_category, size=size)
    else:
        sheet = photograph_sheet(categories, Path(data_root), per_category=per_category, size=size)
    write_contact_sheet(out, sheet)
    return out


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
        return _status(sweep, records, alive)
    except StoreError as error:
        return SweepStatus(sweep, alive(sweep.name), [], problem=str(error))


def _status(sweep: SweepRecord, records: dict[str, JobRecord], alive: Liveness) -> SweepStatus:
    jobs = compare(sweep.plan.specs, records, alive) if sweep.plan else []
    return SweepStatus(sweep, alive(sweep.name), jobs)
