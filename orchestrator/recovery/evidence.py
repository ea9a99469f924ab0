"""Gathers what `orch fsck` judges, from the store and the disk, and repairs what it is told to repair."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.ledger import store
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.liveness import Liveness
from orchestrator.ledger.records import JobRun
from orchestrator.recovery.rules import CheckpointIs, Evidence, Finding, Leftover, check, own_runs
from orchestrator.settings import Settings
from schemas.errors import StoreError
from schemas.lifecycle import JobState
from schemas.results import CheckpointPointer

if TYPE_CHECKING:
    from mlflow import MlflowClient


def gather(settings: Settings, ledger: Ledger) -> Evidence:
    runs = tuple(ledger.job_runs())
    succeeded = [run for run in own_runs(runs) if run.record and run.record.state is JobState.SUCCEEDED]
    client = store.open_client(settings) if succeeded else None
    kept = {run.run_id: _kept_files(client, settings, run.run_id) for run in succeeded} if client else {}
    checkpoints = {run.run_id: look_at(settings, run) for run in succeeded}
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
            if copy_file() in kept[run.run_id]
            and (checkpoints[run.run_id] in trusted or _has_whole_copy(settings, run))
        ),
        folders={path.name: path for path in _folders(settings.checkpoint_dir)},
        partial=tuple(_half_written(settings)),
        is_shared=is_shared,
    )


def _has_whole_copy(settings: Settings, run: JobRun) -> bool:
    pointer = run.record.result.checkpoint if run.record and run.record.result else None
    if pointer is None:
        return False
    with whole_copy(settings, run, pointer) as copy:
        return copy is not None


@contextmanager
def whole_copy(settings: Settings, run: JobRun, pointer: CheckpointPointer) -> Iterator[Path | None]:
    """The copy that a run keeps of its final checkpoint, fetched for a moment; None where it is not whole."""
    settings.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.checkpoint_dir, prefix=".fetched-") as folder:
        with store.reaching(settings.store_uri):
            client = store.open_client(settings)
            copy = Path(client.download_artifacts(run.run_id, copy_file(), folder))
        yield copy if _sha256(copy) == pointer.sha256 else None


def _kept_files(client: MlflowClient, settings: Settings, run_id: str) -> set[str]:
    """Files of a run that are not empty, those in the folders that results lie in included."""
    folders = ["", *{str(Path(name).parent) for name in (*_result_files(), copy_file()) if "/" in name}]
    with store.reaching(settings.store_uri):
        files = [file for folder in folders for file in client.list_artifacts(run_id, folder or None)]
    return {file.path for file in files if file.file_size}


def _result_files() -> tuple[str, ...]:
    from workers.tracking.run_log import FILTERS_FILE, METRICS_FILE, SPEC_FILE

    return SPEC_FILE, METRICS_FILE, FILTERS_FILE


def copy_file() -> str:
    from workers.tracking.run_log import CHECKPOINT_FILE

    return CHECKPOINT_FILE


def look_at(settings: Settings, run: JobRun) -> CheckpointIs:
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
            "Make room or repair the permissions there."
        ) from error
