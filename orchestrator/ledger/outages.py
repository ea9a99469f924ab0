"""How long calls to a store that does not answer are retried before the sweep is stopped in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

from orchestrator.ledger.base import Ledger, LedgerWriter
from orchestrator.wording import in_words
from schemas.errors import StoreUnreachable

Answer = TypeVar("Answer")

FIRST_WAIT, LONGEST_WAIT = 0.5, 5.0
"""Seconds between two tries; the wait doubles from the first to the longest."""
HURRY_SECONDS = 3.0
"""Longest time to retry once the user has asked the sweep to stop; one try may take longer."""
REST_SECONDS = 30.0
"""How long after a failed call further ones fail at once, when the user waits for the end of the sweep."""


@dataclass
class Patience:
    """A retry policy. Once exhausted, calls are no longer retried, because the sweep is being stopped."""

    seconds: float
    """Longest time to retry one call."""
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    say: Callable[[str], None]
    """Shows a line to the user; called once per outage."""
    is_hurried: Callable[[], bool] = lambda: False
    """Returns whether the user has asked the sweep to stop."""
    at_an_end: bool = False
    """True once a call was retried for as long as allowed."""
    _failed: StoreUnreachable | None = None
    """The last failure that was not retried."""
    _failed_at: float = 0.0

    def get(self, effect: Callable[[], Answer]) -> Answer:
        """Return what `effect` returns, retried with growing waits while the store does not answer.

        Args:
            effect: A call that may be repeated.

        Raises:
            StoreUnreachable: The store did not answer in time.
        """
        from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random

        began = self.clock()
        if self._failed is not None and self.is_hurried() and began - self._failed_at < REST_SECONDS:
            raise self._failed

        def is_enough(state: RetryCallState) -> bool:
            limit = min(self.seconds, HURRY_SECONDS) if self.is_hurried() else self.seconds
            self.at_an_end |= self.clock() - began >= limit
            return self.at_an_end

        def doze(seconds: float) -> None:
            left = seconds  # counted, because the clock may be set meanwhile
            while left > 0:
                self.sleep(min(left, FIRST_WAIT))
                left = 0.0 if self.is_hurried() else left - FIRST_WAIT

        def report(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome is not None:
                self.say(
                    f"{state.outcome.exception()} Running jobs continue; retrying for up to {in_words(self.seconds)}."
                )

        try:
            result: Answer = Retrying(
                retry=retry_if_exception_type(StoreUnreachable),
                wait=wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT - FIRST_WAIT)
                + wait_random(0, FIRST_WAIT),
                stop=is_enough,
                sleep=doze,
                before_sleep=report,
                reraise=True,
            )(effect)
        except StoreUnreachable as error:
            self._failed, self._failed_at = error, self.clock()
            raise
        self._failed = None
        return result


class _PatientLedger:
    """Wraps every method of a ledger; the contract allows all of them to be repeated."""

    def __init__(self, ledger: Ledger, patience: Patience) -> None:
        self._ledger, self._patience = ledger, patience

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._ledger, name)

        @wraps(call)
        def retried(*arguments: Any, **named: Any) -> Any:
            return self._patience.get(lambda: call(*arguments, **named))

        return retried


def patient(ledger: Ledger, patience: Patience) -> Ledger:
    """Return a ledger whose calls are retried with `patience` while the store does not answer."""
    return cast(Ledger, _PatientLedger(ledger, patience))


def impatient(ledger: LedgerWriter) -> LedgerWriter:
    """Return the ledger itself of one that `patient` returned, for calls that nothing depends on; else `ledger`."""
    return ledger._ledger if isinstance(ledger, _PatientLedger) else ledger
