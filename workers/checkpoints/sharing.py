"""How an attempt shares checkpoints with other machines: what it fetches at its start, and leaves at its end."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from schemas.errors import StoreError, StoreUnreachable
from schemas.lifecycle import StopReason
from schemas.results import CheckpointPointer, JobResult
from workers.checkpoints.layout import attempt_folders
from workers.checkpoints.loading import Fetch
from workers.checkpoints.publisher import LOGGER, Publisher
from workers.checkpoints.shared import SharedCheckpoints, write_shared_end
from workers.checkpoints.store import CheckpointStore, Taken
from workers.objects.base import open_objects

Answer = TypeVar("Answer")

SHORT_WAIT, LONG_WAIT = 1.0, 10.0
"""Seconds between two tries to reach a store that is away; the wait doubles."""


class Sharing:
    """An attempt's part in the object store."""

    def __init__(self, uri: str, store: CheckpointStore, patience: float, pause: Callable[[float], None]) -> None:
        """Prepare; nothing is sent yet.

        Args:
            uri: URI of the object store.
            store: the attempt's checkpoints on this machine.
            patience: longest outage to wait for, in seconds.
            pause: waits for some seconds; may raise to end the wait.
        """
        self._uri, self._store, self._patience, self._pause = uri, store, patience, pause
        self._shared = SharedCheckpoints(open_objects(uri), store.job_key, store.attempt)
        self._publisher = Publisher(self._shared)

    def delete_unused(self) -> None:
        """Delete what this machine's disk has of attempts whose checkpoints are not to be used.

        Raises:
            StoreUnreachable: the object store was away for longer than `patience`.
        """
        if self._store.attempt == 1:
            return
        last = self._patiently(self._shared.last_unused)
        for folder in attempt_folders(self._store.job_folder, last).values():
            shutil.rmtree(folder, ignore_errors=True)

    def take_over(self, local: Taken, fetch_final: Fetch) -> Taken:
        """Make this the attempt whose shared checkpoints count, and fetch the newest one if this machine has no newer.

        A first attempt begins without a store that is away: there is nothing to fetch.

        Args:
            local: what this machine has.
            fetch_final: fetches the final checkpoint from the job's run.

        Raises:
            Superseded: a later attempt has the job.
            StoreUnreachable: the store was away for longer than `patience`.
            StoreError: the store refuses, or the checkpoint cannot be written here.
        """
        try:
            rows = self._patiently(self._shared.take_over)
            taken = self._patiently(lambda: self._newest(local, rows))
            if taken.checkpoint is None or not _is_newer(taken.checkpoint, local.checkpoint):
                taken = self._patiently(lambda: self._finished(taken, fetch_final))
        except StoreUnreachable:
            if self._store.attempt > 1:
                raise
            return local
        except OSError as error:
            raise StoreError(
                f"A checkpoint cannot be fetched into {self._store.folder} ({error.strerror or error}). "
                "Make room or repair the permissions there."
            ) from error
        if taken.checkpoint is not None and not (rows and not _is_newer(taken.checkpoint, rows[0])):
            self._publisher.offer(taken.checkpoint)
        return taken

    def offer(self, checkpoint: CheckpointPointer) -> None:
        """Have a checkpoint published in the background.

        Raises:
            Superseded: a later attempt has the job.
        """
        self._publisher.offer(checkpoint)

    def conclude(self, result: JobResult, upload_end: Callable[[JobResult], bool]) -> JobResult:
        """Leave behind what others need: the end, and the newest checkpoint unless the job's run has the final one.

        Args:
            result: how the attempt ended.
            upload_end: logs the end to the job's run; returns whether it has.

        Returns:
            The end, with this machine's name if the newest checkpoint is only here.
        """
        if result.stop_reason is StopReason.SUPERSEDED:
            self._publisher.close()
            return result
        if result.stop_reason is not StopReason.FINISHED:
            if not self._publisher.finish():
                LOGGER.warning("the newest checkpoint is on this machine only: the object store was away at the end")
                result = result.model_copy(update={"left_on": socket.gethostname()})
            self._write_end(result)
            upload_end(result)
            return result
        has_ended = self._publisher.join()
        is_known = self._write_end(result) | upload_end(result)
        if has_ended and is_known:
            self._try(self._shared.delete_checkpoints)
        return result

    def _write_end(self, result: JobResult) -> bool:
        objects = open_objects(self._uri, hurried=True)
        return self._try(lambda: write_shared_end(objects, result))

    def _try(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - no error may change how the attempt ended
            LOGGER.warning("the end of this attempt is not in the object store: %s", error)
            return False
        return True

    def _newest(self, local: Taken, rows: tuple[CheckpointPointer, ...]) -> Taken:
        """Return the newest whole checkpoint of this machine's and the shared ones, fetched if need be."""
        problems = list(local.problems)
        for row in sorted(rows, key=_moment, reverse=True):
            if not _is_newer(row, local.checkpoint):
                break
            found = self._shared.fetch(row, self._store.folder)
            if isinstance(found, CheckpointPointer):
                self._store.receive(found)
                LOGGER.info("fetched the checkpoint of epoch %d from the object store", found.epoch)
                return Taken(found, tuple(problems))
            problems.append(found)
        return replace(local, problems=tuple(problems))

    def _finished(self, taken: Taken, fetch_final: Fetch) -> Taken:
        """Return the final checkpoint of an earlier attempt that finished unheard, if its run has it."""
        for end in self._shared.ends():
            final = end.checkpoint
            if end.stop_reason is not StopReason.FINISHED or final is None or not _is_newer(final, taken.checkpoint):
                continue
            found = self._store.restore(final, fetch_final)
            if found is not None:
                self._store.receive(found)
                return Taken(found, taken.problems)
        return taken

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

        patience = self._patience if self._store.attempt > 1 else 0.0
        answer: Answer = Retrying(
            retry=retry_if_exception_type(StoreUnreachable), stop=stop_after_delay(patience),
            wait=wait_exponential(SHORT_WAIT, max=LONG_WAIT), sleep=self._pause, reraise=True,
        )(call)  # fmt: skip
        return answer


def _moment(checkpoint: CheckpointPointer) -> tuple[int, int]:
    return checkpoint.epoch, checkpoint.step


def _is_newer(one: CheckpointPointer, other: CheckpointPointer | None) -> bool:
    return other is None or _moment(one) > _moment(other)
