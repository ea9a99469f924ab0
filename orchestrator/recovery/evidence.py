"""Collects what `orch fsck` checks, from the store and from the disk."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.ledger import store
from orchestrator.ledger.base import LedgerRepairer
from orchestrator.ledger.liveness import Liveness
from orchestrator.ledger.records import JobRun
from orchestrator.recovery.rules import CheckpointStatus, Evidence, Finding, Leftover, check, primary_runs
from orchestrator.settings import Settings
from schemas.errors import StoreError
from schemas.lifecycle import JobState
from schemas.results import CheckpointPointer
from workers.checkpoints.layout import POINTER, path_below
from workers.checkpoints.shared import read_shared_pointer, shared_objects
from workers.files import sha256_of
from workers.objects.base import open_objects

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from orchestrator.ledger.home_client import HomeClient


def collect_evidence(settings: Settings, ledger: LedgerRepairer) -> Evidence:
    """Collect the runs of the store, and the state of the files that belong to them."""
    runs = tuple(ledger.job_runs())
    succeeded = [run for run in primary_runs(runs) if run.record and run.record.state is JobState.SUCCEEDED]
    client = store.open_client(settings) if succeeded else None
    kept = {run.run_id: _kept_files(client, settings, run.run_id) for run in succeeded} if client else {}
    checkpoints = (
        {run.run_id: checkpoint_status(settings, client, run, kept[run.run_id]) for run in succeeded} if client else {}
    )
    return Evidence(
        runs=runs,
        sweeps=tuple(ledger.sweep_runs()),
        missing={
            run_id: tuple(name for name in _result_files() if name not in files) for run_id, files in kept.items()
        },
        bare=frozenset(run_id for run_id, files in kept.items() if not files),
        checkpoints=checkpoints,
        folders={path.name: path for path in _folders(settings.checkpoint_dir)},
        partial=tuple(_partial_files(settings)),
        deleted=ledger.deleted_jobs(),
        missing_objects=_missing_objects(settings, runs),
    )


def _missing_objects(settings: Settings, runs: Iterable[JobRun]) -> dict[str, tuple[str, ...]]:
    """Return the published checkpoints that the object store lacks, by job, for jobs that are to go on from them."""
    if settings.object_store is None:
        return {}
    objects = open_objects(settings.object_store)
    there = list(shared_objects(objects))
    keys = {one.key for one in there}
    waiting = {run.key for run in runs if run.record and run.record.state is not JobState.SUCCEEDED}
    latest: dict[str, int] = {}
    for one in there:
        if one.name == POINTER and one.job_key in waiting:
            latest[one.job_key] = max(one.attempt, latest.get(one.job_key, 0))
    pointers = {key: read_shared_pointer(objects, key, attempt) for key, attempt in latest.items()}
    missing = {
        key: tuple(row.path for row in pointer.checkpoints if row.path not in keys)
        for key, pointer in pointers.items()
        if pointer is not None
    }
    return {key: paths for key, paths in missing.items() if paths}


def _kept_files(client: MlflowClient, settings: Settings, run_id: str) -> set[str]:
    """Paths of a run's non-empty artifacts, including those in the folders of the results."""
    from workers.tracking.final_checkpoint import FOLDER

    folders = ["", FOLDER, *{str(Path(name).parent) for name in _result_files() if "/" in name}]
    with store.reaching(settings.store_uri):
        files = [file for folder in folders for file in client.list_artifacts(run_id, folder or None)]
    return {file.path for file in files if file.file_size}


def _result_files() -> tuple[str, ...]:
    from workers.tracking.run_log import FILTERS_FILE, METRICS_FILE, SPEC_FILE

    return SPEC_FILE, METRICS_FILE, FILTERS_FILE


def checkpoint_status(settings: Settings, client: HomeClient, run: JobRun, kept: Collection[str]) -> CheckpointStatus:
    """Check the final checkpoint of a run against its SHA-256.

    It may be among the files of the run, and, in stores of earlier versions, at its recorded path or below the current
    checkpoint folder. Files behind a server are not fetched to check them: it is enough that the run lists one.

    Args:
        settings: where the store and the files are.
        client: a client of the store.
        run: the run of the job.
        kept: paths of the run's files.
    """
    from workers.tracking.final_checkpoint import find_local, find_name, folder_of

    pointer = run.record.result.checkpoint if run.record and run.record.result else None
    if pointer is None:
        return CheckpointStatus.MISSING
    with store.reaching(settings.store_uri):
        uri = client.artifact_uri(run.run_id)
    places = [Path(pointer.path), path_below(settings.checkpoint_dir, run.key, pointer), find_local(uri, pointer)]
    here = [path for path in dict.fromkeys(places) if path is not None and os.path.isfile(path)]
    is_far = folder_of(uri) is None and find_name(pointer, kept) is not None
    if is_far or any(_has_digest(path, pointer) for path in here):
        return CheckpointStatus.INTACT
    return CheckpointStatus.DAMAGED if here else CheckpointStatus.MISSING


def _has_digest(path: Path, pointer: CheckpointPointer) -> bool:
    try:
        return sha256_of(path) == pointer.sha256
    except OSError:  # the disk can no longer read it
        return False


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("[!.]*") if path.is_dir())


def _partial_files(settings: Settings) -> Iterator[Leftover]:
    """Partial files of checkpoints, copies and the store. Partial image sets are not: the next job continues them."""
    from workers.tracking.final_checkpoint import FOLDER

    for pattern in ("*/attempt-*/*.partial", "*/attempt-*/.fetched-*"):
        for path in sorted(settings.checkpoint_dir.glob(pattern)):
            yield Leftover(path, path.parent.parent.name)
    for root, pattern in (
        (settings.checkpoint_dir, ".fetched-*"),
        (settings.root, "mlflow.partial*"),
        (settings.root, f"artifacts/*/artifacts/{FOLDER}/.*.partial"),
    ):
        yield from (Leftover(path) for path in sorted(root.glob(pattern)))


def inspect(settings: Settings, ledger: LedgerRepairer) -> list[Finding]:
    """Check the store and the files that belong to it.

    A driver that starts or ends during the check counts as alive, because its changes are incomplete.

    Args:
        settings: where the store and the files are.
        ledger: the jobs and sweeps.

    Returns:
        Everything that is wrong.

    Raises:
        StoreError: the store does not answer, or the files cannot be read.
    """
    alive = Liveness(ledger, ledger.sweeps())
    try:
        return check(collect_evidence(settings, ledger), alive)
    except OSError as error:
        raise StoreError(
            f"The files under {settings.root} cannot be checked ({error.strerror or error}). "
            "Free disk space or correct the permissions there, then run `orch fsck` again."
        ) from error
