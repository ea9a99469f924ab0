"""Single files that a run keeps, wherever the store keeps them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.ledger import store
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient


def read_artifact(settings: Settings, client: MlflowClient, run_id: str, name: str) -> bytes | None:
    """A file of a run; None where it has none of that name."""
    return read_artifacts(settings, client, run_id, str(Path(name).parent), [name]).get(name)


def read_artifacts(
    settings: Settings, client: MlflowClient, run_id: str, folder: str, names: list[str]
) -> dict[str, bytes]:
    """Those of some files of a run's folder that it has."""
    with store.reaching(settings.store_uri), TemporaryDirectory() as here:
        kept = {file.path for file in client.list_artifacts(run_id, folder)}
        return {
            name: Path(client.download_artifacts(run_id, name, here)).read_bytes() for name in names if name in kept
        }
