"""How an attempt saves checkpoints: whole or absent, and never over those of an attempt that replaced it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import torch

from schemas.errors import StoreError
from schemas.results import CheckpointPointer
from workers.checkpoints import fencing
from workers.checkpoints.ending import final_of
from workers.checkpoints.layout import HOLDER, POINTER, attempt_folder, attempt_folders, file_name, latest_pointer
from workers.checkpoints.loading import Fetch
from workers.checkpoints.published import KEPT, ROWS, Published, is_whole, read_published
from workers.files import flush_folder, link_or_copy, open_atomically, sha256_of, write_atomically

TAKE_OVER_TRIES = 5


@dataclass(frozen=True)
class Taken:
    """What an attempt found of earlier attempts."""

    checkpoint: CheckpointPointer | None
    """The newest whole checkpoint, now in this attempt's folder."""
    problems: tuple[str, ...] = ()
    """One sentence for each damaged file and for each process that had to be killed."""


@dataclass(frozen=True)
class CheckpointStore:
    """Checkpoints of one attempt of a job, in `<root>/<job_key>/attempt-<n>/`.

    The folder holds the newest checkpoint, the one before it, and the pointer that publishes them. An attempt writes
    only to its own folder and deletes only from its own and earlier ones; the pointer of the latest attempt counts. A
    new attempt first takes over what it resumes from, so a replaced attempt that wakes up can neither replace nor
    delete any of its successor's files.
    """

    root: Path
    job_key: str
    attempt: int = 1

    @property
    def job_folder(self) -> Path:
        """Folder of all attempts of the job."""
        return self.root / self.job_key

    @property
    def folder(self) -> Path:
        """Folder of this attempt."""
        return attempt_folder(self.root, self.job_key, self.attempt)

    @property
    def pointer(self) -> Path:
        """File that lists this attempt's published checkpoints."""
        return self.folder / POINTER

    @property
    def holder(self) -> Path:
        """File that names the process working on this attempt."""
        return self.folder / HOLDER

    def take_over(self, fetch_final: Fetch | None = None) -> Taken:
        """Make this the attempt whose checkpoints count, starting with those that earlier attempts published.

        Processes of earlier attempts are killed if they still run on this machine.

        Args:
            fetch_final: fetches the final checkpoint from the job's run. Called if an earlier attempt finished, so that
                only the run still has it.

        Raises:
            Superseded: a later attempt has the job.
            StoreError: the folder cannot be read or written.
        """
        problems: list[str] = []
        with self._writing():
            problems += self._kill_earlier_holders()
            self.check()
            holder = fencing.Holder.of_this_process().model_dump_json()
            write_atomically(self.holder, holder, flush=False)  # after a power cut it names no process
            found, taken = self._copy_published()
            problems += found
            if not taken and fetch_final is not None:
                final = final_of(self.root, self.job_key, self.attempt)
                restored = self.restore(final, fetch_final) if final is not None else None
                taken = [restored] if restored is not None else []
            self._publish(taken)
        return Taken(taken[0] if taken else None, tuple(problems))

    def check(self) -> None:
        """Check that no later attempt has taken over.

        Raises:
            Superseded: a later attempt has.
        """
        latest = latest_pointer(self.job_folder)
        if latest is not None and latest[0] > self.attempt:
            raise fencing.superseded(self.attempt, f"attempt {latest[0]} has taken over its checkpoints")

    def save(self, epoch: int, state: Mapping[str, Any], step: int = 0) -> CheckpointPointer:
        """Write a checkpoint to a new file, publish it by replacing the pointer, then delete unpublished files.

        Args:
            epoch: completed epochs.
            state: what `load_checkpoint` is to return, with the epoch and the job's key added.
            step: completed batches of the following epoch.

        Raises:
            Superseded: a later attempt has taken over.
            StoreError: the folder cannot be written.
        """
        with self._writing():
            self.check()
            newest = self._write({"job_key": self.job_key, "epoch": epoch, **state}, epoch, step)
        self.receive(newest)
        return newest

    def receive(self, checkpoint: CheckpointPointer) -> None:
        """Publish a whole checkpoint that lies in this attempt's folder, as the newest.

        Raises:
            Superseded: a later attempt has taken over.
            StoreError: the folder cannot be written.
        """
        with self._writing():
            self.check()
            earlier = (old for old in self._published().checkpoints if old.path != checkpoint.path)
            self._publish([checkpoint, *earlier][:KEPT])

    def restore(self, final: CheckpointPointer, fetch: Fetch) -> CheckpointPointer | None:
        """Put the final checkpoint of an earlier attempt, fetched from the job's run, into this attempt's folder.

        Returns:
            Where it is now; None if the run does not have it whole.

        Raises:
            OSError: the folder cannot be written.
        """
        target = self.path_of(final)
        with TemporaryDirectory(dir=self.folder, prefix=".fetched-") as scratch:
            fetched = fetch(final, Path(scratch))
            if fetched is None or not is_whole(final.model_copy(update={"path": str(fetched)})):
                return None
            with open(fetched, "rb") as file:
                os.fsync(file.fileno())  # publishing deletes what tells that the run has it
            link_or_copy(fetched, target, flush_name=False)  # publishing flushes the folder
        return final.model_copy(update={"path": str(target)})

    def path_of(self, checkpoint: CheckpointPointer) -> Path:
        """Return where this attempt keeps a checkpoint."""
        return (self.folder / file_name(checkpoint.epoch, checkpoint.step, checkpoint.sha256)).absolute()

    def delete_final(self) -> None:
        """Delete the final checkpoint, which the job's run has. How the attempt ended is kept.

        Raises:
            Superseded: a later attempt has taken over.
            OSError: the folder cannot be written.
        """
        self.check()
        write_atomically(self.pointer, ROWS.dump_json([]))
        for path in self.folder.glob("*.pt"):
            path.unlink(missing_ok=True)

    def keep_newest_only(self) -> None:
        """Delete the checkpoint before the newest: a finished job does not need it.

        Raises:
            Superseded: a later attempt has taken over.
            StoreError: the folder cannot be written.
        """
        with self._writing():
            self.check()
            published = self._published().checkpoints
            if len(published) > 1:
                self._publish(list(published[:1]))

    def newest(self) -> CheckpointPointer | None:
        """Return the newest published checkpoint whose file is whole, or None."""
        return next(self._published().whole(), None)

    def release(self) -> None:
        """Record that this process no longer works on the attempt."""
        with suppress(OSError):
            self.holder.unlink(missing_ok=True)

    def _published(self) -> Published:
        return read_published(self.job_folder, self.attempt)

    def _kill_earlier_holders(self) -> Iterator[str]:
        for attempt, folder in attempt_folders(self.job_folder, self.attempt).items():
            if (pid := fencing.end_holder(folder / HOLDER)) is not None:
                yield f"Process {pid} was still working on attempt {attempt} and was killed."

    def _copy_published(self) -> tuple[list[str], list[CheckpointPointer]]:
        """Copy the whole checkpoints that count into this attempt's folder; return the problems and the copies."""
        for _ in range(TAKE_OVER_TRIES - 1):
            with suppress(FileNotFoundError):  # its attempt still runs on another machine and has just replaced it
                return self._try_to_copy()
        return self._try_to_copy()

    def _try_to_copy(self) -> tuple[list[str], list[CheckpointPointer]]:
        published = self._published()
        return list(published.problems()), [self._copy(checkpoint) for checkpoint in published.whole()]

    def _copy(self, checkpoint: CheckpointPointer) -> CheckpointPointer:
        """Add a hard link in this attempt's folder, or a copy if the file system has no hard links."""
        source = Path(checkpoint.path)
        target = (self.folder / source.name).absolute()
        if target != source:
            link_or_copy(source, target, flush_name=False)  # publishing flushes the folder
        return checkpoint.model_copy(update={"path": str(target)})

    def _write(self, state: dict[str, Any], epoch: int, step: int) -> CheckpointPointer:
        written = self.folder / file_name(epoch, step, "")
        with open_atomically(written, flush_name=False) as file:  # publishing flushes the folder
            _save_state(state, file)
        sha256 = sha256_of(written)
        # With the digest in its name, a second checkpoint of the same step cannot replace the published first one.
        path = (self.folder / file_name(epoch, step, sha256)).absolute()
        os.replace(written, path)
        return CheckpointPointer(path=str(path), epoch=epoch, step=step, sha256=sha256)

    def _publish(self, checkpoints: list[CheckpointPointer]) -> None:
        """Replace the pointer, then delete everything else of this attempt and of earlier ones."""
        is_first = not self.pointer.exists()
        write_atomically(self.pointer, ROWS.dump_json(checkpoints))
        if is_first:
            flush_folder(self.job_folder)  # a power cut must not lose a new folder after the older ones are deleted
        kept = {Path(checkpoint.path).name for checkpoint in checkpoints} | {POINTER, HOLDER}
        for attempt, folder in attempt_folders(self.job_folder, self.attempt).items():
            _delete_files(folder, keep=kept if attempt == self.attempt else set())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise what an OSError means: that a later attempt has taken over, or that the folder cannot be written."""
        try:
            yield
        except OSError as error:
            self.check()  # a successor may have deleted the files meanwhile
            raise StoreError(
                f"A checkpoint cannot be written in {self.folder} ({error.strerror or error}). "
                "Make room or repair the permissions there."
            ) from error


def _delete_files(folder: Path, keep: set[str]) -> None:
    """Delete the files of a folder except `keep`, and the folder itself if that leaves it empty.

    A superseded attempt on another machine may be writing to its folder or a second successor deleting it meanwhile.
    """
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path.name in keep:
                continue
            if path.is_dir():  # left by a process that was killed while it fetched a file
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _save_state(state: dict[str, Any], file: BinaryIO) -> None:
    """Write a state to a file.

    Raises:
        OSError: the file cannot be written; torch raises a RuntimeError instead, which would look like a defect.
    """
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
