"""Finding the one job that a user names, and what can be asked about it."""

from __future__ import annotations

from contextlib import suppress

from orchestrator.execution.selection import find_jobs, one_job
from orchestrator.ledger import opening, store
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.liveness import Liveness
from orchestrator.ledger.records import JobRecord
from orchestrator.settings import Settings
from schemas.errors import SpecError, StoreError
from schemas.lifecycle import JobState


def find_job(settings: Settings, wanted: str) -> JobRecord:
    """The one job whose key starts with `wanted`, or whose title is or holds it.

    Raises:
        SpecError: no job fits, or several; the message lists them.
    """
    ledger = opening.open_ledger(settings)
    records = ledger.jobs()
    jobs = {key: (record.title, record.sweep) for key, record in records.items()}
    if not find_jobs(wanted, [(key, title) for key, (title, _) in jobs.items()]):
        _refuse_waiting(ledger, wanted)
    return records[one_job(wanted, jobs)]


def is_lost(settings: Settings, record: JobRecord) -> bool:
    """Whether the store has a job in the hands of a driver that there is not."""
    is_held = record.state in (JobState.RUNNING, JobState.QUEUED)
    return is_held and not Liveness(opening.open_ledger(settings))(record.driven_by)


def _refuse_waiting(ledger: Ledger, wanted: str) -> None:
    """
    Raises:
        SpecError: a planned job is meant, of which there is nothing to see yet.
    """
    for sweep in ledger.sweeps():
        with suppress(StoreError):  # a plan that cannot be read
            names = {job.key: job.title for job in sweep.plan.outlines} if sweep.plan else {}
            for key in find_jobs(wanted, names.items())[:1]:
                raise SpecError(
                    f"{names[key]} ({key}) has not begun yet. `orch status {sweep.name}` shows when it does."
                )


def artifact_uri(settings: Settings, record: JobRecord) -> str:
    client = store.open_client(settings)
    with store.reaching(settings.store_uri):
        return str(client.get_run(record.run_id).info.artifact_uri)
