"""Decides which job runs next and what becomes of one that stopped. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult

_S, _R = JobState, StopReason


@dataclass(frozen=True)
class RetryRule:
    retries: int
    """How often a driver tries a job again that stopped for this reason."""
    backoff_seconds: float = 0.0
    """Before the first retry; doubled for each further one."""


RETRY: Mapping[StopReason, RetryRule] = MappingProxyType(
    {
        _R.WORKER_LOST: RetryRule(retries=5, backoff_seconds=1.0),
        _R.STORE_UNREACHABLE: RetryRule(retries=5, backoff_seconds=5.0),
        _R.OUT_OF_MEMORY: RetryRule(retries=1),
        _R.CODE_RAISED: RetryRule(retries=1),
        _R.DIVERGED: RetryRule(retries=0),
        _R.BAD_DATA: RetryRule(retries=0),
        _R.BAD_SPEC: RetryRule(retries=0),
    }
)
MAX_BACKOFF_SECONDS = 60.0
_ENDED_BADLY = frozenset({_S.FAILED, _S.CANCELLED})


SAYS_NOTHING = frozenset(
    {_R.WORKER_LOST, _R.STORE_UNREACHABLE, _R.INTERRUPTED, _R.CANCELLED_BY_USER, _R.SWEEP_CANCELLED}
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


@dataclass(frozen=True)
class Entry:
    """One job on the board."""

    key: str
    state: JobState
    upstream: str | None = None
    stops: tuple[StopReason, ...] = ()
    """Why its attempts under this driver stopped."""
    not_before: float = 0.0


Board = Mapping[str, Entry]
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


def _upstream_done(board: Board, entry: Entry) -> bool:
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


def next_move(entry: Entry, reason: StopReason, now: float) -> Move:
    """What becomes of a running job whose attempt stopped for `reason`."""
    if reason is _R.FINISHED:
        return Move(_S.SUCCEEDED, reason)
    if reason in (_R.CANCELLED_BY_USER, _R.SWEEP_CANCELLED):
        return Move(_S.CANCELLED, reason)
    if reason is _R.INTERRUPTED:
        return Move(_S.REQUEUED, reason)
    rule = RETRY.get(reason, RetryRule(retries=0))
    before = entry.stops.count(reason)
    if before >= rule.retries:
        return Move(_S.FAILED, reason)
    return Move(_S.REQUEUED, reason, now + min(rule.backoff_seconds * 2**before, MAX_BACKOFF_SECONDS))


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


def after(entry: Entry, move: Move) -> Entry:
    return replace(entry, state=move.to, stops=(*entry.stops, move.reason), not_before=move.not_before)


def threads_for(waiting: int, running: int, cpus_per_worker: int, cores: int) -> int:
    """A job that has the machine to itself may use all of it; otherwise each keeps to its share."""
    return cores if waiting + running <= 1 else cpus_per_worker


def seconds_left(durations: list[float], jobs_left: int, slots: int) -> float | None:
    """Estimate from the finished jobs; None before the first one."""
    if not durations or not slots:
        return None
    return sum(durations) / len(durations) * jobs_left / slots
