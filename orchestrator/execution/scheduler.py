"""Decides which job runs next and what becomes of one that stopped. Pure: the clock is an argument."""

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
    retries: int
    """How often a driver tries a job again that stopped for this reason; each reason has a budget of its own."""
    backoff_seconds: float = 0.0
    """Before the first retry; doubled for each further one, up to MAX_BACKOFF_SECONDS."""
    charged: bool = True
    """The job's own doing. What is not says nothing of the next job, and never pauses a sweep."""


RETRY: Mapping[StopReason, RetryRule] = MappingProxyType(
    {
        _R.WORKER_LOST: RetryRule(retries=5, backoff_seconds=1.0, charged=False),
        _R.NODE_LOST: RetryRule(retries=5, backoff_seconds=5.0, charged=False),
        _R.PREEMPTED: RetryRule(retries=10, backoff_seconds=1.0, charged=False),
        _R.SUPERSEDED: RetryRule(retries=5, backoff_seconds=5.0, charged=False),
        _R.STORE_UNREACHABLE: RetryRule(retries=5, backoff_seconds=5.0, charged=False),
        _R.OUT_OF_MEMORY: RetryRule(retries=3),  # each with more room: see `micro_batches_after`
        _R.CODE_RAISED: RetryRule(retries=1),
        _R.DIVERGED: RetryRule(retries=0),
        _R.BAD_DATA: RetryRule(retries=0),
        _R.BAD_SPEC: RetryRule(retries=0),
    }
)
"""A reason that is not in it is not tried again."""
MAX_BACKOFF_SECONDS = 60.0
JITTER = 0.25
"""By up to this share a wait is longer than its rule says, so that jobs that stopped together do not come back so."""
_ENDED_BADLY = frozenset({_S.FAILED, _S.CANCELLED})


WITH_SWEEP = frozenset({_R.INTERRUPTED, _R.DISK_FULL})
"""Reasons for which a job stops because its whole sweep does; `orch resume` runs it again."""
SAYS_NOTHING = frozenset(
    WITH_SWEEP
    | {_R.CANCELLED_BY_USER, _R.SWEEP_CANCELLED}
    | {reason for reason, rule in RETRY.items() if not rule.charged}
)
"""Reasons that lie outside the jobs: however many stop for them, the next job may well succeed."""
FIRST_ATTEMPTS, ALIKE = 5, 3
"""So many failures alike among so many first attempts, none of which succeeded, pause the sweep."""


@dataclass(frozen=True)
class Stop:
    """The end of one attempt."""

    key: str
    reason: StopReason
    fingerprint: str = ""
    failure: str = ""
    """One line on what went wrong."""


@dataclass(frozen=True)
class QueueEntry:
    """One job on the board."""

    key: str
    state: JobState
    upstream: str | None = None
    stops: tuple[StopReason, ...] = ()
    """Why its attempts under this driver stopped."""
    not_before: float = 0.0


Board = Mapping[str, QueueEntry]
"""Every job of the sweep, in the order in which they should run."""


@dataclass(frozen=True)
class Move:
    to: JobState
    reason: StopReason
    not_before: float = 0.0


def ready(board: Board, now: float) -> list[str]:
    """Jobs that could start now, in order: waiting, past their backoff, upstream succeeded."""
    return [
        entry.key
        for entry in board.values()
        if entry.state in (_S.QUEUED, _S.REQUEUED) and entry.not_before <= now and _upstream_done(board, entry)
    ]


def _upstream_done(board: Board, entry: QueueEntry) -> bool:
    return entry.upstream is None or board[entry.upstream].state is _S.SUCCEEDED


def blocked(board: Board) -> list[str]:
    """Jobs that can never start, because what they start from failed or is blocked itself."""
    found: dict[str, None] = {}
    for entry in board.values():  # upstream jobs stand before those that need them
        upstream = entry.upstream
        if upstream is None or entry.state not in (_S.QUEUED, _S.REQUEUED):
            continue
        if upstream in found or board[upstream].state in _ENDED_BADLY:
            found[entry.key] = None
    return list(found)


def is_over(board: Board) -> bool:
    """Nothing runs, and nothing is left that could."""
    stuck = set(blocked(board))
    return not any(
        entry.state is _S.RUNNING or (entry.state in (_S.QUEUED, _S.REQUEUED) and entry.key not in stuck)
        for entry in board.values()
    )


def next_move(entry: QueueEntry, reason: StopReason, now: float) -> Move:
    """What becomes of a running job whose attempt stopped for `reason`."""
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
    return Move(_S.REQUEUED, reason, now + wait * (1 + JITTER * _chance(f"{entry.key}/{len(entry.stops)}")))


def _chance(of: str) -> float:
    """From 0 to 1, always the same for the same text."""
    return int.from_bytes(sha256(of.encode()).digest()[:4], "big") / 2**32


def micro_batches_after(last: JobResult | None, batch_size: int) -> int:
    """Into how many parts the next attempt cuts its batches: twice as many after each that had too little memory."""
    if last is None:
        return 1
    doubled = 2 if last.stop_reason is _R.OUT_OF_MEMORY else 1
    return min(last.micro_batches * doubled, batch_size)


def as_cancelled(result: JobResult, reason: StopReason | None) -> JobResult:
    """The result of a job that a person cancelled for `reason` while it ran; one that finished first stays finished."""
    if reason is None or result.stop_reason is _R.FINISHED:
        return result
    return result.model_copy(update={"stop_reason": reason, "failure": None})


def common_cause(stops: Sequence[Stop]) -> Stop | None:
    """The first of those failures that are enough alike to pause a sweep, instead of spending all its jobs on them.

    Args:
        stops: every attempt that has ended, oldest first.
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
    return replace(entry, state=move.to, stops=(*entry.stops, move.reason), not_before=move.not_before)


def threads_for(board: Board, key: str, cpus_per_worker: int, cores: int) -> int:
    """A job beside which no other of its sweep can ever run may use the whole machine; otherwise each keeps its share.

    Sums come out differently on another number of threads, so it follows from the plan alone: what is done already,
    or runs at the moment, must not decide a result.
    """
    above = {key, *_above(board, key)}
    beside = (other for other in board if other not in above and key not in _above(board, other))
    return cpus_per_worker if any(True for _ in beside) else cores


def _above(board: Board, key: str) -> list[str]:
    """The job it starts from, the one that starts from, and so on."""
    upstream = board[key].upstream
    return [] if upstream is None else [upstream, *_above(board, upstream)]


def seconds_left(durations: list[float], jobs_left: int, slots: int) -> float | None:
    """Estimate from the finished jobs; None before the first one."""
    if not durations or not slots:
        return None
    return sum(durations) / len(durations) * jobs_left / slots
