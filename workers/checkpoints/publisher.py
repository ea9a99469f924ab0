"""Publishes a job's newest checkpoint in the background: an upload neither stops training nor falls behind it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.errors import OrchError, Superseded
from schemas.results import CheckpointPointer
from workers.checkpoints.shared import SharedCheckpoints

LOGGER = logging.getLogger("orch.job")
FIRST_WAIT, LONGEST_WAIT = 1.0, 15.0
"""Seconds between two tries to reach a store that is away; the wait doubles."""
IDLE_SECONDS, LONGEST_SECONDS = 8.0, 120.0
"""At its end an attempt waits so long for an upload that makes no progress, and for any upload."""


@dataclass
class Publisher:
    """Uploads the checkpoint that was offered last, in a thread of its own.

    A checkpoint that was offered while another one was uploaded waits, and only the newest of those that wait is
    uploaded. While the store is away it is tried again and again, and nothing is lost but time.
    """

    shared: SharedCheckpoints
    clock: Callable[[], float] = time.monotonic
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)
    _waiting: CheckpointPointer | None = field(default=None, init=False)
    _is_busy: bool = field(default=False, init=False)
    _is_closed: bool = field(default=False, init=False)
    _is_away: bool = field(default=False, init=False)
    _superseded: Superseded | None = field(default=None, init=False)
    _progress_at: float = field(default=0.0, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def offer(self, checkpoint: CheckpointPointer) -> None:
        """Have a checkpoint published, in place of one that still waits.

        Raises:
            Superseded: a later attempt has the job.
        """
        self.check()
        with self._changed:
            self._waiting = checkpoint
            self._progress_at = self.clock()
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="orch-publish", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Check that no later attempt was found to have the job.

        Raises:
            Superseded: one has.
        """
        if self._superseded is not None:
            raise self._superseded

    def finish(self) -> bool:
        """Wait until the newest checkpoint is published, unless the store is away or makes no progress, and close.

        Returns:
            Whether it is published.
        """
        until = self.clock() + LONGEST_SECONDS
        with self._changed:
            while self._is_working() and not self._is_away:
                now = self.clock()
                left = min(until, self._progress_at + IDLE_SECONDS) - now
                if left <= 0:
                    break
                self._changed.wait(min(left, 0.5))
            is_published = not self._is_working() and self._superseded is None
        self.close()
        return is_published

    def close(self) -> None:
        """Upload nothing more; an upload that runs is given up."""
        with self._changed:
            self._is_closed, self._waiting = True, None
            self._changed.notify_all()

    def join(self, seconds: float = IDLE_SECONDS) -> bool:
        """Close, and wait for the thread's end. Returns whether it has ended."""
        self.close()
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _is_working(self) -> bool:
        return self._waiting is not None or self._is_busy

    def _work(self) -> None:
        wait = FIRST_WAIT
        while (checkpoint := self._next()) is not None:
            try:
                error = self._publish(checkpoint)
            except FileNotFoundError:
                LOGGER.info("a checkpoint was superseded before it was uploaded")
                with self._changed:
                    self._is_busy = False
                    self._changed.notify_all()
                continue
            with self._changed:
                self._is_busy = False
                self._note_state(error)
                if error is not None and not self._is_closed:
                    self._waiting = self._waiting or checkpoint
                self._changed.notify_all()
                if error is not None:
                    self._changed.wait_for(lambda: self._is_closed, wait)
                wait = FIRST_WAIT if error is None else min(2 * wait, LONGEST_WAIT)

    def _publish(self, checkpoint: CheckpointPointer) -> Exception | None:
        """Publish a checkpoint; return the error after which it is to be tried again.

        Raises:
            FileNotFoundError: it was deleted meanwhile, because there are newer ones.
        """
        try:
            self.shared.publish(checkpoint, self._note)
        except Superseded as error:
            self._superseded = error
            self.close()
        except _Closed:
            LOGGER.info("an upload was given up")
        except FileNotFoundError:
            raise
        except (OrchError, OSError) as error:
            return error
        return None

    def _next(self) -> CheckpointPointer | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._is_closed)
            if self._is_closed:
                return None
            checkpoint, self._waiting, self._is_busy = self._waiting, None, True
            return checkpoint

    def _note(self, sent: int, total: int) -> None:
        if self._is_closed:
            raise _Closed
        self._progress_at = self.clock()

    def _note_state(self, error: Exception | None) -> None:
        if error is not None and not self._is_away:
            LOGGER.warning("training goes on, and the upload of checkpoints is tried again: %s", error)
        elif error is None and self._is_away:
            LOGGER.info("checkpoints are uploaded again")
        self._is_away = error is not None


class _Closed(Exception):
    """Ends an upload that nobody waits for."""
