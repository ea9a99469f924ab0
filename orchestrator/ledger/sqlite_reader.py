"""Reads the embedded store with SQLite alone, because importing MLflow takes longer than `orch status` may take.

It only reads, in one transaction, the tags that `MlflowLedger` writes. If the database is not as expected, the caller
falls back to MLflow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from orchestrator.ledger.base import LedgerReader
from orchestrator.ledger.database import reading
from orchestrator.ledger.experiment import candidates_of, choose
from orchestrator.ledger.home import Relocation, relocation_of
from orchestrator.ledger.records import JobRecord, JobRun, StoredPlan, SweepRecord, newest_first, records_of
from orchestrator.ledger.store_version import check_database
from orchestrator.ledger.tags import (
    JOB_TAGS,
    KEY_TAG,
    PLAN_FILE,
    PLAN_PART,
    SWEEP_TAGS,
    has_begun,
    job_record,
    read_plan,
    sweep_record,
)
from orchestrator.settings import Settings, sqlite_uri
from schemas.errors import StoreError

_RUNS = """
    SELECT run_uuid, name, status, artifact_uri FROM runs
    WHERE lifecycle_stage = 'active' AND experiment_id = ?
    AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'orch.kind' AND value = ?)
    ORDER BY start_time, run_uuid
"""
FEW = 500
"""Up to this number of runs, selecting tags by run is faster than selecting them by name alone."""


class _Row(NamedTuple):
    run_id: str
    name: str
    status: str
    artifacts: str
    tags: dict[str, str]


def open_sqlite_reader(settings: Settings) -> LedgerReader | None:
    """Return a reader of the embedded store, or None if there is no such store or only MLflow can read it.

    Raises:
        NoExperiment: No sweep was begun in the store yet.
        StoreError: The store is of another version, belongs to another home, or was deleted, or the tags of a sweep
            cannot be read.
    """
    database = settings.database
    if database is None or not database.is_file():
        return None
    reader = SqliteReader(database, relocation_of(settings))
    try:
        reader.check_version()
        reader.sweeps()
    except (sqlite3.Error, KeyError, ValueError):
        return None
    return reader


@dataclass(frozen=True)
class SqliteReader:
    """The contract of `LedgerReader` on MLflow's database file."""

    database: Path
    here: Relocation
    """Finds recorded paths."""

    def jobs(self, keys: Collection[str] | None = None) -> dict[str, JobRecord]:
        """See `LedgerReader.jobs`."""
        records = records_of(_job_run(row, self.here) for row in self._read("job", JOB_TAGS))
        return {key: record for key, record in records.items() if keys is None or key in keys}

    def sweep(self, name: str) -> SweepRecord | None:
        """See `LedgerReader.sweep`."""
        return next((sweep for sweep in self.sweeps() if sweep.name == name), None)

    def sweeps(self) -> list[SweepRecord]:
        """See `LedgerReader.sweeps`."""
        rows = self._read("sweep", SWEEP_TAGS)
        return newest_first(sweep_record(row.run_id, row.tags, partial(self._read_plan, row)) for row in rows)

    def artifact_uri(self, run_id: str) -> str | None:
        """Return where the artifacts of a run are now, as `HomeClient.artifact_uri`; None without such a run."""
        with reading(self.database) as connection:
            row = connection.execute("SELECT artifact_uri FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
        return self.here.uri(row[0]) if row else None

    def _read(self, kind: str, names: Collection[str]) -> list[_Row]:
        with reading(self.database) as connection:
            experiment = choose(candidates_of(connection), sqlite_uri(self.database))
            found = connection.execute(_RUNS, (experiment.experiment_id, kind))
            rows = {row[0]: _Row(row[0], row[1] or "", row[2], row[3], {}) for row in found}
            wanted, values = f"key IN ({_marks(names)})", [*names]
            if len(rows) <= FEW:
                wanted, values = f"run_uuid IN ({_marks(rows)}) AND {wanted}", [*rows, *names]
            query = f"SELECT run_uuid, key, value FROM tags WHERE {wanted}"
            for run_id, name, value in connection.execute(query, values):
                if run_id in rows:
                    rows[run_id].tags[name] = value
        return sorted(rows.values(), key=lambda row: not has_begun(row.tags))  # as in MlflowLedger

    def _read_plan(self, row: _Row) -> StoredPlan:
        with reading(self.database) as connection:
            query = f"SELECT key, value FROM tags WHERE run_uuid = ? AND key GLOB '{PLAN_PART}*'"
            parts = dict(connection.execute(query, (row.run_id,)).fetchall())
        artifacts = self.here.uri(row.artifacts)
        return read_plan(row.tags | parts, self.here, artifacts, lambda: _plan_file(artifacts))

    def check_version(self) -> None:
        """Check the versions of the database and of its tags.

        Raises:
            StoreError: They are not those of this orch and its MLflow.
        """
        with reading(self.database) as connection:
            check_database(self.database, connection)


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))


def _job_run(row: _Row, here: Relocation) -> JobRun:
    try:
        record, problem = job_record(row.run_id, row.tags, here), ""
    except StoreError as error:
        record, problem = None, str(error)
    return JobRun(row.run_id, row.tags.get(KEY_TAG, ""), row.name, row.status, record, problem)


def folder_of(artifacts: str) -> Path:
    """Return the folder that the URI of artifacts in the embedded store names."""
    parts = urlsplit(artifacts)
    return Path(unquote(parts.path) if parts.scheme == "file" else artifacts)


def _plan_file(artifacts: str) -> bytes | None:
    """Read the file in which an earlier version of orch kept the plan."""
    try:
        return (folder_of(artifacts) / PLAN_FILE).read_bytes()
    except OSError:
        return None
