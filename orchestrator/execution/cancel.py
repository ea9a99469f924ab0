"""Cancels the jobs of a sweep that no worker is running."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from orchestrator.execution.selection import can_be_cancelled
from orchestrator.ledger.base import LedgerWriter
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import JobRecord
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason


@dataclass(frozen=True)
class Cancelled:
    """What `cancel_waiting` did."""

    cancelled: tuple[str, ...]
    """Titles of the jobs that were cancelled."""
    elsewhere: tuple[str, ...]
    """Titles of the jobs that another driver holds."""
    never_begun: int
    """Number of jobs without a record, which were left out."""


def cancel_waiting(
    ledger: LedgerWriter, locks: Locks, specs: Collection[JobSpec], sweep: str, reason: StopReason, now: float,
    driver_is_alive: Callable[[str], bool], *, even_new: bool,
) -> Cancelled:  # fmt: skip
    """Cancel jobs that have begun, have not ended, and are not running.

    Args:
        ledger: The store.
        locks: The locks of this process; those of jobs are taken and released here.
        specs: The jobs.
        sweep: Name of their sweep.
        reason: CANCELLED_BY_USER for jobs that were named, SWEEP_CANCELLED for a whole sweep.
        now: Unix seconds.
        driver_is_alive: Returns whether the sweep with a given name has a live driver.
        even_new: Also cancel jobs that have never begun.

    Raises:
        StoreError: The ledger or a lock cannot be written.
    """
    records = ledger.jobs([spec.key for spec in specs])
    cancelled, elsewhere = [], []
    for spec in specs:
        record = records.get(spec.key)
        if (record is None and not even_new) or (record is not None and not _may_be_cancelled(record, reason)):
            continue
        if not locks.take_job(spec.key):
            elsewhere.append(spec.title)
            continue
        try:
            record = ledger.add(spec, sweep, now)
            if record.state is JobState.CANCELLED:  # with its sweep; now by name, which is final
                record = ledger.move(spec.key, JobState.REQUEUED, now, reason=record.stop_reason)
            if can_be_cancelled(record, sweep, driver_is_alive):
                ledger.move(spec.key, JobState.CANCELLED, now, reason=reason)
                cancelled.append(spec.title)
            else:
                elsewhere.append(spec.title)
        finally:
            locks.release_job(spec.key)
    new = 0 if even_new else sum(spec.key not in records for spec in specs)
    return Cancelled(tuple(cancelled), tuple(elsewhere), new)


def _may_be_cancelled(record: JobRecord, reason: StopReason) -> bool:
    """Return False for jobs that have ended, except those cancelled with their sweep that are now cancelled by name."""
    with_sweep = record.state is JobState.CANCELLED and record.stop_reason is StopReason.SWEEP_CANCELLED
    return not record.state.has_ended or (with_sweep and reason is StopReason.CANCELLED_BY_USER)
