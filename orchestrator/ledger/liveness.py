"""Whether a sweep has a live driver."""

from __future__ import annotations

import time
from collections.abc import Iterable

from orchestrator.ledger.base import LedgerReader
from orchestrator.ledger.lease import here, pid_exists
from orchestrator.ledger.records import SweepRecord


class Liveness:
    """A cached check whether sweeps have a live driver; the ledger is read once per sweep."""

    def __init__(self, ledger: LedgerReader, before: Iterable[SweepRecord] = ()) -> None:
        """
        Args:
            ledger: The store.
            before: Sweeps that were read before their jobs. Those with a live driver count as alive, even if the driver
                has ended since: in that case it left no job running.
        """
        self._ledger = ledger
        self._known = {record.name: True for record in before if is_driven(record, time.time())}

    def __call__(self, sweep: str) -> bool:
        """Return whether the sweep with this name has a live driver."""
        if sweep not in self._known:
            self._known[sweep] = is_driven(self._ledger.sweep(sweep), time.time())
        return self._known[sweep]


def is_driven(record: SweepRecord | None, now: float) -> bool:
    """Return whether a sweep has a live driver at `now` (Unix seconds). False for None."""
    return record is not None and record.lease is not None and record.lease.is_alive(now, here(), pid_exists)
