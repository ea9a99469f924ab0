"""Cancels the jobs of a sweep that are begun and run by nobody: for its driver, and for a sweep that has none."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from orchestrator.execution.selection import can_be_cancelled
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import JobRecord
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason


@dataclass(frozen=True)
class Cancelled:
    cancelled: tuple[str, ...]
    elsewhere: tuple[str, ...]
    never_begun: int


def cancel_waiting(
    ledger: Ledger, locks: Locks, specs: Collection[JobSpec], sweep: str, reason: StopReason, now: float,
    driver_is_alive: Callable[[str], bool], *, even_new: bool,
) -> Cancelled:  # fmt: skip
    """Cancel what is begun, not ended and run by nobody; with `even_new`, also what was never begun."""
    records = ledger.jobs([spec.key for spec in specs])
    cancelled, elsewhere = [], []
    for spec in specs:
        record = records.get(spec.key)
        if (record is None and not even_new) or (record is not None and not _can_yet_be(record, reason)):
            continue
        if not locks.take_job(spec.key):
            elsewhere.append(spec.title)
            continue
        try:
            record = ledger.add(spec, sweep, now)
            if record.state is JobState.CANCELLED:  # with its sweep, and now by its own name, which `resume` respects
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


def _can_yet_be(record: JobRecord, reason: StopReason) -> bool:
    """Cancelled: not what has ended, unless it was cancelled with its sweep and is now named itself."""
    with_sweep = record.state is JobState.CANCELLED and record.stop_reason is StopReason.SWEEP_CANCELLED
    return not record.state.has_ended or (with_sweep and reason is StopReason.CANCELLED_BY_USER)
