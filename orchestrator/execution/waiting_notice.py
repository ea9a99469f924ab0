"""Tells the user, and who asks the store, why jobs have no worker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.execution.notifications import WAITS_SECONDS
from orchestrator.ledger.base import LedgerWriter
from orchestrator.ledger.records import Waiting
from schemas.errors import StoreError

SETTLE_SECONDS = 2.0
"""A reason is told when it has held for so long; a worker that is requested waits for a moment anyway."""


@dataclass
class WaitingNotice:
    """The reason that is told now, and the one that may be told next."""

    sweep: str
    ledger: LedgerWriter
    say: Callable[[str], None]
    """Shows a line to the user."""
    tell: Callable[[str], None] = lambda reason: None
    """Tells a user who does not look; called once for a reason that lasts."""
    shown: str = ""
    """The reason that is told; empty if nothing waits."""
    _next: str = ""
    _since: float = 0.0
    _is_told: bool = False

    def set(self, reason: str, now: float) -> None:
        """Note why jobs wait, and tell it if it has held for some time. The store is written only if it changes.

        Args:
            reason: A sentence; empty if nothing waits.
            now: Unix seconds.

        Raises:
            StoreError: The ledger cannot be written.
        """
        if reason != self._next:
            self._next, self._since, self._is_told = reason, now, False
        if reason and not self._is_told and now - self._since >= WAITS_SECONDS:
            self._is_told = True
            self.tell(reason)
        if self._next == self.shown or (reason and now - self._since < SETTLE_SECONDS):
            return
        self.ledger.set_waiting(self.sweep, Waiting(reason=reason, since=self._since) if reason else None)
        self.shown = reason
        if reason:
            self.say(reason)

    def withdraw(self) -> None:
        """Tell the store that nothing waits any more, if it answers."""
        if self.shown:
            self.shown = self._next = ""
            with suppress(StoreError):
                self.ledger.set_waiting(self.sweep, None)
