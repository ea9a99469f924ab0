"""Holds a sweep that has no driver, so that it can be changed from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.ledger.base import LedgerReader, known_sweep
from orchestrator.ledger.claim import busy
from orchestrator.ledger.liveness import is_driven
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import SweepRecord
from orchestrator.settings import Settings


@contextmanager
def undriven(settings: Settings, ledger: LedgerReader, name: str, now: float) -> Iterator[tuple[SweepRecord, Locks]]:
    """Hold a sweep that has no driver; while the context is open, none can start on this machine.

    Args:
        settings: Names the store and the folder of the locks.
        ledger: The store.
        name: Name of the sweep.
        now: Unix seconds.

    Returns:
        The sweep, and the locks of this process.

    Raises:
        SweepBusy: The sweep has a driver.
        StoreError: No sweep has that name.
    """
    known_sweep(ledger, name)
    locks = Locks(settings.lock_dir)
    with locks.sweep(name, now):
        record = known_sweep(ledger, name)
        if settings.database is None and is_driven(record, now):
            raise busy(name, record.lease)
        yield record, locks
