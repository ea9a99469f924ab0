"""One function per command that keeps sweeps going: requeue, cancel, pause, why, logs, fsck and gc. None prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.execution import control
from orchestrator.execution.control import WALL, Clock, Controlled, put_back
from orchestrator.execution.selection import Which, find_jobs, one_job, what_there_is
from orchestrator.ledger import opening, store
from orchestrator.ledger.base import Ledger, known_sweep
from orchestrator.ledger.lease import here, pid_exists
from orchestrator.ledger.liveness import Liveness, is_driven
from orchestrator.ledger.records import JobRecord, SweepRecord
from orchestrator.planning.diff import Named, PlannedJob
from orchestrator.recovery import evidence, repairs
from orchestrator.recovery.diagnosis import Cause, find_causes
from orchestrator.recovery.garbage import Waste, delete, find_waste
from orchestrator.recovery.logs import LAST_LINES, LogText, attempts_on_disk, follow, read_log
from orchestrator.recovery.repairs import Repaired
from orchestrator.recovery.rules import Repair, known_keys
from orchestrator.services.jobs import find_job
from orchestrator.services.sweeps import status_of
from orchestrator.settings import Settings
from schemas.errors import SpecError, StoreError
from schemas.job import RECIPE_VERSION, JobSpec


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
    is_driven: bool
    causes: tuple[tuple[Cause, str], ...]
    """With the last lines of an example's log."""
    jobs: tuple[PlannedJob[Named], ...]


@dataclass(frozen=True)
class FsckResult:
    found: tuple[Repaired, ...]
    repaired: bool
    """Mending was asked for."""

    @property
    def left(self) -> tuple[Repaired, ...]:
        return tuple(one for one in self.found if not one.done)


def _target(
    ledger: Ledger, wanted: str, *, is_meant: Callable[[JobRecord | None], bool] = lambda record: True
) -> tuple[SweepRecord, JobSpec | None]:
    """A sweep, or a job of one, begun or not: a job is looked for in the sweep that has it in hand, or else the newest.

    Args:
        is_meant: which of several with one title comes first; given the record of one, or None if it has never begun.

    Raises:
        SpecError: nothing fits, or several jobs do.
    """
    sweeps = {sweep.name: sweep for sweep in ledger.sweeps()}
    if wanted in sweeps:
        return sweeps[wanted], None
    specs = {spec.key: (spec, sweep.name) for sweep in reversed(sweeps.values()) for spec in _specs_of(sweep)}
    if not specs:
        known_sweep(ledger, wanted)
    records = ledger.jobs(specs)
    fitting = find_jobs(wanted, [(key, spec.title) for key, (spec, _) in specs.items()])
    meant = [key for key in fitting if is_meant(records.get(key))]
    namesakes = len({specs[key][0].title for key in fitting}) == 1
    among = meant if len(meant) == 1 and namesakes else specs
    try:
        key = one_job(wanted, {key: (specs[key][0].title, specs[key][1]) for key in among})
    except SpecError as error:
        raise SpecError(f"No sweep is called {wanted!r} (there are {', '.join(sweeps)}). {error}") from None
    spec, newest = specs[key]
    record = records.get(key)
    return sweeps[record.driven_by if record and record.driven_by in sweeps else newest], spec


def _specs_of(sweep: SweepRecord) -> tuple[JobSpec, ...]:
    """None where the plan cannot be read: that of one sweep must not hide the jobs of the others."""
    try:
        return sweep.plan.specs if sweep.plan else ()
    except StoreError:
        return ()


def requeue(settings: Settings, name: str, which: Which, *, from_scratch: bool = False) -> Requeued:
    """Put failed or cancelled jobs back, for `orch resume` to run.

    Raises:
        SpecError: none is meant by `which`; the message says which there are.
        SweepBusy: a driver runs the sweep.
    """
    ledger = opening.open_ledger(settings)
    record = known_sweep(ledger, name)
    found = put_back(settings, ledger, name, which, WALL, from_scratch=from_scratch)
    if not found:
        there = what_there_is(record.plan, ledger.jobs()) if record.plan else "It was stopped before it was planned."
        raise SpecError(f"Nothing of sweep {name!r} fits. {there} `orch why {name}` tells more.")
    return Requeued(name, tuple(found), from_scratch)


def cancel(settings: Settings, wanted: str) -> Controlled:
    """Cancel a sweep, or one job; of several with one title, the one that has not ended."""
    ledger = opening.open_ledger(settings)
    sweep, job = _target(ledger, wanted, is_meant=lambda record: record is None or not record.state.has_ended)
    return control.cancel(settings, ledger, sweep.name, job, WALL, lambda name: Liveness(ledger)(name))


def pause(settings: Settings, name: str) -> Controlled:
    """Have a sweep stop in order, for `orch resume` to go on with."""
    return control.pause(settings, opening.open_ledger(settings), name, WALL)


def why(settings: Settings, wanted: str) -> Why:
    """What keeps a sweep, or one job, from being done."""
    ledger = opening.open_ledger(settings)
    sweep, job = _target(ledger, wanted)
    alive = Liveness(ledger, ledger.sweeps())
    status = status_of(sweep, ledger.jobs(), alive)
    jobs = [one for one in status.jobs if job is None or one.spec.key == job.key]
    found = find_causes(jobs)
    tails = tuple(_last_lines(settings, cause.example) for cause in found)
    return Why(
        sweep.name, job.title if job else None, status.is_driven, tuple(zip(found, tails, strict=True)), tuple(jobs)
    )


def _last_lines(settings: Settings, record: JobRecord | None) -> str:
    """The end of the log of the last attempt; of the traceback, where there is no log."""
    if record is None or not record.attempt:
        return ""
    try:
        return read_log(settings, record).last()
    except SpecError:
        failure = record.result.failure if record.result else None
        return "\n".join(failure.traceback.rstrip().splitlines()[-LAST_LINES:]) if failure else ""


def job_log(settings: Settings, wanted: str, attempt: int | None) -> tuple[JobRecord, LogText]:
    record = find_job(settings, wanted)
    return record, read_log(settings, record, attempt)


def follow_log(
    settings: Settings, wanted: str, attempt: int | None, say: Callable[[str], None], clock: Clock = WALL
) -> Iterator[str]:
    """The log as it grows, until the job has ended or nobody drives it.

    Args:
        say: told why there is nothing to see yet.
    """
    ledger = opening.open_ledger(settings)
    record = find_job(settings, wanted)

    def is_over() -> bool:
        now = ledger.get(record.key)
        return now.state.has_ended or not is_driven(ledger.sweep(now.driven_by), clock.now())

    if is_over() or (attempt is not None and attempt < record.attempt):
        yield read_log(settings, record, attempt).text
        return
    if not attempts_on_disk(settings, record.key):
        say(f"{record.title} ({record.key}) has no log on this machine yet; waiting for it. A job that runs on another "
            "one hands its log in when it ends.")  # fmt: skip
    yield from follow(settings, record.key, attempt, is_over, clock.sleep)


def fsck(settings: Settings, *, repair: bool = False) -> FsckResult:
    """What does not hold of the store and the files beside it; with `repair`, repaired where it can be.

    Raises:
        StoreError: there is no store.
    """
    if not store.exists(settings):
        raise StoreError(f"There is no store at {settings.database} to check. `orch sweep --grid smoke` makes one.")
    ledger = opening.open_ledger(settings)
    findings = evidence.inspect(settings, ledger)
    if not repair:
        return FsckResult(tuple(Repaired(finding, "") for finding in findings), repaired=False)
    return FsckResult(tuple(repairs.repair(settings, ledger, findings, WALL)), repaired=True)


def raise_if_unsound(report: FsckResult) -> None:
    """
    Raises:
        StoreError: something does not hold, and was not repaired.
    """
    if not report.left:
        return
    left = len(report.left)
    can = sum(one.finding.repair is not Repair.NOTHING for one in report.left)
    repairs = f"`orch fsck --repair` repairs {'that' if left == 1 else 'them' if can == left else f'{can} of them'}."
    advice = "The table says what to do." if report.repaired or not can else repairs
    what = "One thing is not as it should be." if left == 1 else f"{left} things are not as they should be."
    raise StoreError(f"{what} {advice}")


def gc(settings: Settings, *, dry_run: bool = False) -> tuple[Waste, ...]:
    """Delete what nothing will ever read again; with `dry_run`, only look.

    Raises:
        StoreError: the store cannot say which jobs it knows, so nothing may be deleted.
    """
    if not store.exists(settings):
        raise StoreError(f"There is no store at {settings.database}, so no file can be told to be waste.")
    ledger = opening.open_ledger(settings)
    waste = tuple(find_waste(settings, lambda: _known_jobs(ledger), RECIPE_VERSION, here(), pid_exists))
    if not dry_run:
        delete(waste)
    return waste


def _known_jobs(ledger: Ledger) -> frozenset[str]:
    sweeps, runs = ledger.sweep_runs(), ledger.job_runs()
    unsure = [entry.problem for entry in sweeps if entry.problem] + [run.problem for run in runs if run.problem]
    if unsure:
        raise StoreError(f"Nothing is deleted while not every job is known: {unsure[0]} `orch fsck` lists them all.")
    return known_keys(runs, sweeps)
