"""Explains why jobs stopped, requeues, pauses and cancels them, and checks and cleans the store. Nothing prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from orchestrator.execution import control
from orchestrator.execution.control import WALL, Clock, Controlled, put_back
from orchestrator.execution.selection import Which, find_jobs, one_job, what_there_is
from orchestrator.ledger import opening
from orchestrator.ledger.base import LedgerReader, LedgerRepairer, known_sweep
from orchestrator.ledger.home import check_folders, settle
from orchestrator.ledger.lease import here, pid_exists
from orchestrator.ledger.liveness import Liveness, is_driven
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import JobRecord, SweepRecord, Waiting
from orchestrator.ledger.shared_prefix import claim_prefix
from orchestrator.ledger.store import open_client
from orchestrator.planning.diff import Named, PlannedJob
from orchestrator.recovery import evidence, repairs
from orchestrator.recovery.diagnosis import Cause, find_causes
from orchestrator.recovery.garbage import Waste, delete, find_waste
from orchestrator.recovery.logs import (
    LAST_LINES,
    LogSource,
    LogText,
    attempts_on_disk,
    follow,
    last_lines,
    read_log,
)
from orchestrator.recovery.repairs import Repaired
from orchestrator.recovery.rules import Repair, known_keys
from orchestrator.recovery.spare import spare_checkpoints
from orchestrator.services.jobs import find_job
from orchestrator.services.sweeps import status_of
from orchestrator.settings import DATABASE, Settings
from schemas.errors import SpecError, StoreError
from schemas.job import RECIPE_VERSION, JobSpec
from schemas.lifecycle import JobState


@dataclass(frozen=True)
class Requeued:
    """Jobs of a sweep that were put back in the queue."""

    sweep: str
    jobs: tuple[JobRecord, ...]
    from_scratch: bool
    """True if their checkpoints were deleted."""


@dataclass(frozen=True)
class Why:
    """Why a sweep, or one of its jobs, is not done."""

    sweep: str
    job: str | None
    """Title of the job that was named; None for the whole sweep."""
    is_driven: bool
    causes: tuple[tuple[Cause, str], ...]
    """Each cause, with the last lines of the log of one of its jobs."""
    jobs: tuple[PlannedJob[Named], ...]
    """All jobs in question, whether something went wrong or not."""
    waiting: Waiting | None = None
    """Why some jobs of the sweep have no worker."""


@dataclass(frozen=True)
class FsckResult:
    """What `orch fsck` found and repaired."""

    found: tuple[Repaired, ...]
    repaired: bool
    """True if repairs were requested."""

    @property
    def left(self) -> tuple[Repaired, ...]:
        """Findings that were not repaired."""
        return tuple(one for one in self.found if not one.done)


def _target(
    ledger: LedgerReader, wanted: str, *, is_meant: Callable[[JobRecord | None], bool] = lambda record: True
) -> tuple[SweepRecord, JobSpec | None]:
    """Find a sweep by its name, or a job, started or not, with the sweep that drives it, else its newest sweep.

    Args:
        wanted: the name of a sweep, or a job's key, the start of it, or its title.
        is_meant: which of several jobs with one title to prefer; called with the job's record, or None if it has
            never started.

    Raises:
        SpecError: the name is unknown or ambiguous.
        StoreError: the store has no sweep.
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
    """The jobs of a sweep; none if its plan cannot be read, so that the jobs of other sweeps are still found."""
    try:
        return sweep.plan.specs if sweep.plan else ()
    except StoreError:
        return ()


def requeue(settings: Settings, name: str, which: Which, *, from_scratch: bool = False) -> Requeued:
    """Put failed or cancelled jobs back in the queue, for `orch resume` to run.

    Args:
        name: the sweep's name.
        which: the jobs to put back.
        from_scratch: delete the jobs' checkpoints.

    Raises:
        SpecError: no job matches `which`; the message lists those that could be put back.
        StoreError: the store has no such sweep.
        SweepBusy: a driver runs the sweep.
    """
    ledger = opening.open_ledger(settings)
    record = known_sweep(ledger, name)
    found = put_back(settings, ledger, name, which, WALL, from_scratch=from_scratch)
    if not found:
        there = what_there_is(record.plan, ledger.jobs()) if record.plan else "It was stopped before it was planned."
        raise SpecError(f"No job of sweep {name!r} matches. {there} `orch why {name}` shows the causes.")
    return Requeued(name, tuple(found), from_scratch)


def cancel(settings: Settings, wanted: str) -> Controlled:
    """Cancel a sweep or one job; of several jobs with one title, the one that has not ended.

    Args:
        wanted: the name of a sweep, or a job's key, the start of it, or its title.

    Raises:
        SpecError: the name is unknown or ambiguous.
    """
    ledger = opening.open_ledger(settings)
    sweep, job = _target(ledger, wanted, is_meant=lambda record: record is None or not record.state.has_ended)
    return control.cancel(settings, ledger, sweep.name, job, WALL, lambda name: Liveness(ledger)(name))


def pause(settings: Settings, name: str) -> Controlled:
    """Stop a sweep so that `orch resume` can continue it: running jobs save a checkpoint and end.

    Raises:
        StoreError: the store has no such sweep.
    """
    return control.pause(settings, opening.open_ledger(settings), name, WALL)


def why(settings: Settings, wanted: str) -> Why:
    """Find out why a sweep or one job is not done.

    Args:
        wanted: the name of a sweep, or a job's key, the start of it, or its title.

    Raises:
        SpecError: the name is unknown or ambiguous.
    """
    ledger = opening.open_reader(settings)
    sweep, job = _target(ledger, wanted)
    alive = Liveness(ledger, ledger.sweeps())
    status = status_of(sweep, ledger, alive)
    jobs = [one for one in status.jobs if job is None or one.spec.key == job.key]
    found = find_causes(jobs)
    tails = tuple(_last_lines(settings, cause.example) for cause in found)
    return Why(
        sweep.name,
        job.title if job else None,
        status.is_driven,
        tuple(zip(found, tails, strict=True)),
        tuple(jobs),
        sweep.waiting if status.is_driven else None,
    )


def _last_lines(settings: Settings, record: JobRecord | None) -> str:
    """The last lines of the last attempt's log if it is on this machine, else of its traceback.

    The copy of the log in the job's run is not read: it may be in an object store that is away.
    """
    if record is None or not record.attempt:
        return ""
    if record.attempt in attempts_on_disk(settings, record.key):
        return read_log(settings, record, record.attempt).last()
    failure = record.result.failure if record.result else None
    return "\n".join(failure.traceback.rstrip().splitlines()[-LAST_LINES:]) if failure else ""


def job_log(
    settings: Settings, wanted: str, attempt: int | None, lines: int | None = None
) -> tuple[JobRecord, LogText]:
    """Read the log of one attempt of a job; None is the last attempt that left one.

    Args:
        wanted: the job's key, the start of it, or its title.
        attempt: number of the attempt.
        lines: number of its last lines to return; None returns all.

    Raises:
        SpecError: the job is unknown or ambiguous, or there is no such log.
    """
    record = find_job(settings, wanted)
    log = read_log(settings, record, attempt)
    return record, log if lines is None else replace(log, text=last_lines(log.text, lines))


def follow_log(
    settings: Settings, wanted: str, attempt: int | None, say: Callable[[str], None], clock: Clock = WALL,
    *, lines: int | None = None,
) -> Iterator[str]:  # fmt: skip
    """Yield parts of a job's log as they are written, until the job has ended or its driver is dead.

    Args:
        wanted: the job's key, the start of it, or its title.
        attempt: number of the attempt; None follows the last one.
        say: called with a message if the log does not exist yet, or the store does not answer.
        lines: number of lines to show of what is there already; None shows all.
        clock: how to sleep between looks.

    Raises:
        SpecError: the job is unknown or ambiguous, or there is no such log.
    """
    ledger = opening.open_ledger(settings)
    record = find_job(settings, wanted)

    source = LogSource(settings, record)

    def is_over() -> bool:
        now = source.job = ledger.get(record.key)
        return now.state.has_ended or not is_driven(ledger.sweep(now.driven_by), clock.now())

    if is_over() or (attempt is not None and attempt < record.attempt):
        text = read_log(settings, record, attempt).text
        yield text if lines is None else last_lines(text, lines)
        return
    if not source.look():
        say(f"{record.title} ({record.key}) has no log yet. Waiting for it.")
    yield from follow(source, attempt, is_over, clock.sleep, last=lines, say=say)


def fsck(settings: Settings, *, repair: bool = False) -> FsckResult:
    """Check that the store and the files beside it agree.

    Args:
        repair: repair what can be repaired.

    Raises:
        StoreError: there is no store.
    """
    ledger = opening.open_existing(settings)
    if repair:
        settle(settings)
    findings = evidence.inspect(settings, ledger)
    if not repair:
        return FsckResult(tuple(Repaired(finding, "") for finding in findings), repaired=False)
    unsure = [entry.problem for entry in ledger.sweep_runs() if entry.problem]
    if unsure:  # where plans are gone, the other files may only be elsewhere
        raise StoreError(f"Some plans cannot be read, so nothing is repaired: {unsure[0]}")
    return FsckResult(tuple(repairs.repair(settings, ledger, findings, WALL)), repaired=True)


def raise_if_unsound(report: FsckResult) -> None:
    """Raise the error that a check with findings ends with.

    Raises:
        StoreError: not everything was repaired.
    """
    if not report.left:
        return
    left = len(report.left)
    can = sum(one.finding.repair is not Repair.NOTHING for one in report.left)
    repairs = f"`orch fsck --repair` repairs {'it' if left == 1 else 'them' if can == left else f'{can} of them'}."
    advice = "The table says what to do." if report.repaired or not can else repairs
    what = "1 problem found." if left == 1 else f"{left} problems found."
    raise StoreError(f"{what} {advice}")


def gc(settings: Settings, *, dry_run: bool = False) -> tuple[Waste, ...]:
    """Delete files that are no longer used.

    Args:
        dry_run: only list them.

    Returns:
        What was deleted, or would be.

    Raises:
        StoreError: there is no store, or it cannot list all of its jobs, so nothing is deleted.
    """
    ledger = opening.open_existing(settings)
    _check_only_store(settings)
    check_folders(settings) if dry_run else settle(settings)
    client = open_client(settings)
    objects = claim_prefix(settings, client) if settings.object_store else None
    waste = find_waste(settings, lambda: _known_jobs(ledger), RECIPE_VERSION, here(), pid_exists, objects=objects)
    spare = list(spare_checkpoints(settings, client, ledger.job_runs()))
    if not dry_run:
        locks = Locks(settings.lock_dir)
        waste = delete(waste, locks, lambda key: key in _known_jobs(ledger))
        spare = delete(spare, locks, lambda key: _is_unfinished(ledger, key))
    return (*waste, *spare)


def _is_unfinished(ledger: LedgerReader, key: str) -> bool:
    record = ledger.jobs({key}).get(key)
    return record is None or record.state is not JobState.SUCCEEDED


def _check_only_store(settings: Settings) -> None:
    """Check that no other store of this home may have jobs whose files are here.

    Raises:
        StoreError: ORCH_TRACKING_URI names a store, and the home has one of its own.
    """
    own = settings.root / DATABASE
    if settings.database is None and own.exists():
        raise StoreError(
            f"The home {settings.root} has its own store ({DATABASE}) beside the one that ORCH_TRACKING_URI names, "
            "so it is unknown which files are unused and nothing is deleted. Unset ORCH_TRACKING_URI, or give each "
            "store its own ORCH_HOME."
        )


def _known_jobs(ledger: LedgerRepairer) -> frozenset[str]:
    sweeps, runs = ledger.sweep_runs(), ledger.job_runs()
    unsure = [entry.problem for entry in sweeps if entry.problem] + [run.problem for run in runs if run.problem]
    if unsure:
        raise StoreError(f"Some jobs cannot be read, so nothing is deleted: {unsure[0]} `orch fsck` lists them all.")
    return known_keys(runs, sweeps) | ledger.deleted_jobs()
