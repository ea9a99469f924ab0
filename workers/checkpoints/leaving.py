"""When a finished attempt deletes its file of the final checkpoint: once the job's run has it, to store it once.

The order makes a kill at any moment harmless: the run keeps the checkpoint, then the end is written beside the
attempt's checkpoints, and only then is the attempt's own file deleted.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from schemas.lifecycle import StopReason
from schemas.results import JobResult
from workers.checkpoints.ending import read_end
from workers.checkpoints.loading import Fetch
from workers.checkpoints.publisher import LOGGER
from workers.checkpoints.store import CheckpointStore
from workers.files import sha256_of


def leave_to_run(store: CheckpointStore, result: JobResult, fetch: Fetch) -> bool:
    """Delete an attempt's file of the final checkpoint if the attempt's end is written and the job's run has it whole.

    Args:
        store: the attempt's checkpoints.
        result: how the attempt ended.
        fetch: fetches the final checkpoint from the run.

    Returns:
        Whether it was deleted.

    Raises:
        Superseded: a later attempt has taken over.
        StoreError: the run cannot be read.
        OSError: the disk cannot be read or written.
    """
    final = result.checkpoint
    if result.stop_reason is not StopReason.FINISHED or final is None:
        return False
    if read_end(store.root, store.job_key, store.attempt) != result:  # the end may be known nowhere
        return False
    own = store.path_of(final)
    if not own.exists():
        return False
    with TemporaryDirectory(dir=store.folder, prefix=".fetched-") as folder:
        kept = fetch(final, Path(folder))
        if kept is None or not (kept.samefile(own) or sha256_of(kept) == final.sha256):
            LOGGER.warning("the final checkpoint stays in %s, because that of the run is not whole", store.folder)
            return False
    store.delete_final()
    return True
