"""Whether a sweep has a live driver."""

from __future__ import annotations

import time
from collections.abc import Iterable

from orchestrator.ledger.base import LedgerReader
from orchestrator.ledger.lease import here, pid_exists
from orchestrator.ledger.records import SweepRecord


class Liveness:
    """Whether a sweep has a driver now; asked once per sweep."""

    def __init__(self, ledger: LedgerReader, before: Iterable[SweepRecord] = ()) -> None:
        """
        Args:
            before: sweeps as they were before their jobs were read. A driver that ended since has left none of them
                lost, so it counts as alive, and so does one that began since.
        """
        self._ledger = ledger
        self._known = {record.name: True for record in before if is_driven(record, time.time())}

    def __call__(self, sweep: str) -> bool:
        if sweep not in self._known:
            self._known[sweep] = is_driven(self._ledger.sweep(sweep), time.time())
        return self._known[sweep]


def is_driven(record: SweepRecord | None, now: float) -> bool:
    return record is not None and record.lease is not None and record.lease.is_alive(now, here(), pid_exists)
