"""Creates the work orders for the attempts of one job, as a driver does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.job import JobSpec
from schemas.order import WorkOrder

if TYPE_CHECKING:
    from tests.conftest import Store


class Desk:
    """Creates the work orders for the attempts of one job, and reads what they logged."""

    def __init__(self, store: Store, run_id: str, folder: Path, cache: Path) -> None:
        self.store, self.run_id, self.folder, self.cache = store, run_id, folder, cache

    def order(self, spec: JobSpec, attempt: int, **changes: Any) -> WorkOrder:
        """Mark an attempt as running in the job's run, and return its order."""
        for name, value in (("orch.state", "running"), ("orch.attempt", str(attempt))):
            self.store.client.set_tag(self.run_id, name, value)
        fields: dict[str, Any] = {
            "spec": spec,
            "run_id": self.run_id,
            "attempt": attempt,
            "tracking_uri": self.store.uri,
            "cache_dir": str(self.cache),
            "checkpoint_dir": str(self.folder / "checkpoints"),
            "log_dir": str(self.folder / "logs"),
        }
        return WorkOrder(**(fields | changes))

    def points(self, curve: str) -> list[tuple[int, float]]:
        """Return step and value of every logged point of a metric."""
        return [(point.step, point.value) for point in self.store.client.get_metric_history(self.run_id, curve)]

    def file(self, path: str) -> bytes:
        """Return the content of an artifact."""
        return Path(self.store.client.download_artifacts(self.run_id, path, str(self.folder))).read_bytes()
