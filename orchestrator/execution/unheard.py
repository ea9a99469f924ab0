"""How an attempt ended that no driver heard of: its worker has left the end beside its checkpoints and in its run."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.ledger.records import JobRecord
from orchestrator.settings import Settings
from schemas.errors import StoreError
from schemas.results import JobResult
from workers.checkpoints.ending import read_end

FindEnd = Callable[[JobRecord], JobResult | None]
"""Returns how the last attempt of a job ended; None if it did not end, or left no trace of it."""


def find_end(settings: Settings, record: JobRecord) -> JobResult | None:
    """Return how the last attempt of a job ended; None if it did not end, or left no trace of it.

    An end that the store cannot give now counts as none: the job then runs again, from its last checkpoint.

    Args:
        settings: Names the store and the folders.
        record: The job.
    """
    return read_end(settings.checkpoint_dir, record.key, record.attempt) or _end_in_run(settings, record)


def _end_in_run(settings: Settings, record: JobRecord) -> JobResult | None:
    """Look in the job's run, where the workers of other machines leave it too."""
    from workers.tracking.run_log import RunLog

    try:
        return RunLog(settings.store_uri, record.run_id).fetch_end(record.key, record.attempt)
    except StoreError:
        return None
