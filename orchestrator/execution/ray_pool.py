"""Workers as Ray actors: one per slot, replaced when it dies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.execution.pool import Ended, WorkerLayout
from schemas.errors import ResourceError
from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkOrder
from schemas.results import Failure, JobResult

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.exceptions import RayError


NODE_DIED = "node has died"
"""Part of Ray's message, because an actor's death has one exception class, whether its process or its node died."""

CHECK_SECONDS = 10.0
"""Time between two checks whether Ray is still running."""

LOSSES = frozenset({StopReason.WORKER_LOST, StopReason.NODE_LOST})
"""Reasons after which Ray itself is checked."""


@dataclass
class RayPool:
    """The contract of `WorkerPool` on Ray. Ray's own retries are off, because the driver decides on every retry."""

    worker_class: Any
    """A Ray actor class with `run`, `progress` and `stop`, such as `workers.actor.worker_class()`."""
    layout: WorkerLayout
    cores: int = 1
    """See `WorkerPool.cores`."""
    revive: Callable[[], bool] = lambda: False
    """Restarts Ray if it has died; returns whether it did."""
    _next_check: float = 0.0
    _actors: dict[int, ActorHandle[Any]] = field(default_factory=dict)
    _busy: dict[Any, tuple[int, WorkOrder]] = field(default_factory=dict)
    """Slot and order of each running call, by its Ray reference."""
    _asked: dict[int, Any] = field(default_factory=dict)
    """Unanswered progress request of each slot."""
    _progress: dict[int, Progress] = field(default_factory=dict)
    """Last answer of each slot."""

    def __post_init__(self) -> None:
        for slot in range(self.layout.slots):
            self._spawn(slot)

    @property
    def slots(self) -> int:
        """See `WorkerPool.slots`."""
        return self.layout.slots

    def start(self, slot: int, order: WorkOrder) -> None:
        """See `WorkerPool.start`."""
        self._progress.pop(slot, None)
        self._asked.pop(slot, None)
        self._busy[self._actors[slot].run.remote(order.model_dump_json())] = (slot, order)

    def wait(self, seconds: float) -> list[Ended]:
        """See `WorkerPool.wait`.

        Raises:
            ResourceError: Ray has died and does not start again.
        """
        ended = self._wait(seconds)
        has_loss = any(one.result.stop_reason in LOSSES for one in ended)
        if has_loss or time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + CHECK_SECONDS
            ended += self._after_revival()
        return ended

    def _after_revival(self) -> list[Ended]:
        """Restart Ray if it has died, and end all running attempts: Ray would keep their calls and never run them."""
        if not self.revive():
            return []
        gone = ResourceError("Ray's node died and was restarted")
        ended = [Ended(slot, lost(order, StopReason.NODE_LOST, gone)) for slot, order in self._busy.values()]
        for table in (self._busy, self._asked, self._progress, self._actors):
            table.clear()
        for slot in range(self.layout.slots):
            self._spawn(slot)
        return ended

    def _wait(self, seconds: float) -> list[Ended]:
        import ray

        if not self._busy:
            time.sleep(min(seconds, 0.2))
            return []
        done, _ = ray.wait(list(self._busy), num_returns=1, timeout=seconds)
        if done and len(self._busy) > 1:
            done, _ = ray.wait(list(self._busy), num_returns=len(self._busy), timeout=0)
        return [self._collect(ref) for ref in done]

    def progress(self) -> dict[int, Progress]:
        """See `WorkerPool.progress`. Never waits for a worker."""
        import ray
        from ray.exceptions import RayError

        for slot in {slot for slot, _ in self._busy.values()}:
            asked = self._asked.get(slot)
            if asked is None:
                self._asked[slot] = self._actors[slot].progress.remote()
                continue
            ready, _ = ray.wait([asked], timeout=0)
            if not ready:
                continue
            del self._asked[slot]
            try:
                answer = ray.get(asked)
            except RayError:  # a dead worker; `wait` reports it
                continue
            if answer:
                self._progress[slot] = Progress.model_validate_json(answer)
        return dict(self._progress)

    def stop(self) -> None:
        """See `WorkerPool.stop`."""
        for slot, _ in self._busy.values():
            self._actors[slot].stop.remote()

    def interrupt(self, slot: int) -> None:
        """See `WorkerPool.interrupt`."""
        for busy, order in self._busy.values():
            if busy == slot:
                self._actors[slot].interrupt.remote(order.spec.key)

    def close(self) -> None:
        """See `WorkerPool.close`."""
        import ray

        if ray.is_initialized():  # otherwise the call would start a Ray
            for actor in self._actors.values():
                ray.kill(actor)
        self._actors.clear()
        self._busy.clear()

    def _spawn(self, slot: int) -> None:
        actor = self.worker_class.options(num_cpus=self.layout.cpus, num_gpus=self.layout.gpus)
        self._actors[slot] = actor.remote()

    def _collect(self, ref: Any) -> Ended:
        import ray
        from ray.exceptions import RayError

        slot, order = self._busy.pop(ref)
        self._progress.pop(slot, None)
        self._asked.pop(slot, None)
        cause: RayError
        try:
            return Ended(slot, JobResult.model_validate_json(ray.get(ref)))
        except RayError as error:
            reason, cause = reason_of_loss(error), error
        if reason is not StopReason.CODE_RAISED:
            ray.kill(self._actors[slot])  # it may only be unreachable and still be working
            self._spawn(slot)
        return Ended(slot, lost(order, reason, cause))


def reason_of_loss(error: RayError) -> StopReason:
    """Return why a worker ended without a result, from the exception that Ray raised."""
    from ray.exceptions import LocalRayletDiedError, NodeDiedError, OutOfMemoryError, RayActorError

    if isinstance(error, OutOfMemoryError):
        return StopReason.OUT_OF_MEMORY
    if isinstance(error, RayActorError) and error.preempted:
        return StopReason.PREEMPTED
    if isinstance(error, (NodeDiedError, LocalRayletDiedError)) or NODE_DIED in str(error):
        return StopReason.NODE_LOST
    return StopReason.WORKER_LOST if isinstance(error, RayActorError) else StopReason.CODE_RAISED


def lost(order: WorkOrder, reason: StopReason, error: Exception) -> JobResult:
    """Return the result of an attempt whose worker ended without one.

    Args:
        order: The attempt.
        reason: Why it ended.
        error: What Ray raised.
    """
    failure = Failure(kind=type(error).__name__, message=str(error))
    return JobResult(
        job_key=order.spec.key,
        attempt=order.attempt,
        stop_reason=reason,
        failure=failure,
        micro_batches=order.micro_batches,
    )
