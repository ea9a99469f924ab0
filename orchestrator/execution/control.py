"""Puts jobs back, cancels and pauses them: at once where nobody drives the sweep, else by asking its driver."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from orchestrator.execution.cancel import cancel_waiting
from orchestrator.execution.selection import Which, pick
from orchestrator.ledger.base import Ledger, known_sweep
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.liveness import is_driven
from orchestrator.ledger.locks import Locks, busy
from orchestrator.ledger.records import ControlRequest, JobRecord, SweepRecord
from orchestrator.settings import Settings
from schemas.errors import StoreError, SweepBusy
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason

PATIENCE_SECONDS = 15.0
"""How long to wait for a driver that looks every second, unless it is just starting its workers."""
LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class Clock:
    now: Callable[[], float]
    sleep: Callable[[float], None]


WALL = Clock(time.time, time.sleep)


@dataclass(frozen=True)
class Controlled:
    """What became of a request."""

    sweep: str
    kind: Literal["pause", "cancel"]
    job: str | None
    """Title of the job that was named; None for the whole sweep."""
    driver: Lease | None
    """Who drove the sweep; None where nobody did."""
    heard: bool
    """The driver took it up; false also where there is none."""
    changed: tuple[str, ...] = ()
    """Titles of the jobs that were cancelled here and now."""
    running_elsewhere: tuple[str, ...] = ()
    never_begun: int = 0
    left: int = 0
    """Jobs of the sweep that have not succeeded."""
    found: JobState | None = None
    """How the job that was named stood; None where it has never begun, and for a whole sweep."""


def put_back(settings: Settings, ledger: Ledger, name: str, which: Which, clock: Clock, *, from_scratch: bool = False
             ) -> list[JobRecord]:  # fmt: skip
    """Make failed and cancelled jobs ready to run again; runs nothing.

    Raises:
        SweepBusy: a driver runs the sweep.
    """
    with undriven(settings, ledger, name, clock) as (record, locks):
        if record.plan is None:
            return []
        found = pick(record.plan, ledger.jobs(), which)
        return [job for job in found if _put_one_back(settings, ledger, locks, job, clock.now(), from_scratch)]


def _put_one_back(
    settings: Settings, ledger: Ledger, locks: Locks, job: JobRecord, now: float, from_scratch: bool
) -> bool:
    """False where another sweep that shares the job has just done so, and perhaps runs it already."""
    if not locks.take_job(job.key):
        return False
    try:
        if ledger.get(job.key).state is not job.state:
            return False
        if from_scratch:
            _drop_checkpoints(settings, job.key)
        # The reason stays: it is what `orch status` shows, and what the next attempt may make allowance for.
        ledger.move(job.key, JobState.REQUEUED, now, reason=job.stop_reason)
    finally:
        locks.release_job(job.key)
    return True


def _drop_checkpoints(settings: Settings, key: str) -> None:
    folder = settings.checkpoint_dir / key
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise StoreError(
            f"The checkpoints {folder} cannot be deleted ({error.strerror or error}). Repair its permissions."
        ) from error


def pause(settings: Settings, ledger: Ledger, name: str, clock: Clock) -> Controlled:
    """Let running jobs end in order and start no more. Nothing happens to a sweep that nobody drives."""
    try:
        with undriven(settings, ledger, name, clock) as (record, _):
            return Controlled(name, "pause", None, None, heard=False, left=_left(ledger, record))
    except SweepBusy:
        return _ask(settings, ledger, name, "pause", None, clock) or pause(settings, ledger, name, clock)


def cancel(
    settings: Settings, ledger: Ledger, name: str, job: JobSpec | None, clock: Clock,
    driver_is_alive: Callable[[str], bool],
) -> Controlled:  # fmt: skip
    """Cancel a sweep, or one job of it."""
    try:
        with undriven(settings, ledger, name, clock) as (record, locks):
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
        asked = _ask(settings, ledger, name, "cancel", job, clock)
        return asked or cancel(settings, ledger, name, job, clock, driver_is_alive)


def _ask(
    settings: Settings, ledger: Ledger, name: str, kind: Literal["pause", "cancel"], job: JobSpec | None, clock: Clock
) -> Controlled | None:
    """Leave a request and wait until the driver has heard it; None when the driver is gone before it did."""
    lease = known_sweep(ledger, name).lease
    # Not before the claim it is meant for, even where that was made by a clock that is ahead of this one.
    at = max(clock.now(), lease.since) if lease else clock.now()
    request = ControlRequest(id=uuid4().hex[:12], kind=kind, keys=(job.key,) if job else (), at=at)
    ledger.ask(name, request)
    until = clock.now() + PATIENCE_SECONDS
    heard = False
    while not heard and clock.now() < until:
        clock.sleep(LOOK_SECONDS)
        heard = request not in ledger.requests(name)
        if not heard and _is_free(settings, ledger, name, clock):
            ledger.answer(name, request)
            return None
    return Controlled(name, kind, job.title if job else None, lease, heard)


def _is_free(settings: Settings, ledger: Ledger, name: str, clock: Clock) -> bool:
    try:
        with undriven(settings, ledger, name, clock):
            return True
    except SweepBusy:
        return False


@contextmanager
def undriven(settings: Settings, ledger: Ledger, name: str, clock: Clock) -> Iterator[tuple[SweepRecord, Locks]]:
    """Hold a sweep, so that no driver begins meanwhile.

    Raises:
        SweepBusy: one drives it already.
    """
    known_sweep(ledger, name)
    locks = Locks(settings.lock_dir)
    with locks.sweep(name, clock.now()):
        record = known_sweep(ledger, name)
        if settings.database is None and is_driven(record, clock.now()):
            raise busy(name, record.lease)
        yield record, locks


def _left(ledger: Ledger, sweep: SweepRecord) -> int:
    if sweep.plan is None:
        return 0
    records = ledger.jobs([spec.key for spec in sweep.plan.specs])
    done = sum(record.state is JobState.SUCCEEDED for record in records.values())
    return len(sweep.plan.specs) - done
