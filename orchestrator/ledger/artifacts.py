"""Reads single artifact files of a run."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.ledger import store
from orchestrator.ledger.base import LedgerReader
from orchestrator.ledger.sqlite_reader import SqliteReader
from orchestrator.settings import Settings
from schemas.results import CheckpointPointer
from workers.tracking.final_checkpoint import folder_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from orchestrator.ledger.home_client import HomeClient


def local_artifact(ledger: LedgerReader, run_id: str, name: str) -> Path | None:
    """Return an artifact file of the embedded store; None if only MLflow can tell where it is, or that there is none.

    Args:
        ledger: The store.
        run_id: The run.
        name: Path of the file among the run's artifacts.
    """
    found = ledger.artifact_uri(run_id) if isinstance(ledger, SqliteReader) else None
    folder = folder_of(found) if found else None
    file = folder / name if folder else None
    return file if file is not None and file.is_file() else None


def read_artifact(settings: Settings, client: MlflowClient, run_id: str, name: str) -> bytes | None:
    """Return the content of an artifact file, or None if the run does not have it.

    Args:
        settings: Names the store.
        client: A client of that store.
        run_id: The run.
        name: Path of the file among the run's artifacts.

    Raises:
        StoreError: The store cannot be read.
    """
    return read_artifacts(settings, client, run_id, str(Path(name).parent), [name]).get(name)


def fetch_checkpoint(
    settings: Settings, client: HomeClient, run_id: str, checkpoint: CheckpointPointer, folder: Path
) -> Path | None:
    """Return the final checkpoint of a run, whole or not; None if the run does not have it.

    Args:
        settings: Names the store.
        client: A client of that store.
        run_id: The run.
        checkpoint: The checkpoint as the job recorded it.
        folder: Where to download it to, if it is not on this machine.

    Raises:
        StoreError: The store cannot be read.
    """
    from workers.tracking import final_checkpoint

    with store.reaching(settings.store_uri):
        return final_checkpoint.fetch(client, run_id, client.artifact_uri(run_id), checkpoint, folder)


def read_artifacts(
    settings: Settings, client: MlflowClient, run_id: str, folder: str, names: list[str]
) -> dict[str, bytes]:
    """Return the contents of those of the named artifact files that the run has, by name.

    Args:
        settings: Names the store.
        client: A client of that store.
        run_id: The run.
        folder: The artifact folder that holds the files.
        names: Paths of the files among the run's artifacts.

    Raises:
        StoreError: The store cannot be read.
    """
    with store.reaching(settings.store_uri), TemporaryDirectory() as here:
        kept = {file.path for file in client.list_artifacts(run_id, folder)}
        return {
            name: Path(client.download_artifacts(run_id, name, here)).read_bytes() for name in names if name in kept
        }
