"""A job's checkpoints on disk: whole or absent, verified when read, never another job's or a replaced attempt's."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import torch

from schemas.errors import CheckpointError, StoreError
from schemas.results import CheckpointPointer
from workers.checkpoints import fencing

POINTERS = "newest*.json"
"""An attempt's pointer, `newest-attempt-2.json`, names its files that count, newest first; a file that it does not
name was never published. That of the latest attempt is the job's. Older versions kept one `newest.json`."""
HOLDERS = "holder-attempt-*.json"
"""Which process works on an attempt; gone when that has ended in order."""
TAKE_OVER_TRIES = 5

Fetch = Callable[[Path], Path | None]
"""Brings the copy of a checkpoint into a folder; None where there is no copy."""


@dataclass(frozen=True)
class Taken:
    """What an attempt found of those before it."""

    checkpoint: CheckpointPointer | None
    """The newest that is whole."""
    problems: tuple[str, ...] = ()
    """A sentence for each checkpoint that is not, and for each process that had to be ended."""


@dataclass(frozen=True)
class CheckpointStore:
    """`<root>/<job_key>/epoch-0007-step-0000-attempt-2-<digest>.pt`, the newest and the one before it, and the pointer.

    An attempt writes only files that bear its own number and deletes none of a later one. What it goes on from it
    first takes over under its own number, so an attempt that was taken for dead and wakes up can neither replace nor
    remove anything of the one that took its place.
    """

    root: Path
    job_key: str
    attempt: int = 1

    @property
    def folder(self) -> Path:
        return self.root / self.job_key

    @property
    def pointer(self) -> Path:
        return self.folder / f"newest-attempt-{self.attempt}.json"

    @property
    def holder(self) -> Path:
        return self.folder / f"holder-attempt-{self.attempt}.json"

    def take_over(self) -> Taken:
        """Become the attempt whose checkpoints count, and go on from what earlier ones published.

        Earlier attempts' processes are ended if they are still on this machine.

        Raises:
            Superseded: a later attempt has the job.
            StoreError: the folder cannot be read or written.
        """
        problems: list[str] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            problems += self._end_earlier_holders()
            self.check()
            _write_text(_partial(self.holder), self.holder, fencing.holder_text())
            taken = self._take_newest(problems)
        except OSError as error:
            raise self._unwritable(error) from error
        return Taken(taken[0] if taken else None, tuple(problems))

    def _end_earlier_holders(self) -> Iterator[str]:
        for path in sorted(self.folder.glob(HOLDERS)):
            if _attempt_of(path) <= self.attempt and (pid := fencing.end_holder(path)) is not None:
                yield f"Process {pid} still worked on attempt {_attempt_of(path)}: it was ended."

    def _problems_of(self, rows: Iterable[CheckpointPointer]) -> Iterator[str]:
        if (pointer := self._latest_pointer()) is not None and _rows_of(pointer) is None:
            yield f"{pointer} is damaged: checkpoints were found by the digests in their names."
        for row in rows:
            if problem := damage(row):
                yield f"The checkpoint {row.path} {problem}: the one before it is used, if there is one."

    def _take_newest(self, problems: list[str]) -> list[CheckpointPointer]:
        for left in reversed(range(TAKE_OVER_TRIES)):
            rows = self._published()
            found = list(self._problems_of(rows))
            try:
                taken = [self._under_own_number(row) for row in rows if is_whole(row)]
            except FileNotFoundError:  # its attempt still runs, on another machine, and has just replaced it
                if left:
                    continue
                raise
            problems += found
            self._publish(taken)
            return taken
        return []

    def _under_own_number(self, row: CheckpointPointer) -> CheckpointPointer:
        """The same file under a second name; a copy where the disk cannot do that."""
        path = self.folder / re.sub(r"-attempt-\d+", f"-attempt-{self.attempt}", Path(row.path).name)
        if path.name != Path(row.path).name:
            path.unlink(missing_ok=True)
            try:
                os.link(row.path, path)
            except FileNotFoundError:
                raise
            except OSError:
                _copy(Path(row.path), path)
        return row.model_copy(update={"path": str(path.absolute())})

    def check(self) -> None:
        """
        Raises:
            Superseded: a later attempt has taken over.
        """
        latest = max((_attempt_of(path) for path in self.folder.glob(POINTERS)), default=0)
        if latest > self.attempt:
            raise fencing.superseded(self.attempt, f"attempt {latest} has taken over its checkpoints")

    def release(self) -> None:
        """This process works on the attempt no more."""
        with suppress(OSError):
            self.holder.unlink(missing_ok=True)

    def save(self, epoch: int, state: Mapping[str, Any], step: int = 0) -> CheckpointPointer:
        """Write under a new name, publish by renaming the pointer, then delete what no pointer names.

        Args:
            step: batches of the following epoch that are done too.

        Raises:
            Superseded: a later attempt has taken over.
            StoreError: the folder cannot be written.
        """
        try:
            self.check()
            newest = self._write({"job_key": self.job_key, "epoch": epoch, **state}, epoch, step)
            self._publish([newest, *(old for old in self._published() if old.path != newest.path)][:2])
        except OSError as error:
            self.check()  # its files may be gone because it was replaced meanwhile
            raise self._unwritable(error) from error
        return newest

    def keep_newest_only(self) -> None:
        """Delete the checkpoint before the newest: a finished job needs no second chance.

        Raises:
            Superseded: a later attempt has taken over.
        """
        self.check()
        self._publish(self._published()[:1])

    def newest(self) -> CheckpointPointer | None:
        """The newest published checkpoint that is whole on disk, or None."""
        return next((pointer for pointer in self._published() if is_whole(pointer)), None)

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"A checkpoint cannot be written in {self.folder} ({error.strerror or error}). "
            "Make room or repair the permissions there."
        )

    def _write(self, state: dict[str, Any], epoch: int, step: int) -> CheckpointPointer:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"epoch-{epoch:04d}-step-{step:04d}-attempt-{self.attempt}"
        partial = self.folder / f"{name}.partial"
        try:
            with open(partial, "wb") as file:
                _dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            sha256 = _sha256(partial)
            # The digest in its name keeps a second write of an epoch from touching the published file of the first.
            path = partial.with_name(f"{name}-{sha256[:8]}.pt").absolute()
            os.replace(partial, path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)  # a full disk needs the room
            raise
        return CheckpointPointer(path=str(path), epoch=epoch, step=step, sha256=sha256)

    def _published(self) -> list[CheckpointPointer]:
        """What the latest attempt's pointer names, as far as this attempt may know of it.

        Where the pointer itself is damaged: the files whose content is what their names say, newest first.
        """
        pointer = self._latest_pointer()
        if pointer is None:
            return []
        rows = _rows_of(pointer)
        if rows is None:
            return _named_rightly(self.folder)
        # Names, not paths, count: the root may have moved since.
        return [row.model_copy(update={"path": str((self.folder / Path(row.path).name).absolute())}) for row in rows]

    def _latest_pointer(self) -> Path | None:
        pointers = [path for path in self.folder.glob(POINTERS) if _attempt_of(path) <= self.attempt]
        return max(pointers, key=_attempt_of, default=None)

    def _publish(self, pointers: list[CheckpointPointer]) -> None:
        _write_text(_partial(self.pointer), self.pointer, json.dumps([pointer.model_dump() for pointer in pointers]))
        named = {Path(pointer.path).name for pointer in pointers} | {self.pointer.name, self.holder.name}
        for path in self.folder.iterdir():
            if path.name not in named and _attempt_of(path) <= self.attempt:
                path.unlink(missing_ok=True)


def _rows_of(pointer: Path) -> list[CheckpointPointer] | None:
    """What a pointer names; None where it is damaged.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        rows = json.loads(pointer.read_text(encoding="utf-8"))
        return [CheckpointPointer.model_validate(row) for row in rows] if isinstance(rows, list) else None
    except OSError as error:
        raise StoreError(
            f"{pointer}, which names the job's checkpoints, cannot be read ({error.strerror or error}). "
            "Repair its permissions, then run `orch resume`."
        ) from error
    except ValueError:
        return None


def _named_rightly(folder: Path) -> list[CheckpointPointer]:
    found = []
    for path in folder.glob("epoch-*.pt"):
        name = re.fullmatch(r"epoch-(\d+)-step-(\d+)-attempt-\d+-([0-9a-f]{8})\.pt", path.name)
        sha256 = _sha256_if_readable(path) if name else ""
        if name and sha256.startswith(name[3]):
            at = CheckpointPointer(path=str(path.absolute()), epoch=int(name[1]), step=int(name[2]), sha256=sha256)
            found.append(at)
    return sorted(found, key=lambda at: (at.epoch, at.step), reverse=True)[:2]


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
    try:
        state: dict[str, Any] = torch.load(pointer.path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, LookupError, EOFError, UnpicklingError) as error:
        raise CheckpointError(
            f"The checkpoint {pointer.path} of job {job_key} is as it was written, and yet torch cannot read it "
            f"({error!r}). Was it written by another version of torch? Delete the folder to start the job afresh."
        ) from error
    if state["job_key"] != job_key:
        raise CheckpointError(
            f"The checkpoint {pointer.path} belongs to job {state['job_key']}, not {job_key}. "
            "Two jobs share a folder; give each sweep's ORCH_HOME its own checkpoint folder."
        )
    return state


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as read, open(target, "wb") as written:
        shutil.copyfileobj(read, written)
        written.flush()
        os.fsync(written.fileno())


def _dump(state: dict[str, Any], file: BinaryIO) -> None:
    """
    Raises:
        OSError: the file cannot be written; torch's own RuntimeError about it would look like a defect.
    """
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def is_whole(pointer: CheckpointPointer) -> bool:
    return not damage(pointer)


def damage(pointer: CheckpointPointer) -> str:
    """What is wrong with a checkpoint's file; empty where nothing is."""
    try:
        sha256 = _sha256_if_readable(Path(pointer.path))
    except FileNotFoundError:
        return "is missing"
    if not sha256:
        return "cannot be read: its disk is damaged"
    if sha256 != pointer.sha256:
        return f"is damaged (SHA-256 {sha256[:12]}... instead of {pointer.sha256[:12]}...)"
    return ""


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_if_readable(path: Path) -> str:
    """Empty where the disk cannot read the file any more; what may be repaired (permissions, a network) is an error."""
    try:
        return _sha256(path)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return ""


def _attempt_of(path: Path) -> int:
    """Which attempt wrote a file."""
    found = re.search(r"-attempt-(\d+)", path.name)
    return int(found[1]) if found else 0


def _partial(path: Path) -> Path:
    return path.with_suffix(".partial")


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
