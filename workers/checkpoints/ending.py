"""How an attempt's end outlasts a driver that does not hear of it: as a file beside the attempt's checkpoints."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from schemas.lifecycle import StopReason
from schemas.results import CheckpointPointer, JobResult
from workers.checkpoints.layout import RESULT, attempt_folder, attempt_folders
from workers.files import write_atomically


def write_end(root: Path, result: JobResult) -> None:
    """Write how an attempt ended. A disk that cannot be written costs the file only: the driver still hears the end.

    Args:
        root: root folder of all checkpoints.
        result: what the worker is about to return.
    """
    folder = attempt_folder(root, result.job_key, result.attempt)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RESULT, result.model_dump_json())


def read_end(root: Path, job_key: str, attempt: int) -> JobResult | None:
    """Return how an attempt ended; None if it did not, or its file cannot be read.

    Args:
        root: root folder of all checkpoints.
        job_key: the job.
        attempt: number of the attempt; the end of another one is not returned.
    """
    try:
        content = (attempt_folder(root, job_key, attempt) / RESULT).read_bytes()
    except OSError:
        return None
    return parse_end(content, job_key, attempt)


def final_of(root: Path, job_key: str, last: int) -> CheckpointPointer | None:
    """Return the final checkpoint of the latest attempt up to `last` that finished; None if none is known here."""
    for attempt in reversed(attempt_folders(root / job_key, last)):
        end = read_end(root, job_key, attempt)
        if end is not None and end.stop_reason is StopReason.FINISHED and end.checkpoint is not None:
            return end.checkpoint
    return None


def parse_end(content: bytes, job_key: str, attempt: int) -> JobResult | None:
    """Return an attempt's end from the content of its file; None if it is damaged or of another attempt."""
    try:
        result = JobResult.model_validate_json(content)
    except ValueError:
        return None
    return result if (result.job_key, result.attempt) == (job_key, attempt) else None
