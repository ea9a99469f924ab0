"""Reads the tags of runs in the embedded store with SQLite alone: MLflow's client needs several queries for a run."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Run

SCHEME = "sqlite:///"
WAIT_SECONDS = 1.0
"""SQLite timeout. After it MLflow is asked, which waits longer."""
_RUNS = """
    SELECT run_uuid, experiment_id, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri, name FROM runs
"""


@dataclass
class EmbeddedRuns:
    """Runs with their tags, but without parameters and metrics, as MLflow would return them at the same moment.

    Every method returns None if the store is not a database file on this machine, or cannot be read so: the caller
    then asks MLflow, whose errors say what is wrong. Each read is one transaction.
    """

    uri: str
    """MLflow's tracking URI."""
    _connection: sqlite3.Connection | None = field(default=None, init=False)

    def tags(self, run_id: str) -> dict[str, str] | None:
        """Return the tags of a run; None too if there is no such run, or it has no tags."""
        rows = self.rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id)
        return dict(rows) if rows else None

    def run(self, run_id: str) -> Run | None:
        """Return a run; None too if there is no such run."""
        rows = self.rows(f"{_RUNS} WHERE run_uuid = ?", run_id)
        found = self._with_tags(rows) if rows else None
        return found[0] if found else None

    def having(self, tag: str, value: str, experiment_id: str) -> list[Run] | None:
        """Return the runs of an experiment, deleted ones included, that have a tag with a value, oldest first."""
        query = f"{_RUNS} WHERE run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)"
        rows = self.rows(f"{query} AND experiment_id = ? ORDER BY start_time, run_uuid", tag, value, int(experiment_id))
        return None if rows is None else self._with_tags(rows)

    def rows(self, query: str, *values: str | int) -> list[tuple[Any, ...]] | None:
        """Return the rows that a query of MLflow's tables finds.

        Args:
            query: one SELECT.
            values: of its question marks.
        """
        if self._connection is None and not self._open():
            return None
        assert self._connection is not None
        with suppress(sqlite3.Error):
            return self._connection.execute(query, values).fetchall()
        return None

    def flush(self) -> None:
        """Flush to the disk what any process has committed; SQLite itself does so before it empties the log."""
        log = Path(f"{self.uri.removeprefix(SCHEME)}-wal")
        if not self.uri.startswith(SCHEME):
            return
        with suppress(FileNotFoundError):
            number = os.open(log, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)

    def _with_tags(self, rows: Sequence[tuple[Any, ...]]) -> list[Run] | None:
        from mlflow.entities import Run, RunData, RunInfo, RunTag

        found = []
        for run_id, experiment_id, user, status, start, end, stage, artifacts, name in rows:
            tags = self.rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id)
            if tags is None:
                return None
            info = RunInfo(
                run_id=run_id, experiment_id=str(experiment_id), user_id=user, status=status, start_time=start,
                end_time=end, lifecycle_stage=stage, artifact_uri=artifacts, run_name=name,
            )  # fmt: skip
            found.append(Run(info, RunData(tags=[RunTag(key, value) for key, value in tags])))
        return found

    def _open(self) -> bool:
        database = Path(self.uri.removeprefix(SCHEME))
        if not self.uri.startswith(SCHEME) or not database.is_absolute():
            return False
        with suppress(sqlite3.Error, ValueError):
            connection = sqlite3.connect(
                f"{database.as_uri()}?mode=rw", uri=True, timeout=WAIT_SECONDS, isolation_level=None,
                check_same_thread=False,
            )  # fmt: skip
            weakref.finalize(self, connection.close)
            self._connection = connection
        return self._connection is not None
