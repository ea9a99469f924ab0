"""What `orch fsck --repair` changes, each time after a second look."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.execution.control import Clock, undriven
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.liveness import Liveness
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import JobRecord, JobRun
from orchestrator.recovery.evidence import whole_copy
from orchestrator.recovery.rules import Finding, Repair
from orchestrator.settings import Settings
from schemas.errors import StoreError, SweepBusy
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer

REQUEUED = "requeued"


@dataclass(frozen=True)
class Repaired:
    finding: Finding
    done: str
    """What was done; empty where nothing could be."""

    @property
    def is_requeued(self) -> bool:
        return self.done == REQUEUED


@dataclass(frozen=True)
class _Workshop:
    settings: Settings
    ledger: Ledger
    locks: Locks
    clock: Clock


def repair(settings: Settings, ledger: Ledger, findings: Iterable[Finding], clock: Clock) -> list[Repaired]:
    """What was found, each with what was done about it: nothing where a driver has taken it in hand since.

    Raises:
        StoreError: a file cannot be written or deleted.
    """
    shop = _Workshop(settings, ledger, Locks(settings.lock_dir), clock)
    return [Repaired(finding, _repair_one(shop, finding)) for finding in findings]


def _repair_one(shop: _Workshop, finding: Finding) -> str:
    try:
        if finding.repair is Repair.LIFT:
            return _lift(shop, finding.sweep)
        if finding.repair is Repair.DELETE and finding.path is not None:
            return _delete(shop, finding.path, finding.key)
        if finding.repair is Repair.DROP and finding.run is not None:
            return _drop(shop, finding.run.key)
        if finding.run is not None and finding.run.record is not None and finding.repair is not Repair.NOTHING:
            return _repair_job(shop, finding.repair, finding.run, finding.run.record)
    except OSError as error:
        raise StoreError(
            f"What `orch fsck` found at {finding.where} cannot be repaired ({error.strerror or error}). "
            "Make room or repair the permissions there, then run it again."
        ) from error
    return ""


def _lift(shop: _Workshop, sweep: str) -> str:
    try:
        with undriven(shop.settings, shop.ledger, sweep, shop.clock):
            shop.ledger.lift(sweep)
    except SweepBusy:
        return ""
    return "the claim is lifted"


def _delete(shop: _Workshop, path: Path, key: str) -> str:
    if key and not shop.locks.take_job(key):
        return ""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    finally:
        shop.locks.release_job(key)
    return "deleted"


def _drop(shop: _Workshop, key: str) -> str:
    if not shop.locks.take_job(key):
        return ""
    try:
        return "deleted" if shop.ledger.drop_doubles(key) else ""
    finally:
        shop.locks.release_job(key)


def _repair_job(shop: _Workshop, how: Repair, run: JobRun, record: JobRecord) -> str:
    if not shop.locks.take_job(run.key):
        return ""
    try:
        now = shop.ledger.get(run.key)
        is_as_found = (now.state, now.attempt, now.last_sign_at) == (record.state, record.attempt, record.last_sign_at)
        is_held = not record.state.has_ended and Liveness(shop.ledger)(now.driven_by)
        return _repair_state(shop, how, run, record) if is_as_found and not is_held else ""
    finally:
        shop.locks.release_job(run.key)


def _repair_state(shop: _Workshop, how: Repair, run: JobRun, record: JobRecord) -> str:
    settings, ledger = shop.settings, shop.ledger
    if how is Repair.STATUS:
        ledger.repair_status(run)
        return "MLflow's status is set"
    pointer = record.result.checkpoint if record.result else None
    if how is Repair.FETCH and pointer is not None and _fetch(settings, run, pointer):
        return "brought back from its run"
    reason = StopReason.WORKER_LOST if record.state is JobState.RUNNING else StopReason.RESULTS_LOST
    ledger.move(run.key, JobState.REQUEUED, shop.clock.now(), reason=reason)
    return REQUEUED


def _fetch(settings: Settings, run: JobRun, pointer: CheckpointPointer) -> bool:
    """Whether the copy that the run keeps was whole and lies where the job left the original."""
    target = settings.checkpoint_dir / run.key / Path(pointer.path).name
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_copy(settings, run, pointer) as copy:
        if copy is not None:
            os.replace(copy, target)
        return copy is not None
