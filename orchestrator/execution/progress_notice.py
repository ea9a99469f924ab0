"""When a driver tells the store how far its jobs are, so that `orch watch` of any process can show it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.execution.estimate import Estimate
from orchestrator.ledger.base import LedgerWriter
from orchestrator.ledger.records import RunningJob, SweepProgress
from schemas.errors import StoreError

EVERY_SECONDS = 5.0
"""Least time between two notes."""
AGAIN_SECONDS = 30.0
"""Time after which a note is repeated although no job has got further, because the time left changes."""
MOST_JOBS = 40
"""Running jobs that a note lists."""
DECIMALS = 3
"""Decimals of the seconds in a note."""


@dataclass
class ProgressNotice:
    """The note of one sweep. An error of the store is ignored: a sweep does not end because nobody can watch it."""

    sweep: str
    ledger: LedgerWriter
    """One that does not retry calls, because the driver waits meanwhile."""
    _told: SweepProgress | None = None

    def set(self, running: Sequence[RunningJob], left: Estimate | None, now: float) -> None:
        """Write how far the sweep is, if it is time to.

        Args:
            running: The running jobs.
            left: The time until all jobs are done; None while nothing is known.
            now: Unix seconds.
        """
        listed, told = tuple(map(_in_brief, running[:MOST_JOBS])), self._told
        if told is not None:
            passed = now - told.at
            if passed < EVERY_SECONDS or (listed == told.running and passed < AGAIN_SECONDS):
                return
        self._told = SweepProgress(at=round(now, DECIMALS), running=listed)
        if left is not None:
            low, high = round(left.low, DECIMALS), round(left.high, DECIMALS)
            self._told = self._told.model_copy(update={"low": low, "high": high, "unknown": left.unknown})
        with suppress(StoreError):
            self.ledger.set_progress(self.sweep, self._told)

    def withdraw(self) -> None:
        """Tell the store that no driver runs the sweep any more, if it answers."""
        if self._told is not None:
            self._told = None
            with suppress(StoreError):
                self.ledger.set_progress(self.sweep, None)


def _in_brief(job: RunningJob) -> RunningJob:
    """Return the job without the counter that follows its phase, and with rounded seconds."""
    seconds = None if job.epoch_seconds is None else round(job.epoch_seconds, DECIMALS)
    return job.model_copy(update={"phase": job.phase.partition(":")[0], "epoch_seconds": seconds})
