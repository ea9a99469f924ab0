"""A client of MLflow that finds the artifacts of a home that was moved, without writing."""

from __future__ import annotations

from typing import Any

from mlflow import MlflowClient
from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from orchestrator.ledger.home import Relocation


class HomeClient(MlflowClient):
    """MLflow's client, whose methods for artifacts read and write where the artifacts are now.

    MLflow records the absolute URI of the artifacts with each run.
    """

    def __init__(self, tracking_uri: str, here: Relocation) -> None:
        """
        Args:
            tracking_uri: MLflow's tracking URI.
            here: Finds recorded paths.
        """
        super().__init__(tracking_uri=tracking_uri)
        self.here = here

    def artifact_uri(self, run_id: str) -> str:
        """Return where the artifacts of a run are now."""
        return self.here.uri(self.get_run(run_id).info.artifact_uri)

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[FileInfo]:
        """See `MlflowClient.list_artifacts`."""
        return list(self._files(run_id).list_artifacts(path))

    def download_artifacts(self, run_id: str, path: str, dst_path: str | None = None) -> str:
        """See `MlflowClient.download_artifacts`."""
        return str(self._files(run_id).download_artifacts(path, dst_path))

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """See `MlflowClient.log_artifact`."""
        self._files(run_id).log_artifact(local_path, artifact_path)

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        """See `MlflowClient.log_artifacts`."""
        self._files(run_id).log_artifacts(local_dir, artifact_path)

    def _files(self, run_id: str) -> Any:
        return get_artifact_repository(self.artifact_uri(run_id), tracking_uri=self.tracking_uri)
