"""Decides how long a store that does not answer is waited for, before its sweep is stopped in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

from orchestrator.ledger.base import Ledger
from orchestrator.wording import in_words
from schemas.errors import StoreUnreachable

Answer = TypeVar("Answer")

FIRST_WAIT, LONGEST_WAIT = 0.5, 5.0
HURRY_SECONDS = 20.0
"""How long the store is still waited for once the user has asked to stop."""


@dataclass
class Patience:
    """Once it is at an end, everything is tried just once: the sweep is being stopped."""

    seconds: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    say: Callable[[str], None]
    is_hurried: Callable[[], bool] = lambda: False
    at_an_end: bool = False

    def get(self, effect: Callable[[], Answer]) -> Answer:
        """What `effect` gives, tried again with growing pauses while the store is away.

        Raises:
            StoreUnreachable: it has been away too long.
        """
        from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random

        began = self.clock()

        def is_enough(state: RetryCallState) -> bool:
            limit = min(self.seconds, HURRY_SECONDS) if self.is_hurried() else self.seconds
            self.at_an_end |= self.clock() - began >= limit
            return self.at_an_end

        def tell(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome is not None:
                self.say(f"{state.outcome.exception()} Running jobs go on; trying again for {in_words(self.seconds)}.")

        result: Answer = Retrying(
            retry=retry_if_exception_type(StoreUnreachable),
            wait=wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT - FIRST_WAIT) + wait_random(0, FIRST_WAIT),
            stop=is_enough,
            sleep=self.sleep,
            before_sleep=tell,
            reraise=True,
        )(effect)
        return result


class _PatientLedger:
    """Every call of a ledger, whatever calls it may come to have; all of them may be repeated."""

    def __init__(self, ledger: Ledger, patience: Patience) -> None:
        self._ledger, self._patience = ledger, patience

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._ledger, name)

        @wraps(call)
        def persist(*arguments: Any, **named: Any) -> Any:
            return self._patience.get(lambda: call(*arguments, **named))

        return persist


def patient(ledger: Ledger, patience: Patience) -> Ledger:
    """The same ledger, whose calls outlast a store that is away for a while."""
    return cast(Ledger, _PatientLedger(ledger, patience))
