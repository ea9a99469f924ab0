"""Reads the embedded store with SQLite alone, because importing MLflow takes longer than `orch status` may take.

It only reads, in one transaction, the tags that `MlflowLedger` writes. If the database is not as expected, the caller
falls back to MLflow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from orchestrator.ledger.base import LedgerReader
from orchestrator.ledger.database import reading
from orchestrator.ledger.experiment import candidates_of, choose
from orchestrator.ledger.home import Relocation, relocation_of
from orchestrator.ledger.plan_tags import NAMES_PART, PLAN_FILE, PLAN_PART, read_names, read_plan
from orchestrator.ledger.records import (
    JobName,
    JobRecord,
    JobRun,
    Standing,
    StoredPlan,
    SweepRecord,
    newest_first,
    records_of,
    standings_of,
)
from orchestrator.ledger.store_version import check_database
from orchestrator.ledger.tags import (
    DRIVER_TAG,
    JOB_INDEX,
    JOB_TAGS,
    KEY_TAG,
    STANDING_CONDITION,
    STANDING_TAGS,
    STATE_TAG,
    SWEEP_TAGS,
    has_begun,
    job_record,
    sweep_record,
)
from orchestrator.settings import Settings, sqlite_uri
from schemas.errors import StoreError
from schemas.lifecycle import JobState
from workers.tracking.final_checkpoint import folder_of

_RUNS = """
    SELECT run_uuid, name, status, artifact_uri FROM runs
    WHERE lifecycle_stage = 'active' AND experiment_id = ?
    AND run_uuid IN ({among})
    AND EXISTS (SELECT 1 FROM tags WHERE key = 'orch.kind' AND value = ? AND tags.run_uuid = runs.run_uuid)
    ORDER BY start_time, run_uuid
"""
_OF_JOBS = "SELECT run_uuid FROM tags WHERE key = 'orch.kind'"
_WITH_KEYS = f"""
    WITH wanted(job_key) AS (VALUES {{keys}})
    SELECT run_uuid FROM wanted CROSS JOIN tags ON key = '{KEY_TAG}' AND value = job_key
"""
"""Finds the runs of some jobs; SQLite would read the keys of all jobs for a list of values."""
_OF_SWEEPS = "SELECT run_uuid FROM tags WHERE key IN ('orch.jobs', 'orch.profile', 'orch.started_at')"
"""Finds runs that may be those of sweeps by tags that only these have, without a look at every job."""
_STATES = {state.value: state for state in JobState}
FEW = 500
"""Up to this number of runs, selecting runs by key, and tags by run, is faster than reading those of all jobs."""


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
        wanted = None if keys is None else frozenset(keys)
        if wanted is None or len(wanted) > FEW or not self._is_indexed():
            rows = self._read("job", JOB_TAGS, _OF_JOBS)
        else:
            among = _WITH_KEYS.format(keys=", ".join(["(?)"] * len(wanted))) if wanted else "NULL"
            rows = self._read("job", JOB_TAGS, among, wanted)
        records = records_of(_job_run(row, self.here) for row in rows)
        return {key: record for key, record in records.items() if wanted is None or key in wanted}

    def standings(self) -> dict[str, Standing]:
        """See `LedgerReader.standings`."""
        tags: dict[str, dict[str, str]] = {name: {} for name in STANDING_TAGS}
        with reading(self.database) as connection:
            experiment = choose(candidates_of(connection), sqlite_uri(self.database))
            others = "SELECT run_uuid FROM runs WHERE lifecycle_stage <> 'active' OR experiment_id <> ?"
            left_out = {row[0] for row in connection.execute(others, (experiment.experiment_id,))}
            query = f"SELECT key, run_uuid, value FROM tags WHERE {STANDING_CONDITION}"
            for name, run_id, value in connection.execute(query):
                tags[name][run_id] = value
        keys, states, drivers = (
            {run_id: value for run_id, value in tags[name].items() if run_id not in left_out}
            for name in (KEY_TAG, STATE_TAG, DRIVER_TAG)
        )
        try:
            found = {key: Standing(_STATES[states[run_id]], drivers[run_id]) for run_id, key in keys.items()}
        except KeyError:
            return standings_of(self.jobs())
        # Where a job has two runs or a run cannot be read, `jobs` knows which counts, or says what is wrong.
        return found if len(found) == len(states) else standings_of(self.jobs())

    def sweep(self, name: str) -> SweepRecord | None:
        """See `LedgerReader.sweep`."""
        return next((sweep for sweep in self.sweeps() if sweep.name == name), None)

    def sweeps(self) -> list[SweepRecord]:
        """See `LedgerReader.sweeps`."""
        rows = self._read("sweep", SWEEP_TAGS, _OF_SWEEPS)
        return newest_first(
            sweep_record(row.run_id, row.tags, partial(self._read_plan, row), partial(self._read_names, row))
            for row in rows
        )

    def artifact_uri(self, run_id: str) -> str | None:
        """Return where the artifacts of a run are now, as `HomeClient.artifact_uri`; None without such a run."""
        with reading(self.database) as connection:
            row = connection.execute("SELECT artifact_uri FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
        return self.here.uri(row[0]) if row else None

    def _read(self, kind: str, names: Collection[str], among: str, values_among: Collection[str] = ()) -> list[_Row]:
        """Return the runs of a kind with some of their tags.

        Args:
            kind: The kind.
            names: Names of the tags.
            among: A query for the ids of the runs that may be of that kind.
            values_among: The values of its parameters.
        """
        with reading(self.database) as connection:
            experiment = choose(candidates_of(connection), sqlite_uri(self.database))
            query = _RUNS.format(among=among)
            found = connection.execute(query, (experiment.experiment_id, *values_among, kind))
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
        artifacts = self.here.uri(row.artifacts)
        tags = row.tags | self._parts(row, PLAN_PART) | self._parts(row, NAMES_PART)
        return read_plan(tags, self.here, artifacts, lambda: _plan_file(artifacts))

    def _read_names(self, row: _Row) -> tuple[JobName, ...]:
        return read_names(row.tags | self._parts(row, NAMES_PART))

    def _is_indexed(self) -> bool:
        """Whether a job is found by its key; earlier versions of orch made stores without that index."""
        with reading(self.database) as connection:
            return connection.execute(f"SELECT 1 FROM sqlite_master WHERE name = '{JOB_INDEX}'").fetchone() is not None

    def _parts(self, row: _Row, start: str) -> dict[str, str]:
        with reading(self.database) as connection:
            query = f"SELECT key, value FROM tags WHERE run_uuid = ? AND key GLOB '{start}*'"
            return dict(connection.execute(query, (row.run_id,)).fetchall())

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


def _plan_file(artifacts: str) -> bytes | None:
    """Read the file in which an earlier version of orch kept the plan."""
    folder = folder_of(artifacts)
    with suppress(OSError):
        return (folder / PLAN_FILE).read_bytes() if folder else None
    return None
