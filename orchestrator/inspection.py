"""Gathers what `orch fsck` judges, from the store and the disk, and mends what it is told to mend."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator import store
from orchestrator.claims import Claims
from orchestrator.control import Clock, undriven
from orchestrator.fsck import CheckpointIs, Evidence, Finding, Leftover, Mend, check, own_runs
from orchestrator.ledger import Ledger
from orchestrator.records import JobRecord, JobRun
from orchestrator.settings import Settings
from orchestrator.sweeprun import Liveness
from schemas.errors import StoreError, SweepBusy
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer

if TYPE_CHECKING:
    from mlflow import MlflowClient


REQUEUED = "requeued"


@dataclass(frozen=True)
class Mended:
    finding: Finding
    done: str
    """What was done; empty where nothing could be."""

    @property
    def is_requeued(self) -> bool:
        return self.done == REQUEUED


def gather(settings: Settings, ledger: Ledger) -> Evidence:
    runs = tuple(ledger.job_runs())
    succeeded = [run for run in own_runs(runs) if run.record and run.record.state is JobState.SUCCEEDED]
    client = store.open_client(settings) if succeeded else None
    kept = {run.run_id: _kept_files(client, settings, run.run_id) for run in succeeded} if client else {}
    checkpoints = {run.run_id: _look_at(settings, run) for run in succeeded}
    is_shared = settings.database is None
    # On another machine a checkpoint that is not here is as it should be, and its copy is not fetched to be looked at.
    trusted = {CheckpointIs.WHOLE, CheckpointIs.MISSING} if is_shared else {CheckpointIs.WHOLE}
    return Evidence(
        runs=runs,
        sweeps=tuple(ledger.sweep_runs()),
        missing={
            run_id: tuple(name for name in _result_files() if name not in files) for run_id, files in kept.items()
        },
        checkpoints=checkpoints,
        has_copy=frozenset(
            run.run_id
            for run in succeeded
            if _copy_file() in kept[run.run_id]
            and (checkpoints[run.run_id] in trusted or _has_whole_copy(settings, run))
        ),
        folders={path.name: path for path in _folders(settings.checkpoint_dir)},
        partial=tuple(_half_written(settings)),
        is_shared=is_shared,
    )


@dataclass(frozen=True)
class _Workshop:
    settings: Settings
    ledger: Ledger
    claims: Claims
    clock: Clock


def mend(settings: Settings, ledger: Ledger, findings: Iterable[Finding], clock: Clock) -> list[Mended]:
    """What was found, each with what was done about it: nothing where a driver has taken it in hand since.

    Raises:
        StoreError: a file cannot be written or deleted.
    """
    shop = _Workshop(settings, ledger, Claims(settings.lock_dir), clock)
    return [Mended(finding, _mend_one(shop, finding)) for finding in findings]


def _mend_one(shop: _Workshop, finding: Finding) -> str:
    try:
        if finding.mend is Mend.LIFT:
            return _lift(shop, finding.sweep)
        if finding.mend is Mend.DELETE and finding.path is not None:
            return _delete(shop, finding.path, finding.key)
        if finding.mend is Mend.DROP and finding.run is not None:
            return _drop(shop, finding.run.key)
        if finding.run is not None and finding.run.record is not None and finding.mend is not Mend.NOTHING:
            return _mend_job(shop, finding.mend, finding.run, finding.run.record)
    except OSError as error:
        raise StoreError(
            f"What `orch fsck` found at {finding.where} cannot be mended ({error.strerror or error}). "
            "Make room or mend the permissions there, then run it again."
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
    if key and not shop.claims.take_job(key):
        return ""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    finally:
        shop.claims.release_job(key)
    return "deleted"


def _drop(shop: _Workshop, key: str) -> str:
    if not shop.claims.take_job(key):
        return ""
    try:
        return "deleted" if shop.ledger.drop_doubles(key) else ""
    finally:
        shop.claims.release_job(key)


def _mend_job(shop: _Workshop, how: Mend, run: JobRun, record: JobRecord) -> str:
    if not shop.claims.take_job(run.key):
        return ""
    try:
        now = shop.ledger.get(run.key)
        is_as_found = (now.state, now.attempt, now.last_sign_at) == (record.state, record.attempt, record.last_sign_at)
        is_held = not record.state.has_ended and Liveness(shop.ledger)(now.driven_by)
        return _mend_state(shop, how, run, record) if is_as_found and not is_held else ""
    finally:
        shop.claims.release_job(run.key)


def _mend_state(shop: _Workshop, how: Mend, run: JobRun, record: JobRecord) -> str:
    settings, ledger = shop.settings, shop.ledger
    if how is Mend.STATUS:
        ledger.mend_status(run)
        return "MLflow's status is set"
    pointer = record.result.checkpoint if record.result else None
    if how is Mend.FETCH and pointer is not None and _fetch(settings, run, pointer):
        return "brought back from its run"
    reason = StopReason.WORKER_LOST if record.state is JobState.RUNNING else StopReason.RESULTS_LOST
    ledger.move(run.key, JobState.REQUEUED, shop.clock.now(), reason=reason)
    return REQUEUED


def _fetch(settings: Settings, run: JobRun, pointer: CheckpointPointer) -> bool:
    """Whether the copy that the run keeps was whole and lies where the job left the original."""
    target = settings.checkpoint_dir / run.key / Path(pointer.path).name
    target.parent.mkdir(parents=True, exist_ok=True)
    with _whole_copy(settings, run, pointer) as copy:
        if copy is not None:
            os.replace(copy, target)
        return copy is not None


def _has_whole_copy(settings: Settings, run: JobRun) -> bool:
    pointer = run.record.result.checkpoint if run.record and run.record.result else None
    if pointer is None:
        return False
    with _whole_copy(settings, run, pointer) as copy:
        return copy is not None


@contextmanager
def _whole_copy(settings: Settings, run: JobRun, pointer: CheckpointPointer) -> Iterator[Path | None]:
    """The copy that a run keeps of its final checkpoint, fetched for a moment; None where it is not whole."""
    settings.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.checkpoint_dir, prefix=".fetched-") as folder:
        with store.reaching(settings.store_uri):
            client = store.open_client(settings)
            copy = Path(client.download_artifacts(run.run_id, _copy_file(), folder))
        yield copy if _sha256(copy) == pointer.sha256 else None


def _kept_files(client: MlflowClient, settings: Settings, run_id: str) -> set[str]:
    """Files of a run that are not empty, those in the folders that results lie in included."""
    folders = ["", *{str(Path(name).parent) for name in (*_result_files(), _copy_file()) if "/" in name}]
    with store.reaching(settings.store_uri):
        files = [file for folder in folders for file in client.list_artifacts(run_id, folder or None)]
    return {file.path for file in files if file.file_size}


def _result_files() -> tuple[str, ...]:
    from workers.tracking import FILTERS_FILE, METRICS_FILE, SPEC_FILE

    return SPEC_FILE, METRICS_FILE, FILTERS_FILE


def _copy_file() -> str:
    from workers.tracking import CHECKPOINT_FILE

    return CHECKPOINT_FILE


def _look_at(settings: Settings, run: JobRun) -> CheckpointIs:
    pointer = run.record.result.checkpoint if run.record and run.record.result else None
    if pointer is None:
        return CheckpointIs.MISSING
    moved = settings.checkpoint_dir / run.key / Path(pointer.path).name
    here = [path for path in (Path(pointer.path), moved) if path.is_file()]
    if not here:
        return CheckpointIs.MISSING
    return CheckpointIs.WHOLE if any(_holds(path, pointer) for path in here) else CheckpointIs.DAMAGED


def _holds(path: Path, pointer: CheckpointPointer) -> bool:
    try:
        return _sha256(path) == pointer.sha256
    except OSError:  # a disk that cannot read it any more
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("[!.]*") if path.is_dir())


def _half_written(settings: Settings) -> Iterator[Leftover]:
    """Not sets of images that are being prepared: the next job goes on with those."""
    for path in sorted(settings.checkpoint_dir.glob("*/*.partial")):
        yield Leftover(path, path.parent.name)
    for root, pattern in ((settings.checkpoint_dir, ".fetched-*"), (settings.root, "mlflow.partial*")):
        yield from (Leftover(path) for path in sorted(root.glob(pattern)))


def inspect(settings: Settings, ledger: Ledger) -> list[Finding]:
    """What is wrong. A driver that ends or begins meanwhile is in the middle of its moves, so it counts as alive."""
    alive = Liveness(ledger, ledger.sweeps())
    try:
        return check(gather(settings, ledger), alive)
    except OSError as error:
        raise StoreError(
            f"What lies under {settings.root} cannot be looked at ({error.strerror or error}). "
            "Make room or mend the permissions there."
        ) from error
