"""Reads what a round left behind without orch: from the database, the files and the list of processes."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple

import psutil
import torch
from mlflow.artifacts import download_artifacts

LAST_CURVE = "train/task_loss"
CURVES_OF_CLOCKS = frozenset({"train/seconds"})
NUMBERS_OF_CLOCKS = frozenset({"seconds"})


class Run(NamedTuple):
    """A job's MLflow run."""

    id: str
    key: str
    title: str
    status: str
    state: str
    attempt: int
    ended: int | None
    result: str


class Store:
    """The database of the tracking store, read directly."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def ask(self, query: str, *values: str) -> list[tuple[object, ...]]:
        """Run a query. Returns no rows while the store does not exist yet."""
        if not self.database.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError:  # being created
            return []

    def runs(self) -> list[Run]:
        """Return the runs of all jobs."""
        rows: dict[str, dict[str, object]] = {}
        query = (
            "SELECT r.run_uuid, r.name, r.status, r.end_time, t.key, t.value FROM runs r JOIN tags t "
            "ON t.run_uuid = r.run_uuid WHERE t.key IN ('orch.job_key', 'orch.state', 'orch.attempt', 'orch.result')"
        )
        for run, name, status, ended, tag, value in self.ask(query):
            rows.setdefault(str(run), {"name": name, "status": status, "ended": ended})[str(tag)] = value
        return [
            Run(
                id=run,
                key=str(row["orch.job_key"]),
                title=str(row["name"]),
                status=str(row["status"]),
                state=str(row.get("orch.state")),
                attempt=int(str(row.get("orch.attempt", 0))),
                ended=row["ended"],  # type: ignore[arg-type]
                result=str(row.get("orch.result", "")),
            )
            for run, row in rows.items()
            if "orch.job_key" in row
        ]

    def finished(self) -> dict[str, Run]:
        """Return the runs of succeeded jobs by job key."""
        return {run.key: run for run in self.runs() if run.state == "succeeded"}

    def epochs(self) -> int:
        """Return the number of epochs logged by all jobs together."""
        rows = self.ask("SELECT COUNT(*) FROM metrics WHERE key = ?", LAST_CURVE)
        return int(str(rows[0][0])) if rows else 0

    def sweep_statuses(self) -> list[str]:
        """Return the MLflow status of each sweep's run."""
        sweeps = "SELECT run_uuid FROM tags WHERE key = 'orch.kind' AND value = 'sweep'"
        query = f"SELECT status FROM runs WHERE run_uuid IN ({sweeps})"
        return [str(row[0]) for row in self.ask(query)]

    def knows_the_sweep(self) -> bool:
        """Return whether the plan of the sweep is stored."""
        return bool(self.ask("SELECT 1 FROM tags WHERE key = 'orch.plan_sha256'"))

    def points(self) -> dict[str, list[tuple[str, int, float]]]:
        """Return name, step and value of every logged point by job key, without durations."""
        found: dict[str, list[tuple[str, int, float]]] = {}
        query = (
            "SELECT t.value, m.key, m.step, m.value FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid "
            "WHERE t.key = 'orch.job_key' ORDER BY m.key, m.step"
        )
        for key, name, step, value in self.ask(query):
            if name not in CURVES_OF_CLOCKS:
                found.setdefault(str(key), []).append((str(name), int(str(step)), float(str(value))))
        return found


def weights_digest(tracking_uri: str, run: Run) -> str:
    """Return the SHA-256 of a job's final weights and filter statistics, without the durations in the file."""
    with TemporaryDirectory() as folder:
        kept = download_artifacts(run_id=run.id, artifact_path="checkpoint", tracking_uri=tracking_uri, dst_path=folder)
        (file,) = Path(kept).iterdir()
        return digest_of(file)


def digest_of(checkpoint: Path | BinaryIO) -> str:
    """Return the SHA-256 of the weights and filter statistics in a checkpoint."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    digest = hashlib.sha256()
    _feed(digest, {name: value for name, value in state.items() if name in ("network", "filter_losses")})
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, value: object) -> None:
    if isinstance(value, dict):
        for name in sorted(value):
            digest.update(str(name).encode())
            _feed(digest, value[name])
    elif isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    else:
        digest.update(repr(value).encode())


def processes_of(home: Path) -> list[psutil.Process]:
    """Return the living processes that were started for one ORCH_HOME."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ORCH_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
