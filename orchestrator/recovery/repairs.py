"""Decides what `orch fsck --repair` changes, after checking each finding a second time."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.execution.control import Clock
from orchestrator.execution.unheard import find_end
from orchestrator.ledger.base import LedgerRepairer
from orchestrator.ledger.liveness import Liveness
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import JobRecord, JobRun
from orchestrator.ledger.undriven import undriven
from orchestrator.recovery.rules import Finding, Repair
from orchestrator.settings import Settings
from schemas.errors import StoreError, SweepBusy
from schemas.lifecycle import JobState, StopReason

REQUEUED = "requeued"


@dataclass(frozen=True)
class Repaired:
    """A finding and its repair."""

    finding: Finding
    done: str
    """What was done; empty if nothing was."""

    @property
    def is_requeued(self) -> bool:
        """Whether the job was requeued, so that it must run again."""
        return self.done == REQUEUED


@dataclass(frozen=True)
class _Context:
    settings: Settings
    ledger: LedgerRepairer
    locks: Locks
    clock: Clock


def repair(settings: Settings, ledger: LedgerRepairer, findings: Iterable[Finding], clock: Clock) -> list[Repaired]:
    """Repair findings, except those whose job or sweep has changed or has a driver now.

    Args:
        settings: where the store and the files are.
        ledger: the ledger to change.
        findings: what `evidence.inspect` found.
        clock: the time of the changes.

    Returns:
        Each finding with what was done.

    Raises:
        StoreError: a file cannot be written or deleted.
    """
    context = _Context(settings, ledger, Locks(settings.lock_dir), clock)
    return [Repaired(finding, _repair_one(context, finding)) for finding in findings]


def _repair_one(context: _Context, finding: Finding) -> str:
    try:
        if finding.repair is Repair.LIFT:
            return _lift(context, finding.sweep)
        if finding.repair is Repair.DELETE and finding.path is not None:
            return _delete(context, finding.path, finding.key)
        if finding.repair is Repair.DROP and finding.run is not None:
            return _drop(context, finding.run.key)
        if finding.run is not None and finding.run.record is not None and finding.repair is not Repair.NOTHING:
            return _repair_job(context, finding.repair, finding.run, finding.run.record)
    except OSError as error:
        raise StoreError(
            f"The finding at {finding.where} cannot be repaired ({error.strerror or error}). "
            "Free disk space or correct the permissions there, then run `orch fsck --repair` again."
        ) from error
    return ""


def _lift(context: _Context, sweep: str) -> str:
    try:
        with undriven(context.settings, context.ledger, sweep, context.clock.now()):
            context.ledger.release_dead_driver(sweep)
    except SweepBusy:
        return ""
    return "lease removed"


def _delete(context: _Context, path: Path, key: str) -> str:
    if key and not context.locks.take_job(key):
        return ""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    finally:
        context.locks.release_job(key)
    return "deleted"


def _drop(context: _Context, key: str) -> str:
    if not context.locks.take_job(key):
        return ""
    try:
        return "deleted" if context.ledger.delete_duplicate_runs(key) else ""
    finally:
        context.locks.release_job(key)


def _repair_job(context: _Context, how: Repair, run: JobRun, record: JobRecord) -> str:
    if not context.locks.take_job(run.key):
        return ""
    try:
        now = context.ledger.get(run.key)
        is_unchanged = (now.state, now.attempt, now.last_sign_at) == (record.state, record.attempt, record.last_sign_at)
        is_driven = not record.state.has_ended and Liveness(context.ledger)(now.driven_by)
        return _repair_state(context, how, run, record) if is_unchanged and not is_driven else ""
    finally:
        context.locks.release_job(run.key)


def _repair_state(context: _Context, how: Repair, run: JobRun, record: JobRecord) -> str:
    settings, ledger = context.settings, context.ledger
    if how is Repair.STATUS:
        ledger.repair_status(run)
        return "MLflow status set"
    end = find_end(settings, record) if record.state is JobState.RUNNING else None
    if end is not None and end.stop_reason is StopReason.FINISHED:
        ledger.move(run.key, JobState.SUCCEEDED, context.clock.now(), reason=end.stop_reason, result=end)
        return "recorded as finished"
    reason = StopReason.WORKER_LOST if record.state is JobState.RUNNING else StopReason.RESULTS_LOST
    ledger.move(run.key, JobState.REQUEUED, context.clock.now(), reason=reason)
    return REQUEUED
