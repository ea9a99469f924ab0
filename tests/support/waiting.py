"""Waiting in a test for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 240.0
"""Seconds after which a test fails."""
_POLL_SECONDS = 0.02


def wait_for(happens: Callable[[], T], what: str = "it", seconds: float = PATIENCE) -> T:
    """Return what `happens` returns once that is true.

    Raises:
        AssertionError: it was not true in time; the message names `what`.
    """
    until = time.monotonic() + seconds
    while not (found := happens()):
        assert time.monotonic() < until, f"{what} did not happen within {seconds:g} s"
        time.sleep(_POLL_SECONDS)
    return found
