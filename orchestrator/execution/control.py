"""Requeues, cancels and pauses jobs: at once if the sweep has no driver, else by a request to the driver."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from orchestrator.execution.cancel import cancel_waiting
from orchestrator.execution.selection import Which, pick
from orchestrator.ledger.base import LedgerReader, LedgerWriter, known_sweep
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import ControlRequest, JobRecord, SweepRecord
from orchestrator.ledger.undriven import undriven
from orchestrator.settings import Settings
from schemas.errors import StoreError, SweepBusy
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from workers.checkpoints.shared import begin_afresh
from workers.objects.base import open_objects

PATIENCE_SECONDS = 15.0
"""How long to wait for the driver's answer. It polls every second, except while its workers start."""
POLL_SECONDS = 0.25
"""Time between two checks for the answer."""


@dataclass(frozen=True)
class Clock:
    """The time and a way to wait, replaced in tests."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


WALL = Clock(time.time, time.sleep)
"""The real clock."""


@dataclass(frozen=True)
class Controlled:
    """The result of `orch pause` or `orch cancel`."""

    sweep: str
    kind: Literal["pause", "cancel"]
    job: str | None
    """Title of the job that was named; None for the whole sweep."""
    driver: Lease | None
    """Lease of the sweep's driver; None if it had no driver."""
    heard: bool
    """Whether the driver has carried out the request; False if there is no driver."""
    changed: tuple[str, ...] = ()
    """Titles of the jobs that this process cancelled."""
    running_elsewhere: tuple[str, ...] = ()
    """Titles of the jobs that the driver of another sweep holds."""
    never_begun: int = 0
    """Number of jobs that have never begun."""
    left: int = 0
    """Number of jobs that have not succeeded."""
    found: JobState | None = None
    """State of the named job before; None if it has never begun, and for a whole sweep."""


def put_back(
    settings: Settings, ledger: LedgerWriter, name: str, which: Which, clock: Clock, *, from_scratch: bool = False
) -> list[JobRecord]:
    """Requeue failed and cancelled jobs, so that the next `orch resume` runs them.

    Args:
        settings: Names the store and the folders.
        ledger: The store.
        name: Name of the sweep.
        which: The jobs.
        clock: Gives the time of the moves.
        from_scratch: Delete the jobs' checkpoints first.

    Returns:
        The jobs that were requeued, as they were before.

    Raises:
        SweepBusy: A driver runs the sweep.
        StoreError: No sweep has that name, or checkpoints cannot be deleted.
    """
    with undriven(settings, ledger, name, clock.now()) as (record, locks):
        if record.plan is None:
            return []
        found = pick(record.plan, ledger.jobs(), which)
        if from_scratch:
            _refuse_far_checkpoints(settings, found)
        return [job for job in found if _requeue(settings, ledger, locks, job, clock.now(), from_scratch)]


def _requeue(
    settings: Settings, ledger: LedgerWriter, locks: Locks, job: JobRecord, now: float, from_scratch: bool
) -> bool:
    """Requeue a job. Returns False if another sweep that shares the job has just done so."""
    if not locks.take_job(job.key):
        return False
    try:
        if ledger.get(job.key).state is not job.state:
            return False
        if from_scratch:
            if settings.object_store is not None:  # first, so that nothing is deleted while the store is away
                begin_afresh(open_objects(settings.object_store), job.key, job.attempt)
            _delete_checkpoints(settings, job.key)
        # The reason is kept: `orch status` shows it, and the next attempt may depend on it.
        ledger.move(job.key, JobState.REQUEUED, now, reason=job.stop_reason)
    finally:
        locks.release_job(job.key)
    return True


def _refuse_far_checkpoints(settings: Settings, jobs: list[JobRecord]) -> None:
    """Refuse to start jobs from scratch whose checkpoints only another machine has, and could not be deleted here."""
    if settings.database is not None or settings.object_store is not None:
        return
    far = [
        job.title
        for job in jobs
        if job.attempt and not (settings.checkpoint_dir / job.key).exists() and not _left_none(job)
    ]
    if far:
        more = f" and {len(far) - 1} more" if len(far) > 1 else ""
        raise StoreError(
            f"The checkpoints of {far[0]}{more} are on another machine, not in {settings.checkpoint_dir}. Repeat the "
            "command where they are, such as on the head of the cluster, or leave out `--from-scratch`."
        )


def _left_none(job: JobRecord) -> bool:
    """Whether the last attempt is known to have ended without a checkpoint."""
    return job.result is not None and job.result.checkpoint is None


def _delete_checkpoints(settings: Settings, key: str) -> None:
    folder = settings.checkpoint_dir / key
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise StoreError(
            f"The checkpoints {folder} cannot be deleted ({error.strerror or error}). Repair its permissions."
        ) from error


def pause(settings: Settings, ledger: LedgerWriter, name: str, clock: Clock) -> Controlled:
    """Ask the driver of a sweep to stop in order. Does nothing if the sweep has no driver.

    Args:
        settings: Names the store and the folders.
        ledger: The store.
        name: Name of the sweep.
        clock: Limits the wait for the driver's answer.

    Raises:
        StoreError: No sweep has that name.
    """
    try:
        with undriven(settings, ledger, name, clock.now()) as (record, _):
            return Controlled(name, "pause", None, None, heard=False, left=_left(ledger, record))
    except SweepBusy:
        return _request(settings, ledger, name, "pause", None, clock) or pause(settings, ledger, name, clock)


def cancel(
    settings: Settings, ledger: LedgerWriter, name: str, job: JobSpec | None, clock: Clock,
    driver_is_alive: Callable[[str], bool],
) -> Controlled:  # fmt: skip
    """Cancel a sweep, or one job of it.

    Args:
        settings: Names the store and the folders.
        ledger: The store.
        name: Name of the sweep.
        job: The job; None for the whole sweep.
        clock: Gives the time of the moves, and limits the wait for the driver's answer.
        driver_is_alive: Returns whether the sweep with a given name has a live driver.

    Raises:
        StoreError: No sweep has that name.
    """
    try:
        with undriven(settings, ledger, name, clock.now()) as (record, locks):
            specs = [job] if job else list(record.plan.specs) if record.plan else []
            reason = StopReason.CANCELLED_BY_USER if job else StopReason.SWEEP_CANCELLED
            before = ledger.jobs([job.key]).get(job.key) if job else None
            done = cancel_waiting(ledger, locks, specs, name, reason, clock.now(), driver_is_alive,
                                  even_new=job is not None)  # fmt: skip
            return Controlled(
                name, "cancel", job.title if job else None, None, heard=False, changed=done.cancelled,
                running_elsewhere=done.elsewhere, never_begun=done.never_begun, left=_left(ledger, record),
                found=before.state if before else None,
            )  # fmt: skip
    except SweepBusy:
        requested = _request(settings, ledger, name, "cancel", job, clock)
        return requested or cancel(settings, ledger, name, job, clock, driver_is_alive)


def _request(
    settings: Settings,
    ledger: LedgerWriter,
    name: str,
    kind: Literal["pause", "cancel"],
    job: JobSpec | None,
    clock: Clock,
) -> Controlled | None:
    """Leave a request and wait for the driver's answer. Returns None if the driver ends before it answers."""
    lease = known_sweep(ledger, name).lease
    # Not before the lease it is meant for, even if the driver's clock is ahead of this one.
    at = max(clock.now(), lease.since) if lease else clock.now()
    request = ControlRequest(id=uuid4().hex[:12], kind=kind, keys=(job.key,) if job else (), at=at)
    ledger.add_request(name, request)
    until = clock.now() + PATIENCE_SECONDS
    heard = False
    while not heard and clock.now() < until:
        clock.sleep(POLL_SECONDS)
        heard = request not in ledger.pending_requests(name)
        if not heard and _is_free(settings, ledger, name, clock):
            ledger.remove_request(name, request)
            return None
    return Controlled(name, kind, job.title if job else None, lease, heard)


def _is_free(settings: Settings, ledger: LedgerReader, name: str, clock: Clock) -> bool:
    try:
        with undriven(settings, ledger, name, clock.now()):
            return True
    except SweepBusy:
        return False


def _left(ledger: LedgerReader, sweep: SweepRecord) -> int:
    if sweep.plan is None:
        return 0
    records = ledger.jobs([spec.key for spec in sweep.plan.specs])
    done = sum(record.state is JobState.SUCCEEDED for record in records.values())
    return len(sweep.plan.specs) - done
