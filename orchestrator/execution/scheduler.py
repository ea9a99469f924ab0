"""Which job runs next, and what happens to one that stopped. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from types import MappingProxyType

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
        _R.OUT_OF_MEMORY: RetryRule(retries=3),  # each with smaller micro-batches, see `micro_batches_after`
        _R.CODE_RAISED: RetryRule(retries=1),
        _R.DIVERGED: RetryRule(retries=0),
        _R.BAD_DATA: RetryRule(retries=0),
        _R.BAD_SPEC: RetryRule(retries=0),
    }
)
"""The retry rule for each reason. Reasons that are not in the table are not retried."""
MAX_BACKOFF_SECONDS = 60.0
"""Longest wait before a retry, without jitter."""
JITTER = 0.25
"""Largest fraction added to a wait, so that jobs that stopped together are not retried together."""
_ENDED_BADLY = frozenset({_S.FAILED, _S.CANCELLED})

WITH_SWEEP = frozenset({_R.INTERRUPTED, _R.DISK_FULL})
"""Reasons for which a job stops together with its sweep. `orch resume` runs it again."""
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


@dataclass(frozen=True)
class QueueEntry:
    """A job in a driver's queue."""

    key: str
    state: JobState
    upstream: str | None = None
    """Key of the job whose weights it starts from."""
    stops: tuple[StopReason, ...] = ()
    """Why its attempts under this driver stopped, oldest first."""
    not_before: float = 0.0
    """Unix seconds before which it is not started."""


Board = Mapping[str, QueueEntry]
"""The queue: every job of the sweep by key, in the order in which they should run, upstream jobs first."""


@dataclass(frozen=True)
class Move:
    """The change of state of a job whose attempt stopped."""

    to: JobState
    reason: StopReason
    not_before: float = 0.0
    """Unix seconds before which the job is not started again."""


def ready(board: Board, now: float) -> list[str]:
    """Return the keys of the jobs that can start at `now`, in order: waiting, backoff over, upstream succeeded."""
    return [
        entry.key
        for entry in board.values()
        if entry.state in (_S.QUEUED, _S.REQUEUED) and entry.not_before <= now and _upstream_done(board, entry)
    ]


def _upstream_done(board: Board, entry: QueueEntry) -> bool:
    return entry.upstream is None or board[entry.upstream].state is _S.SUCCEEDED


def blocked(board: Board) -> list[str]:
    """Return the keys of waiting jobs that cannot start, because an upstream job failed or was cancelled."""
    found: dict[str, None] = {}
    for entry in board.values():
        upstream = entry.upstream
        if upstream is None or entry.state not in (_S.QUEUED, _S.REQUEUED):
            continue
        if upstream in found or board[upstream].state in _ENDED_BADLY:
            found[entry.key] = None
    return list(found)


def is_over(board: Board) -> bool:
    """Return whether no job is running and none is left that can run."""
    stuck = set(blocked(board))
    return not any(
        entry.state is _S.RUNNING or (entry.state in (_S.QUEUED, _S.REQUEUED) and entry.key not in stuck)
        for entry in board.values()
    )


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


def common_cause(stops: Sequence[Stop]) -> Stop | None:
    """Return the first of the failures that are enough alike to pause the sweep, or None.

    Args:
        stops: Every attempt that has ended, oldest first.
    """
    telling = [stop for stop in stops if stop.reason not in SAYS_NOTHING][:FIRST_ATTEMPTS]
    if any(stop.reason is _R.FINISHED for stop in telling):
        return None
    for first in telling:
        alike = [stop for stop in telling if stop.fingerprint == first.fingerprint]
        if len(alike) >= ALIKE and len({stop.key for stop in alike}) > 1:
            return first
    return None


def after(entry: QueueEntry, move: Move) -> QueueEntry:
    """Return a job's entry after a move."""
    return replace(entry, state=move.to, stops=(*entry.stops, move.reason), not_before=move.not_before)


def threads_for(board: Board, key: str, cpus_per_worker: int, cores: int) -> int:
    """Return the number of threads of a job: all cores if no other job of the sweep can run at the same time.

    It depends on the plan alone, and not on what is done or running, because the number of threads changes the order
    of floating-point sums and so the result.

    Args:
        board: The jobs of the sweep.
        key: The job.
        cpus_per_worker: Cores of a worker.
        cores: Cores of the machine.
    """
    upstream = {key, *_upstream_of(board, key)}
    parallel = (other for other in board if other not in upstream and key not in _upstream_of(board, other))
    return cpus_per_worker if any(True for _ in parallel) else cores


def _upstream_of(board: Board, key: str) -> list[str]:
    """Return the job's upstream job, the upstream job of that, and so on."""
    upstream = board[key].upstream
    return [] if upstream is None else [upstream, *_upstream_of(board, upstream)]
