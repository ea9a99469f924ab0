"""Gathers what `orch fsck` judges, from the store and the disk, and mends what it is told to mend."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator import store
from orchestrator.claims import Claims
from orchestrator.fsck import CheckpointIs, Evidence, Finding, Leftover, Mend, check, own_runs
from orchestrator.ledger import Ledger
from orchestrator.records import JobRecord, JobRun
from orchestrator.settings import Settings
from orchestrator.sweeprun import Liveness
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Mended:
    finding: Finding
    done: str
    """What was done; empty where nothing could be."""


def gather(settings: Settings, ledger: Ledger) -> Evidence:
    runs = tuple(ledger.job_runs())
    succeeded = [run for run in own_runs(runs) if run.record and run.record.state is JobState.SUCCEEDED]
    client = store.open_client(settings) if succeeded else None
    kept = {run.run_id: _kept_files(client, settings, run.run_id) for run in succeeded} if client else {}
    return Evidence(
        runs=runs,
        sweeps=tuple(ledger.sweep_runs()),
        missing={
            run_id: tuple(name for name in _result_files() if name not in files) for run_id, files in kept.items()
        },
        checkpoints={run.run_id: _look_at(settings, run) for run in succeeded},
        has_copy=frozenset(run_id for run_id, files in kept.items() if _copy_file() in files),
        folders={path.name: path for path in _folders(settings.checkpoint_dir)},
        partial=tuple(_half_written(settings)),
        is_shared=settings.database is None,
    )


def mend(settings: Settings, ledger: Ledger, findings: Iterable[Finding], now: float) -> list[Mended]:
    claims = Claims(settings.lock_dir)
    return [Mended(finding, _mend_one(settings, ledger, claims, finding, now)) for finding in findings]


def _mend_one(settings: Settings, ledger: Ledger, claims: Claims, finding: Finding, now: float) -> str:
    run, path = finding.run, finding.path
    if finding.mend is Mend.LIFT:
        ledger.lift(finding.where.removeprefix("sweep "))
        return "the claim is lifted"
    if finding.mend is Mend.DELETE and path is not None:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return "deleted"
    if run is None or run.record is None or finding.mend is Mend.NOTHING:
        return ""
    if not claims.take_job(run.key):
        return ""  # a driver has begun it meanwhile
    try:
        return _mend_job(settings, ledger, finding.mend, run, run.record, now)
    finally:
        claims.release_job(run.key)


def _mend_job(settings: Settings, ledger: Ledger, how: Mend, run: JobRun, record: JobRecord, now: float) -> str:
    if how is Mend.STATUS:
        ledger.mend_status(run)
        return "MLflow's status is set"
    pointer = record.result.checkpoint if record.result else None
    if how is Mend.FETCH and pointer is not None and _fetch(settings, run, pointer):
        return "brought back from its run"
    reason = StopReason.WORKER_LOST if record.state is JobState.RUNNING else StopReason.RESULTS_LOST
    ledger.move(run.key, JobState.REQUEUED, now, reason=reason)
    return "requeued"


def _fetch(settings: Settings, run: JobRun, pointer: CheckpointPointer) -> bool:
    """Whether the copy that the run keeps was whole and lies where the job left the original."""
    target = settings.checkpoint_dir / run.key / Path(pointer.path).name
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.checkpoint_dir, prefix=".fetched-") as folder:
        with store.reaching(settings.store_uri):
            client = store.open_client(settings)
            copy = Path(client.download_artifacts(run.run_id, _copy_file(), folder))
        if _sha256(copy) != pointer.sha256:
            return False
        os.replace(copy, target)
    return True


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
    return CheckpointIs.WHOLE if any(_sha256(path) == pointer.sha256 for path in here) else CheckpointIs.DAMAGED


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("[!.]*") if path.is_dir())


def _half_written(settings: Settings) -> Iterator[Leftover]:
    for path in sorted(settings.checkpoint_dir.glob("*/*.partial")):
        yield Leftover(path, path.parent.name)
    cache, checkpoints = settings.cache_dir, settings.checkpoint_dir
    for root, pattern in ((checkpoints, ".fetched-*"), (cache, "*/.*.partial"), (settings.root, "mlflow.partial*")):
        yield from (Leftover(path) for path in sorted(root.glob(pattern)))


def inspect(settings: Settings, ledger: Ledger) -> list[Finding]:
    return check(gather(settings, ledger), Liveness(ledger))
