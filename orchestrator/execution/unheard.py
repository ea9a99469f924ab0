"""How an attempt ended that no driver heard of: the worker left it with its checkpoints, in its run and in S3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.ledger.records import JobRecord
from orchestrator.settings import Settings
from schemas.errors import StoreError
from schemas.lifecycle import StopReason
from schemas.results import JobResult
from workers.checkpoints.ending import read_end
from workers.checkpoints.layout import path_below
from workers.checkpoints.published import MISSING, damage, is_whole
from workers.checkpoints.shared import read_shared_end
from workers.objects.base import open_objects

FindEnd = Callable[[JobRecord], JobResult | None]
"""Returns how the last attempt of a job ended; None if it did not end, or left no trace of it."""


def find_end(settings: Settings, record: JobRecord) -> JobResult | None:
    """Return how the last attempt of a job ended; None if it did not end, or left no trace of it.

    An end counts as none, so that the job runs again from its last whole checkpoint, if the store cannot give it now,
    or if the final checkpoint is whole neither here nor in the job's run.

    Args:
        settings: Names the store and the folders.
        record: The job.

    Raises:
        StoreError: the final checkpoint cannot be read now, for a reason that can be repaired.
    """
    here = read_end(settings.checkpoint_dir, record.key, record.attempt)
    end = here or _end_in_run(settings, record) or _end_in_objects(settings, record)
    # The final checkpoint of another machine's worker is missing here, and not fetched from its run to check it.
    unharmed = ("",) if here is not None else ("", MISSING)
    return end if end is not None and (_damage(settings, end) in unharmed or _run_has(settings, record, end)) else None


def _damage(settings: Settings, end: JobResult) -> str:
    """Return what is wrong with the checkpoint that an attempt left here; empty if nothing is, or there is none.

    Raises:
        StoreError: it cannot be read now, for a reason that can be repaired.
    """
    if end.checkpoint is None:
        return ""
    path = path_below(settings.checkpoint_dir, end.job_key, end.checkpoint)
    try:
        return damage(end.checkpoint.model_copy(update={"path": str(path)}))
    except OSError as error:
        raise _unreadable(path, error) from error


def _run_has(settings: Settings, record: JobRecord, end: JobResult) -> bool:
    """Return whether the job's run has the final checkpoint as it was written.

    Raises:
        StoreError: it cannot be read now, for a reason that can be repaired.
    """
    from workers.tracking.outages import briefly_patient
    from workers.tracking.run_log import RunLog

    final = end.checkpoint
    if end.stop_reason is not StopReason.FINISHED or final is None:
        return False
    settings.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.checkpoint_dir, prefix=".fetched-") as folder:
        try:
            kept = briefly_patient(
                lambda: RunLog(settings.store_uri, record.run_id).fetch_checkpoint(final, Path(folder))
            )
        except StoreError:
            return False
        try:
            return kept is not None and is_whole(final.model_copy(update={"path": str(kept)}))
        except OSError as error:
            raise _unreadable(kept, error) from error


def _unreadable(path: Path | None, error: OSError) -> StoreError:
    return StoreError(
        f"The final checkpoint {path} cannot be read ({error.strerror or error}). "
        "Repair its permissions or its disk, then run `orch resume`."
    )


def _end_in_run(settings: Settings, record: JobRecord) -> JobResult | None:
    """Look in the job's run, where the workers of other machines leave it too."""
    from workers.tracking.outages import briefly_patient
    from workers.tracking.run_log import RunLog

    def fetch() -> JobResult | None:
        return RunLog(settings.store_uri, record.run_id).fetch_end(record.key, record.attempt)

    try:
        return briefly_patient(fetch)
    except StoreError:
        return None


def _end_in_objects(settings: Settings, record: JobRecord) -> JobResult | None:
    """Look in the object store, where workers leave it while MLflow is away."""
    if settings.object_store is None:
        return None
    try:
        return read_shared_end(open_objects(settings.object_store, hurried=True), record.key, record.attempt)
    except StoreError:
        return None
