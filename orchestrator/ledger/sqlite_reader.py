"""Looks into the embedded store without MLflow, whose import alone takes longer than `orch status` may.

The store stays MLflow's: this only reads, in one transaction, the tags that the ledger writes through it. Where the
database is not as expected, nothing is guessed; the ledger then reads the same through MLflow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from orchestrator.ledger.base import LedgerReader, newest_first, records_of
from orchestrator.ledger.records import JobRecord, JobRun, StoredPlan, SweepRecord
from orchestrator.ledger.store import BUSY_SECONDS, EXPERIMENT
from orchestrator.ledger.store_version import check_database
from orchestrator.ledger.tags import (
    JOB_TAGS,
    PLAN_FILE,
    SWEEP_TAGS,
    has_begun,
    job_record,
    read_plan,
    sweep_record,
    unusable_plan,
)
from orchestrator.settings import Settings
from schemas.errors import StoreError

_RUNS = """
    SELECT run_uuid, name, status, artifact_uri FROM runs
    WHERE lifecycle_stage = 'active' AND experiment_id = (SELECT experiment_id FROM experiments WHERE name = ?)
    AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'orch.kind' AND value = ?)
    ORDER BY start_time, run_uuid
"""
FEW = 500
"""Runs that are quicker looked up one by one than found among all."""


class _Row(NamedTuple):
    run_id: str
    name: str
    status: str
    artifacts: str
    tags: dict[str, str]


def glance(settings: Settings) -> LedgerReader | None:
    """A reader of the embedded store; None where there is none, or where only MLflow can say what it holds."""
    database = settings.database
    if database is None or not database.is_file():
        return None
    reader = SqliteReader(database)
    try:
        reader.check_version()
        reader.sweeps()
    except (sqlite3.Error, KeyError, ValueError):
        return None
    return reader


@dataclass(frozen=True)
class SqliteReader:
    database: Path

    def jobs(self, keys: Collection[str] | None = None) -> dict[str, JobRecord]:
        records = records_of(job_run(row) for row in self._read("job", JOB_TAGS))
        return {key: record for key, record in records.items() if keys is None or key in keys}

    def sweep(self, name: str) -> SweepRecord | None:
        return next((sweep for sweep in self.sweeps() if sweep.name == name), None)

    def sweeps(self) -> list[SweepRecord]:
        rows = self._read("sweep", SWEEP_TAGS)
        return newest_first(sweep_record(row.run_id, row.tags, partial(_read_plan, row)) for row in rows)

    def _read(self, kind: str, names: Collection[str]) -> list[_Row]:
        with self._transaction() as connection:
            found = connection.execute(_RUNS, (EXPERIMENT, kind))
            rows = {row[0]: _Row(row[0], row[1] or "", row[2], row[3], {}) for row in found}
            wanted, values = f"key IN ({_marks(names)})", [*names]
            if len(rows) <= FEW:
                wanted, values = f"run_uuid IN ({_marks(rows)}) AND {wanted}", [*rows, *names]
            query = f"SELECT run_uuid, key, value FROM tags WHERE {wanted}"
            for run_id, name, value in connection.execute(query, values):
                if run_id in rows:
                    rows[run_id].tags[name] = value
        return sorted(rows.values(), key=lambda row: not has_begun(row.tags))  # as the ledger has them

    def check_version(self) -> None:
        """
        Raises:
            StoreError: the store is of another version than this orch or its MLflow.
        """
        with self._transaction() as connection:
            check_database(self.database, connection)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        uri = f"{self.database.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            yield connection


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))


def job_run(row: _Row) -> JobRun:
    try:
        record, problem = job_record(row.run_id, row.tags), ""
    except StoreError as error:
        record, problem = None, str(error)
    return JobRun(row.run_id, row.tags.get("orch.job_key", ""), row.name, row.status, record, problem)


def _read_plan(row: _Row) -> StoredPlan:
    parts = urlsplit(row.artifacts)
    path = Path(unquote(parts.path) if parts.scheme == "file" else row.artifacts) / PLAN_FILE
    try:
        content = path.read_bytes()
    except OSError:
        raise unusable_plan(row.tags["orch.sweep"], row.artifacts, "gone") from None
    return read_plan(content, row.tags, row.artifacts)
