"""Attempts of a pool that have ended, until the driver takes them.

The loss of a worker is held until Ray was seen to answer after it: otherwise Ray itself was lost, with all workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.execution.losses import lost
from orchestrator.execution.pool import Ended
from orchestrator.execution.ray_worker import RayWorker
from schemas.lifecycle import StopReason
from schemas.results import Failure


@dataclass
class AttemptEnds:
    """Ends that are known, and losses that are held."""

    _known: list[Ended] = field(default_factory=list)
    _held: list[tuple[Ended, float]] = field(default_factory=list)
    """Losses, and since when they are held."""

    def __bool__(self) -> bool:
        """Whether an end is known that was not taken."""
        return bool(self._known)

    def add(self, ended: Ended) -> None:
        """Note how an attempt ended."""
        self._known.append(ended)

    def end(self, worker: RayWorker, reason: StopReason, error: Exception | None) -> None:
        """Note that a worker's attempt, if it has one, ended without a result."""
        self._known += _lost(worker, reason, error)

    def hold(self, worker: RayWorker, reason: StopReason, error: Exception) -> None:
        """Note the same once Ray was seen to answer."""
        self._held += [(ended, time.monotonic()) for ended in _lost(worker, reason, error)]

    def release(self, seen_at: float) -> None:
        """Let go of the losses after which Ray was seen to answer: it was not Ray itself that was lost."""
        self._known += [ended for ended, since in self._held if since < seen_at]
        self._held = [(ended, since) for ended, since in self._held if since >= seen_at]

    def lose_ray(self, workers: Iterable[RayWorker], gone: Exception) -> None:
        """End all attempts as lost with their machine, those whose loss is held too."""
        failure = Failure(kind=type(gone).__name__, message=str(gone))
        update = {"stop_reason": StopReason.NODE_LOST, "failure": failure}
        self._known += [ended._replace(result=ended.result.model_copy(update=update)) for ended, _ in self._held]
        self._held.clear()
        for worker in workers:
            self.end(worker, StopReason.NODE_LOST, gone)

    def take(self) -> list[Ended]:
        """Return the ends that are known, each once."""
        known, self._known = self._known, []
        return known


def _lost(worker: RayWorker, reason: StopReason, error: Exception | None) -> list[Ended]:
    return [] if worker.order is None else [Ended(worker.id, lost(worker.order, reason, error), worker.node)]
