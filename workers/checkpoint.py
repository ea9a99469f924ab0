"""A job's checkpoints on disk: whole or absent, verified when read, and never another job's."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from schemas.errors import CheckpointError, StoreError
from schemas.results import CheckpointPointer

POINTER = "newest.json"
"""Names the files that count, newest first. A file it does not name was never published."""

Fetch = Callable[[Path], Path | None]
"""Brings the copy of a checkpoint into a folder; None where there is no copy."""


@dataclass(frozen=True)
class CheckpointStore:
    """`<root>/<job_key>/epoch-0007-attempt-2-<digest>.pt`, the newest and the one before it, and the pointer to them.

    An attempt that was taken for dead may still write beside the one that took its place: it leaves files of later
    attempts alone.
    """

    root: Path
    job_key: str
    attempt: int = 1

    @property
    def folder(self) -> Path:
        return self.root / self.job_key

    def save(self, epoch: int, state: Mapping[str, Any]) -> CheckpointPointer:
        """Write under a new name, publish by renaming the pointer, then delete what no pointer names.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            newest = self._write(epoch, {"job_key": self.job_key, "epoch": epoch, **state})
            self._publish([newest, *(old for old in self._published() if old.path != newest.path)][:2])
        except OSError as error:
            raise StoreError(
                f"A checkpoint cannot be written in {self.folder} ({error.strerror or error}). "
                "Make room or mend the permissions there, then run `orch resume`."
            ) from error
        return newest

    def keep_newest_only(self) -> None:
        """Delete the checkpoint before the newest: a finished job needs no second chance."""
        self._publish(self._published()[:1])

    def newest(self) -> CheckpointPointer | None:
        """The newest published checkpoint that is whole on disk, or None."""
        return next((pointer for pointer in self._published() if is_whole(pointer)), None)

    def _write(self, epoch: int, state: dict[str, Any]) -> CheckpointPointer:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"epoch-{epoch:04d}-attempt-{self.attempt}"
        partial = self.folder / f"{name}.partial"
        with open(partial, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        sha256 = _sha256(partial)
        # The digest in its name keeps a second write of an epoch from touching the published file of the first.
        path = partial.with_name(f"{name}-{sha256[:8]}.pt").absolute()
        os.replace(partial, path)
        return CheckpointPointer(path=str(path), epoch=epoch, sha256=sha256)

    def _published(self) -> list[CheckpointPointer]:
        try:
            rows = json.loads((self.folder / POINTER).read_text())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self.folder / POINTER}, which names the job's checkpoints, cannot be read ({error}). "
                "Mend it, or delete the folder to start the job afresh."
            ) from error
        # Names, not paths, count: the root may have moved since.
        return [
            CheckpointPointer.model_validate(row | {"path": str((self.folder / Path(row["path"]).name).absolute())})
            for row in rows
        ]

    def _publish(self, pointers: list[CheckpointPointer]) -> None:
        partial = self.folder / f"newest-attempt-{self.attempt}.partial"
        _write_text(partial, self.folder / POINTER, json.dumps([pointer.model_dump() for pointer in pointers]))
        named = {Path(pointer.path).name for pointer in pointers} | {POINTER}
        for path in self.folder.iterdir():
            if path.name not in named and _attempt_of(path) <= self.attempt:
                path.unlink(missing_ok=True)


def find_checkpoint(pointer: CheckpointPointer, root: Path, job_key: str, fetch: Fetch) -> CheckpointPointer:
    """Another job's checkpoint: where it was left, or below `root` should that have moved, or fetched back to there."""
    here = pointer.model_copy(update={"path": str((root / job_key / Path(pointer.path).name).absolute())})
    for place in (pointer, here):
        if is_whole(place):
            return place
    Path(here.path).parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root, prefix=".fetched-") as scratch:
        fetched = fetch(Path(scratch))
        if fetched is None:
            return pointer
        os.replace(fetched, here.path)
    return here


def load_checkpoint(pointer: CheckpointPointer, job_key: str) -> dict[str, Any]:
    """State of one checkpoint, on the CPU.

    Raises:
        CheckpointError: the file is missing, torn, or belongs to another job.
    """
    if not is_whole(pointer):
        raise CheckpointError(
            f"The checkpoint {pointer.path} of job {job_key} is missing, or its content is not what was written "
            f"(SHA-256 {pointer.sha256[:12]}... expected). Put the file back, or delete the job's run in `orch ui`, "
            "so that the next sweep runs it again."
        )
    state: dict[str, Any] = torch.load(pointer.path, map_location="cpu", weights_only=True)
    if state["job_key"] != job_key:
        raise CheckpointError(
            f"The checkpoint {pointer.path} belongs to job {state['job_key']}, not {job_key}. "
            "Two jobs share a folder; give each sweep's ORCH_HOME its own checkpoint folder."
        )
    return state


def is_whole(pointer: CheckpointPointer) -> bool:
    try:
        return _sha256(Path(pointer.path)) == pointer.sha256
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _attempt_of(path: Path) -> int:
    """Which attempt wrote a file."""
    found = re.search(r"-attempt-(\d+)", path.name)
    return int(found[1]) if found else 0


def _write_text(partial: Path, path: Path, text: str) -> None:
    """A kill at any moment leaves either the old text or the new one, on the disk and not only in its cache."""
    with open(partial, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
