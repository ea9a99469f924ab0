"""How an attempt ended that no driver heard of: its worker has left the end beside its checkpoints and in its run."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.ledger.records import JobRecord
from orchestrator.settings import Settings
from schemas.errors import StoreError
from schemas.results import JobResult
from workers.checkpoints.ending import read_end
from workers.checkpoints.layout import path_below
from workers.checkpoints.published import MISSING, damage

FindEnd = Callable[[JobRecord], JobResult | None]
"""Returns how the last attempt of a job ended; None if it did not end, or left no trace of it."""


def find_end(settings: Settings, record: JobRecord) -> JobResult | None:
    """Return how the last attempt of a job ended; None if it did not end, or left no trace of it.

    An end counts as none, so that the job runs again from its last whole checkpoint, if the store cannot give it now,
    or if the final checkpoint was damaged since.

    Args:
        settings: Names the store and the folders.
        record: The job.

    Raises:
        StoreError: the final checkpoint cannot be read now, for a reason that can be repaired.
    """
    here = read_end(settings.checkpoint_dir, record.key, record.attempt)
    if here is not None:
        return None if _damage(settings, here) else here
    end = _end_in_run(settings, record)
    # The final checkpoint of another machine's worker is missing here; its copy is in the run.
    return None if end is None or _damage(settings, end) not in ("", MISSING) else end


def _damage(settings: Settings, end: JobResult) -> str:
    """Return what is wrong with the checkpoint that an attempt ended with; empty if nothing is, or there is none.

    Raises:
        StoreError: it cannot be read now, for a reason that can be repaired.
    """
    if end.checkpoint is None:
        return ""
    path = path_below(settings.checkpoint_dir, end.job_key, end.checkpoint)
    try:
        return damage(end.checkpoint.model_copy(update={"path": str(path)}))
    except OSError as error:
        raise StoreError(
            f"The final checkpoint {path} cannot be read ({error.strerror or error}). "
            "Repair its permissions or its disk, then run `orch resume`."
        ) from error


def _end_in_run(settings: Settings, record: JobRecord) -> JobResult | None:
    """Look in the job's run, where the workers of other machines leave it too."""
    from workers.tracking.run_log import RunLog

    try:
        return RunLog(settings.store_uri, record.run_id).fetch_end(record.key, record.attempt)
    except StoreError:
        return None
