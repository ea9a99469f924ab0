"""Which checkpoints of a job count: those that the latest attempt's pointer lists and whose content is as written."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from schemas.errors import StoreError
from schemas.results import CheckpointPointer
from workers.checkpoints.layout import latest_pointer, parse_file_name
from workers.files import sha256_of

ROWS: TypeAdapter[list[CheckpointPointer]] = TypeAdapter(list[CheckpointPointer])
"""Content of a pointer file."""
MISSING = "is missing"
"""What `damage` returns for a checkpoint without a file."""
KEPT = 2
"""Checkpoints that a running job keeps: the newest, and the one before in case the newest is damaged."""


@dataclass(frozen=True)
class Published:
    """Published checkpoints of a job, newest first, whole or not."""

    checkpoints: tuple[CheckpointPointer, ...] = ()
    damaged_pointer: Path | None = None
    """The pointer, if it is damaged and the checkpoints were found by the digests in their names instead."""

    def problems(self) -> Iterator[str]:
        """Yield a sentence for a damaged pointer and for each damaged checkpoint."""
        if self.damaged_pointer is not None:
            yield f"{self.damaged_pointer} is damaged: checkpoints were found by the digests in their names."
        for checkpoint in self.checkpoints:
            if problem := damage(checkpoint):
                yield f"The checkpoint {checkpoint.path} {problem}: the one before it is used, if there is one."

    def whole(self) -> Iterator[CheckpointPointer]:
        """Yield the checkpoints whose files are as they were written, newest first."""
        return (checkpoint for checkpoint in self.checkpoints if is_whole(checkpoint))


def read_published(job_folder: Path, last: int) -> Published:
    """Read what the latest attempt up to `last` has published.

    Raises:
        StoreError: the pointer cannot be read.
    """
    latest = latest_pointer(job_folder, last)
    if latest is None:
        return Published()
    _, pointer = latest
    try:
        rows = ROWS.validate_json(pointer.read_bytes())
    except OSError as error:
        raise StoreError(
            f"{pointer}, which names the job's checkpoints, cannot be read ({error.strerror or error}). "
            "Repair its permissions, then run `orch resume`."
        ) from error
    except ValueError:
        return Published(tuple(_verified_by_name(pointer.parent)), damaged_pointer=pointer)
    # Only the names count: the root may have moved since.
    here = (row.model_copy(update={"path": str((pointer.parent / Path(row.path).name).absolute())}) for row in rows)
    return Published(tuple(here))


def _verified_by_name(folder: Path) -> list[CheckpointPointer]:
    """Return the newest checkpoints of a folder whose content has the digest in their name."""
    found = []
    for path in folder.glob("*.pt"):
        parsed = parse_file_name(path.name)
        if parsed is None:
            continue
        epoch, step, digest = parsed
        sha256 = _sha256_if_readable(path)
        if sha256.startswith(digest):
            found.append(CheckpointPointer(path=str(path.absolute()), epoch=epoch, step=step, sha256=sha256))
    return sorted(found, key=lambda row: (row.epoch, row.step), reverse=True)[:KEPT]


def is_whole(pointer: CheckpointPointer) -> bool:
    """Return whether a checkpoint's file has the content that was written."""
    return not damage(pointer)


def damage(pointer: CheckpointPointer) -> str:
    """Return what is wrong with a checkpoint's file, as the end of a sentence; empty if nothing is.

    Raises:
        OSError: the file cannot be read for a reason that can be repaired, such as permissions or a network.
    """
    try:
        sha256 = _sha256_if_readable(Path(pointer.path))
    except FileNotFoundError:
        return MISSING
    if not sha256:
        return "cannot be read: its disk is damaged"
    if sha256 != pointer.sha256:
        return f"is damaged (SHA-256 {sha256[:12]}... instead of {pointer.sha256[:12]}...)"
    return ""


def _sha256_if_readable(path: Path) -> str:
    """Return the digest; empty if the disk reports an I/O error. Other errors can be repaired and are raised."""
    try:
        return sha256_of(path)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return ""
