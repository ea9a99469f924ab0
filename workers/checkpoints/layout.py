"""Where a job's checkpoints lie: one folder per attempt, and in it a pointer to the files that count."""

from __future__ import annotations

from pathlib import Path

from schemas.results import CheckpointPointer

POINTER = "newest.json"
"""File in an attempt's folder that lists its published checkpoints, newest first."""
HOLDER = "holder.json"
"""File in an attempt's folder that names the process working on it; deleted when the process ends in order."""
RESULT = "result.json"
"""File in an attempt's folder that says how the attempt ended."""

_PREFIX = "attempt-"


def attempt_folder(root: Path, job_key: str, attempt: int) -> Path:
    """Return the folder that one attempt, and no other, writes to."""
    return root / job_key / f"{_PREFIX}{attempt}"


def attempt_folders(job_folder: Path, last: int | None = None) -> dict[int, Path]:
    """Return the folders of a job's attempts by number, in ascending order.

    Args:
        last: number of the last attempt to include; None includes all.
    """
    if not job_folder.is_dir():
        return {}
    numbers = {path.name.removeprefix(_PREFIX): path for path in job_folder.iterdir() if path.name.startswith(_PREFIX)}
    found = {int(number): path for number, path in numbers.items() if number.isdigit()}
    return {number: found[number] for number in sorted(found) if last is None or number <= last}


def latest_pointer(job_folder: Path, last: int | None = None) -> tuple[int, Path] | None:
    """Return the latest attempt that has published anything, and its pointer; None if no attempt has.

    Args:
        last: number of the last attempt to consider; None considers all.
    """
    found = attempt_folders(job_folder, last).items()
    return max(((number, folder / POINTER) for number, folder in found if (folder / POINTER).exists()), default=None)


def path_below(root: Path, job_key: str, pointer: CheckpointPointer) -> Path:
    """Return where a job's checkpoint lies if all checkpoints have moved to `root`."""
    recorded = Path(pointer.path)
    return (root / job_key / recorded.parent.name / recorded.name).absolute()


def file_name(epoch: int, step: int, sha256: str) -> str:
    """Return the name of a checkpoint's file; it carries the start of the digest, so that it can be verified alone."""
    return f"epoch-{epoch:04d}-step-{step:04d}-{sha256[:8]}.pt"


def parse_file_name(name: str) -> tuple[int, int, str] | None:
    """Return epoch, step and start of the digest from a checkpoint's file name; None for another kind of name."""
    match name.removesuffix(".pt").split("-"):
        case ["epoch", epoch, "step", step, digest] if epoch.isdigit() and step.isdigit() and len(digest) == 8:
            return int(epoch), int(step), digest
    return None
