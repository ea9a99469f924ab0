"""Decides what a job does while the tracking store is away: it goes on, and ends in order if that lasts too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import StoreUnreachable
from schemas.job import JobSpec
from schemas.results import JobMetrics
from workers.tracking.run_log import RunLog
from workers.training.records import EpochRecord

AGAIN_SECONDS = 10.0
"""Between two tries, at least."""
TRYING_SHARE = 0.1
"""Of a job's time, at most, goes into tries, as long as FEWEST_TRIES can be made."""
FEWEST_TRIES = 4
"""Within what patience there is, however long each takes."""


@dataclass
class Logbook:
    open_run: Callable[[], RunLog]
    spec: JobSpec
    patience: float
    """Seconds for which the store may be away."""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _run: RunLog | None = field(default=None, init=False)
    _away_since: float | None = field(default=None, init=False)
    _again_at: float = field(default=0.0, init=False)

    @property
    def run(self) -> RunLog | None:
        """The run, if it could be reached when that was last tried."""
        return self._run

    @property
    def is_behind(self) -> bool:
        """The store was away when it was last told something."""
        return self._away_since is not None

    def bring_up_to_date(self, records: Sequence[EpochRecord]) -> None:
        """Tell the store of all epochs that it does not know; an outage is borne, and the next call tells it more.

        Raises:
            StoreUnreachable: the store has been away for longer than there is patience.
        """
        began = self.clock()
        if self.is_behind and began < self._again_at:
            return
        try:
            self._tell(records)
            self._away_since = None
        except StoreUnreachable as error:
            self._bear(error, began)

    def finish(
        self, records: Sequence[EpochRecord], metrics: JobMetrics, folder: Path, wait: Callable[[], None]
    ) -> None:
        """Tell the store everything: there is nothing left to do but to wait for it.

        Args:
            wait: called every second meanwhile; may raise to end the waiting.

        Raises:
            StoreUnreachable: the store has been away for longer than there is patience.
        """
        while True:
            began = self.clock()
            try:
                self._tell(records).log_outcome(metrics, folder)
                self._away_since = None
                return
            except StoreUnreachable as error:
                self._bear(error, began)
            while self.clock() < self._again_at:
                wait()
                self.sleep(1.0)

    def _tell(self, records: Sequence[EpochRecord]) -> RunLog:
        if self._run is None:
            run = self.open_run()
            run.log_spec(self.spec)
            self._run = run
        self._run.log_epochs(records)
        return self._run

    def _bear(self, error: StoreUnreachable, began: float) -> None:
        now = self.clock()
        pause = min((now - began) * (1 / TRYING_SHARE - 1), self.patience / FEWEST_TRIES)
        self._run = None  # what was last sent may have arrived: only the store knows what it has
        self._away_since = now if self._away_since is None else self._away_since
        self._again_at = now + max(AGAIN_SECONDS, pause)
        if now - self._away_since >= self.patience:
            raise error
