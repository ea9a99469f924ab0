"""What becomes of a job whose attempt stopped: retried, when and how, or ended. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from types import MappingProxyType

from orchestrator.execution.scheduler import QueueEntry
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult

_S, _R = JobState, StopReason


@dataclass(frozen=True)
class RetryRule:
    """How a driver retries a job that stopped for one reason."""

    retries: int
    """Number of retries per driver. Other reasons do not use it up."""
    backoff_seconds: float = 0.0
    """Wait before the first retry. It doubles with each further retry, up to MAX_BACKOFF_SECONDS."""
    charged: bool = True
    """Whether the job caused the stop. Only such stops can pause a sweep, because only they predict the next job."""


RETRY: Mapping[StopReason, RetryRule] = MappingProxyType(
    {
        _R.WORKER_LOST: RetryRule(retries=5, backoff_seconds=1.0, charged=False),
        _R.NODE_LOST: RetryRule(retries=5, backoff_seconds=5.0, charged=False),
        _R.PREEMPTED: RetryRule(retries=10, backoff_seconds=1.0, charged=False),
        _R.SUPERSEDED: RetryRule(retries=5, backoff_seconds=5.0, charged=False),
        _R.STORE_UNREACHABLE: RetryRule(retries=5, backoff_seconds=5.0, charged=False),
        _R.DATA_ABSENT: RetryRule(retries=5, backoff_seconds=5.0, charged=False),
        _R.OUT_OF_MEMORY: RetryRule(retries=3),  # each with smaller micro-batches, see `micro_batches_after`
        _R.CODE_RAISED: RetryRule(retries=1),
        _R.DIVERGED: RetryRule(retries=0),
        _R.BAD_DATA: RetryRule(retries=0),
        _R.BAD_SPEC: RetryRule(retries=0),
    }
)
"""The retry rule for each reason. Reasons that are not in the table are not retried."""


REASONS = [*(reason.value for reason in RETRY), _R.CANCELLED_BY_USER.value, _R.SWEEP_CANCELLED.value]
"""Stop reasons of failed and cancelled jobs, the values of `--reason`."""


MAX_BACKOFF_SECONDS = 60.0
"""Longest wait before a retry, without jitter."""


JITTER = 0.25
"""Largest fraction added to a wait, so that jobs that stopped together are not retried together."""


WITH_SWEEP = frozenset({_R.INTERRUPTED, _R.DISK_FULL, _R.ACCESS_DENIED})
"""Reasons for which a job stops together with its sweep. `orch resume` runs it again."""


@dataclass(frozen=True)
class Move:
    """The change of state of a job whose attempt stopped."""

    to: JobState
    reason: StopReason
    not_before: float = 0.0
    """Unix seconds before which the job is not started again."""


def next_move(entry: QueueEntry, reason: StopReason, now: float) -> Move:
    """Return the move of a running job whose attempt stopped.

    Args:
        entry: The job.
        reason: Why the attempt stopped.
        now: Unix seconds.
    """
    if reason is _R.FINISHED:
        return Move(_S.SUCCEEDED, reason)
    if reason in (_R.CANCELLED_BY_USER, _R.SWEEP_CANCELLED):
        return Move(_S.CANCELLED, reason)
    if reason in WITH_SWEEP:
        return Move(_S.REQUEUED, reason)
    rule = RETRY.get(reason, RetryRule(retries=0))
    before = entry.stops.count(reason)
    if before >= rule.retries:
        return Move(_S.FAILED, reason)
    wait = min(rule.backoff_seconds * 2**before, MAX_BACKOFF_SECONDS)
    return Move(_S.REQUEUED, reason, now + wait * (1 + JITTER * _hash_fraction(f"{entry.key}/{len(entry.stops)}")))


def _hash_fraction(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone, so that tests need no random generator."""
    return int.from_bytes(sha256(text.encode()).digest()[:4], "big") / 2**32


def after(entry: QueueEntry, move: Move) -> QueueEntry:
    """Return a job's entry after a move."""
    return replace(entry, state=move.to, stops=(*entry.stops, move.reason), not_before=move.not_before)


def micro_batches_after(last: JobResult | None, batch_size: int) -> int:
    """Return the number of micro-batches of the next attempt: doubled after each that ran out of memory.

    Args:
        last: The result of the last attempt; None before the first.
        batch_size: Images per batch, the largest possible number.
    """
    if last is None:
        return 1
    doubled = 2 if last.stop_reason is _R.OUT_OF_MEMORY else 1
    return min(last.micro_batches * doubled, batch_size)


def as_cancelled(result: JobResult, reason: StopReason | None) -> JobResult:
    """Return the result of a job that a person cancelled while it ran.

    Args:
        result: What its attempt returned. A result of a job that finished first is not changed.
        reason: How it was cancelled; None if it was not.
    """
    if reason is None or result.stop_reason is _R.FINISHED:
        return result
    return result.model_copy(update={"stop_reason": reason, "failure": None})
