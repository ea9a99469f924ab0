"""How long a job waits for a store that does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from schemas.errors import StoreUnreachable
from schemas.order import ReportPhase

Answer = TypeVar("Answer")
WAIT_SECONDS = 2.0
"""Seconds between two tries."""


def patiently(
    call: Callable[[], Answer], patience: float, report: ReportPhase, what: str = "the object store"
) -> Answer:
    """Return what a call returns, which is repeated while the store does not answer.

    Args:
        patience: seconds after which the outage is raised.
        report: receives the phase while the store is away; an error that it raises ends the wait.
        what: what the phase says is waited for.

    Raises:
        StoreUnreachable: the store did not answer for so long.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return call()
        except StoreUnreachable:
            if time.monotonic() + WAIT_SECONDS > until:
                raise
            report(f"waiting for {what}")
            time.sleep(WAIT_SECONDS)
