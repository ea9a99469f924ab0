"""How a checkpoint is found and read back: verified, never another job's, and without running code from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from typing import Any

import torch

from schemas.errors import CheckpointError
from schemas.results import CheckpointPointer
from workers.checkpoints.layout import file_name, path_below
from workers.checkpoints.published import is_whole

Fetch = Callable[[CheckpointPointer, Path], Path | None]
"""Returns the file of a final checkpoint that its run has: in place, or downloaded into a folder; None if it has none.
"""


def find_checkpoint(pointer: CheckpointPointer, root: Path, job_key: str, fetch: Fetch) -> CheckpointPointer:
    """Find another job's checkpoint: at its recorded path, below `root`, in its run, or else fetched from there.

    An attempt's own file is below `root` as long as the run's was not seen to be whole.

    Args:
        pointer: the checkpoint as the other job recorded it.
        root: the folder of all checkpoints on this machine.
        job_key: key of the other job.
        fetch: called only if no whole file is found.

    Returns:
        A pointer to the file found; `pointer` itself if none is found and no copy exists.
    """
    here = pointer.model_copy(update={"path": str(path_below(root, job_key, pointer))})
    name = file_name(pointer.epoch, pointer.step, pointer.sha256)
    left = (pointer.model_copy(update={"path": str(path)}) for path in (root / job_key).glob(f"*/{name}"))
    for place in (pointer, here, *left):
        if is_whole(place):
            return place
    root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root, prefix=".fetched-") as scratch:
        fetched = fetch(pointer, Path(scratch))
        if fetched is None:
            return pointer
        if not fetched.is_relative_to(scratch):
            return pointer.model_copy(update={"path": str(fetched)})
        Path(here.path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(fetched, here.path)
    return here


def load_checkpoint(pointer: CheckpointPointer, job_key: str) -> dict[str, Any]:
    """Load the state of one checkpoint onto the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, unreadable for torch, or belongs to another job.
    """
    if not is_whole(pointer):
        raise CheckpointError(
            f"The checkpoint {pointer.path} of job {job_key} is missing, or its content is not what was written "
            f"(SHA-256 {pointer.sha256[:12]}... expected). Put the file back, or run `orch fsck --repair`, or delete "
            "the job's run in `orch ui`: the next sweep then runs it again."
        )
    try:
        state: dict[str, Any] = torch.load(pointer.path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, LookupError, EOFError, UnpicklingError) as error:
        raise CheckpointError(
            f"The checkpoint {pointer.path} of job {job_key} has the content that was written, but torch cannot read "
            f"it ({error!r}). Another version of torch may have written it. Delete the folder to start the job afresh."
        ) from error
    if state["job_key"] != job_key:
        raise CheckpointError(
            f"The checkpoint {pointer.path} belongs to job {state['job_key']}, not {job_key}. "
            "Two jobs share a folder; give each sweep's ORCH_HOME its own checkpoint folder."
        )
    return state
