"""Finds the one job that a user names, and where its files are."""

from __future__ import annotations

from contextlib import suppress

from orchestrator.execution.selection import find_jobs, one_job
from orchestrator.ledger import opening, store
from orchestrator.ledger.base import LedgerReader
from orchestrator.ledger.liveness import Liveness
from orchestrator.ledger.records import JobRecord
from orchestrator.ledger.sqlite_reader import SqliteReader
from orchestrator.settings import Settings
from schemas.errors import SpecError, StoreError
from schemas.lifecycle import JobState


def find_job(settings: Settings, wanted: str) -> JobRecord:
    """The one job whose key starts with `wanted`, or whose title is `wanted` or contains its words.

    Raises:
        SpecError: the name is unknown or ambiguous; the message lists the candidates.
    """
    ledger = opening.open_reader(settings)
    records = ledger.jobs()
    jobs = {key: (record.title, record.sweep) for key, record in records.items()}
    if not find_jobs(wanted, [(key, title) for key, (title, _) in jobs.items()]):
        _refuse_waiting(ledger, wanted)
    return records[one_job(wanted, jobs)]


def is_lost(settings: Settings, record: JobRecord) -> bool:
    """Whether a job is recorded as running, but its driver is dead."""
    is_held = record.state in (JobState.RUNNING, JobState.QUEUED)
    return is_held and not Liveness(opening.open_reader(settings))(record.driven_by)


def _refuse_waiting(ledger: LedgerReader, wanted: str) -> None:
    """Check that `wanted` does not name a job that is planned and has not started.

    Raises:
        SpecError: it does.
    """
    for sweep in ledger.sweeps():
        with suppress(StoreError):  # a plan that cannot be read
            names = {job.key: job.title for job in sweep.outlines}
            for key in find_jobs(wanted, names.items())[:1]:
                raise SpecError(f"{names[key]} ({key}) has not begun yet. `orch status {sweep.name}` shows its state.")


def artifact_uri(settings: Settings, record: JobRecord) -> str:
    """URI of the folder that holds the files of a job's MLflow run.

    Raises:
        StoreError: the store cannot be read.
    """
    reader = opening.open_reader(settings)
    if isinstance(reader, SqliteReader) and (found := reader.artifact_uri(record.run_id)):
        return found  # without importing MLflow, which takes seconds
    client = store.open_client(settings)
    with store.reaching(settings.store_uri):
        return client.artifact_uri(record.run_id)
