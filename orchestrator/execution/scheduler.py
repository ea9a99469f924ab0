"""Which waiting jobs can start, which never can, and with how many threads. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.lifecycle import JobState, StopReason

_S, _R = JobState, StopReason

_ENDED_BADLY = frozenset({_S.FAILED, _S.CANCELLED})


@dataclass(frozen=True, slots=True)
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
    features: str | None = None
    """Name of the frozen layers' features that it needs, equal for jobs that share them; None without frozen layers."""


Board = Mapping[str, QueueEntry]
"""The queue: every job of the sweep by key, in the order in which they should run, upstream jobs first."""


def can_start(board: Board, entry: QueueEntry, now: float) -> bool:
    """Return whether a waiting job need not wait any longer: for its next attempt, or for its upstream job."""
    upstream_done = entry.upstream is None or board[entry.upstream].state is _S.SUCCEEDED
    return entry.not_before <= now and upstream_done


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
