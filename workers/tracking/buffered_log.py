"""Decides what a job does during an outage of the tracking store: it continues, unless the outage lasts too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from schemas.errors import StoreUnreachable
from schemas.job import JobSpec
from schemas.results import CheckpointPointer, JobMetrics
from workers.tracking.run_log import RunLog
from workers.training.records import EpochRecord

EPOCH_SECONDS = 2.0
"""Shortest pause between two times that epochs are logged: nobody looks more often, and each costs the store writes."""
RETRY_SECONDS = 10.0
"""Shortest pause between two tries."""
FINISH_SECONDS = 5.0
"""Longest pause between two tries once only the log keeps a job from its end."""
RETRY_SHARE = 0.1
"""Largest share of a job's time spent on tries, as long as that leaves FEWEST_TRIES."""
FEWEST_TRIES = 4
"""Tries made before the store counts as unreachable, however long each takes."""


@dataclass
class BufferedLog:
    """Logs a job's epochs and outcome to its run; logs later what an outage prevented."""

    open_run: Callable[[], RunLog]
    spec: JobSpec
    patience: float
    """Longest outage to tolerate, in seconds."""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _run: RunLog | None = field(default=None, init=False)
    _outage_since: float | None = field(default=None, init=False)
    _retry_at: float = field(default=0.0, init=False)
    _logged_at: float = field(default=-inf, init=False)
    """When epochs were logged last."""

    @property
    def run(self) -> RunLog | None:
        """The run; None if the last try to reach it failed."""
        return self._run

    @property
    def is_behind(self) -> bool:
        """Whether the last try to log failed."""
        return self._outage_since is not None

    def bring_up_to_date(self, records: Sequence[EpochRecord]) -> None:
        """Log all epochs that the store does not have, unless some were logged just now or the last try failed.

        Then a later call logs them, or `finish`.

        Args:
            records: all epochs so far.

        Raises:
            StoreUnreachable: the outage has lasted longer than `patience`.
        """
        began = self.clock()
        if began < (self._retry_at if self.is_behind else self._logged_at + EPOCH_SECONDS):
            return
        try:
            self._opened().log_epochs(records)
            self._outage_since = None
            if records:
                self._logged_at = began
        except StoreUnreachable as error:
            self._postpone(error, began)

    def finish(
        self, records: Sequence[EpochRecord], metrics: JobMetrics, folder: Path, checkpoint: CheckpointPointer,
        wait: Callable[[], None],
    ) -> CheckpointPointer:  # fmt: skip
        """Log everything, and wait for the store if it is unreachable.

        Args:
            records: all epochs.
            metrics: the job's metrics.
            folder: files to log as artifacts.
            checkpoint: the final checkpoint, which the run keeps.
            wait: called every second of a wait; may raise to end it.

        Returns:
            The final checkpoint where the run keeps it.

        Raises:
            StoreUnreachable: the outage has lasted longer than `patience`.
        """
        while True:
            began = self.clock()
            try:
                run = self._opened()
                run.log_outcome(records, metrics, folder)
                kept = run.log_checkpoint(checkpoint)
                self._outage_since = None
                return kept
            except StoreUnreachable as error:
                self._postpone(error, began)
                self._retry_at = min(self._retry_at, self.clock() + FINISH_SECONDS)
            while self.clock() < self._retry_at:
                wait()
                self.sleep(1.0)

    def _opened(self) -> RunLog:
        if self._run is None:
            run = self.open_run()
            run.log_spec(self.spec)
            self._run = run
        return self._run

    def _postpone(self, error: StoreUnreachable, began: float) -> None:
        now = self.clock()
        pause = min((now - began) * (1 / RETRY_SHARE - 1), self.patience / FEWEST_TRIES)
        self._run = None  # the last request may have arrived: reopen the run to see what it has
        self._outage_since = now if self._outage_since is None else self._outage_since
        self._retry_at = now + max(RETRY_SECONDS, pause)
        if now - self._outage_since >= self.patience:
            raise error
