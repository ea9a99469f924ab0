"""When failures that are alike pause a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.execution.retry_policy import RETRY, WITH_SWEEP
from schemas.lifecycle import JobState, StopReason

_S, _R = JobState, StopReason

SAYS_NOTHING = frozenset(
    WITH_SWEEP
    | {_R.CANCELLED_BY_USER, _R.SWEEP_CANCELLED}
    | {reason for reason, rule in RETRY.items() if not rule.charged}
)
"""Reasons that the job did not cause. They predict nothing about the next job."""


FIRST_ATTEMPTS, ALIKE = 5, 3
"""A sweep is paused if, of its first FIRST_ATTEMPTS attempts, ALIKE fail alike and none succeeds."""


@dataclass(frozen=True)
class Stop:
    """The end of one attempt."""

    key: str
    """The job."""
    reason: StopReason
    fingerprint: str = ""
    """Equal for failures of the same kind at the same place."""
    failure: str = ""
    """The failure in one line."""

    @property
    def is_telling(self) -> bool:
        """Whether the job caused it, so that it predicts something about the next job."""
        return self.reason not in SAYS_NOTHING


def common_cause(stops: Sequence[Stop]) -> Stop | None:
    """Return the first of the failures that are enough alike to pause the sweep, or None.

    Args:
        stops: Every attempt that has ended, oldest first.
    """
    telling = [stop for stop in stops if stop.is_telling][:FIRST_ATTEMPTS]
    if any(stop.reason is _R.FINISHED for stop in telling):
        return None
    for first in telling:
        alike = [stop for stop in telling if stop.fingerprint == first.fingerprint]
        if len(alike) >= ALIKE and len({stop.key for stop in alike}) > 1:
            return first
    return None
