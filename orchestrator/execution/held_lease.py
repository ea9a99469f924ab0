"""When a driver signs its lease again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.ledger.base import LedgerWriter
from orchestrator.ledger.claim import check_claim, renew
from orchestrator.ledger.lease import Lease
from schemas.errors import StoreError, SweepBusy

SIGN_SECONDS = 30.0
"""Time between two signatures."""


@dataclass
class HeldLease:
    """The lease of the driver of this process."""

    ledger: LedgerWriter
    sweep: str
    lease: Lease
    clock: Callable[[], float]

    def check(self) -> None:
        """Check that the sweep is still this driver's.

        Raises:
            SweepBusy: Another driver holds it.
        """
        check_claim(self.ledger, self.sweep, self.lease)

    def renew(self, now: float | None = None) -> None:
        """Sign the lease.

        Args:
            now: Unix seconds; None reads the clock.

        Raises:
            SweepBusy: Another driver holds the sweep.
        """
        self.lease = renew(self.ledger, self.sweep, self.lease, self.clock() if now is None else now)

    def renew_if_due(self, now: float) -> None:
        """Sign the lease if the last signature is SIGN_SECONDS old.

        Raises:
            SweepBusy: Another driver holds the sweep.
        """
        if now - self.lease.sign_at >= SIGN_SECONDS:
            self.renew(now)

    def try_renew(self) -> None:
        """Sign the lease before and after steps that may take as long as it lasts. Errors are ignored."""
        with suppress(StoreError, SweepBusy):
            self.renew()
