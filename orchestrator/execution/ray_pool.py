"""Workers as Ray actors: one per slot, replaced when it dies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.execution.pool import Ended, RayAway, WorkerLayout
from orchestrator.wording import in_words
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

IN_CREATION = "creation task"
"""Part of Ray's message about a worker that raised an error while it started."""

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
    arguments: tuple[str, ...] = ()
    """Arguments of the worker class."""
    start_seconds: float = 120.0
    """Longest time that a worker may take to start."""
    end_of_log: Callable[[], str] = lambda: ""
    """Returns the last lines that a worker logged, as a sentence."""
    patience: float = 600.0
    """Seconds for which a cluster that does not answer is waited for."""
    _away_since: float | None = None
    """When the cluster was first found not to answer; None if it answers."""
    _dead: set[int] = field(default_factory=set)
    """Slots whose worker has died and was not replaced yet."""
    _next_check: float = 0.0
    _actors: dict[int, ActorHandle[Any]] = field(default_factory=dict)
    _starting: dict[int, tuple[Any, float]] = field(default_factory=dict)
    """Of each worker that has not answered yet: Ray's reference of its answer, and when it was created."""
    _has_begun: bool = False
    """Whether any worker has answered."""
    _ended: list[Ended] = field(default_factory=list)
    """Attempts that were ended here and that `wait` has not returned yet."""
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
        return 0 if self._away_since is not None else self.layout.slots

    def start(self, slot: int, order: WorkOrder) -> None:
        """See `WorkerPool.start`."""
        self._progress.pop(slot, None)
        self._asked.pop(slot, None)
        self._busy[self._actors[slot].run.remote(order.model_dump_json())] = (slot, order)

    def wait(self, seconds: float) -> list[Ended]:
        """See `WorkerPool.wait`.

        Raises:
            ResourceError: Ray has died and does not come back, or no worker starts.
        """
        if self._away_since is not None:
            self._wait_for_cluster(self._away_since, seconds)
            return []
        self._check_starts()
        ended, self._ended = self._ended, []
        ended += self._wait(0.0 if ended else seconds)
        has_loss = any(one.result.stop_reason in LOSSES for one in ended)
        if has_loss or time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + CHECK_SECONDS
            ended = self._after_revival(ended)
        for slot in self._dead:  # only now, because Ray's library waits for ever for a head that has gone
            self._respawn(slot)
        self._dead.clear()
        return ended

    def _after_revival(self, ended: list[Ended]) -> list[Ended]:
        """Restart Ray if it has died, and end all running attempts: Ray would keep their calls and never run them.

        Args:
            ended: The attempts that have just ended; the workers of some may have died with Ray.

        Returns:
            These and the attempts that end here, with Ray's end as the cause.
        """
        try:
            if not self.revive():
                return ended
            gone = ResourceError("Ray had died and was started or joined again")
        except RayAway as error:
            self._away_since = time.monotonic()
            gone = ResourceError(f"{error} The sweep waits for it for up to {in_words(self.patience)}")
        reported = [one for one in ended if one.result.stop_reason not in LOSSES]
        unreported = [Ended(slot, lost(order, StopReason.NODE_LOST, gone)) for slot, order in self._busy.values()]
        failure = Failure(kind=type(gone).__name__, message=str(gone))
        update = {"stop_reason": StopReason.NODE_LOST, "failure": failure}
        unreported += [
            Ended(slot, result.model_copy(update=update)) for slot, result in ended if (slot, result) not in reported
        ]
        for table in (self._busy, self._asked, self._progress, self._actors, self._starting):
            table.clear()
        self._dead.clear()
        for slot in range(self.slots):
            self._spawn(slot)
        return reported + unreported

    def _wait_for_cluster(self, since: float, seconds: float) -> None:
        if time.monotonic() < self._next_check:
            time.sleep(min(seconds, 0.2))
            return
        self._next_check = time.monotonic() + CHECK_SECONDS
        try:
            self.revive()
        except RayAway as error:
            if time.monotonic() - since >= self.patience:
                raise ResourceError(f"{error} It was waited for {in_words(self.patience)}.") from error
            return
        self._away_since = None
        for slot in range(self.slots):
            self._spawn(slot)

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
        self._check_starts()
        for slot, _ in list(self._busy.values()):
            if slot in self._starting:
                self._replace(slot, StopReason.INTERRUPTED, None)
            else:
                self._actors[slot].stop.remote()

    def interrupt(self, slot: int) -> None:
        """See `WorkerPool.interrupt`."""
        self._check_starts()
        for busy, order in list(self._busy.values()):
            if busy == slot and slot in self._starting:
                self._replace(slot, StopReason.INTERRUPTED, None)
            elif busy == slot:
                self._actors[slot].interrupt.remote(order.spec.key)

    def close(self) -> None:
        """See `WorkerPool.close`."""
        import ray

        if ray.is_initialized():  # otherwise the call would start a Ray
            for actor in self._actors.values():
                ray.kill(actor)
        for table in (self._busy, self._asked, self._progress, self._actors, self._starting):
            table.clear()

    def _spawn(self, slot: int) -> None:
        actor = self.worker_class.options(num_cpus=self.layout.cpus, num_gpus=self.layout.gpus)
        self._actors[slot] = actor.remote(*self.arguments)
        self._starting[slot] = (self._actors[slot].__ray_ready__.remote(), time.monotonic())

    def _check_starts(self) -> None:
        """Note which workers have started. Replace those that take too long.

        Raises:
            ResourceError: No worker has ever started, and one cannot.
        """
        for slot, (answer, since) in list(self._starting.items()):
            error = self._error_of(answer)
            if error is None:
                del self._starting[slot]
                self._has_begun = True
            elif isinstance(error, TimeoutError):
                if time.monotonic() - since >= self.start_seconds:
                    self._give_up(slot)
            elif not self._has_begun and IN_CREATION in str(error):
                raise ResourceError(f"No worker can start: {_last_line(error)}. {self.end_of_log()}") from error
            else:
                del self._starting[slot]  # it died; its job ends, or the next one

    def _error_of(self, answer: Any) -> Exception | None:
        """Return with which error a worker's start ended: TimeoutError if it goes on, None if the worker answered."""
        import ray
        from ray.exceptions import RayError

        try:
            ray.get(answer, timeout=0)
        except RayError as error:
            return error
        return None

    def _give_up(self, slot: int) -> None:
        late = ResourceError(
            f"A worker did not answer within {in_words(self.start_seconds)} (ORCH_WORKER_START_SECONDS). "
            f"{self.end_of_log()}"
        )
        if not self._has_begun:
            raise late
        self._replace(slot, StopReason.WORKER_LOST, late)

    def _replace(self, slot: int, reason: StopReason, error: Exception | None) -> None:
        """Kill a worker, end its attempt for a reason, and start another worker on its slot."""
        for ref, (busy, order) in list(self._busy.items()):
            if busy == slot:
                del self._busy[ref]
                self._ended.append(Ended(slot, lost(order, reason, error)))
        self._progress.pop(slot, None)
        self._asked.pop(slot, None)
        self._respawn(slot)

    def _respawn(self, slot: int) -> None:
        import ray

        ray.kill(self._actors[slot])  # it may only be unreachable and still be working
        self._spawn(slot)

    def _collect(self, ref: Any) -> Ended:
        import ray
        from ray.exceptions import RayError

        slot, order = self._busy.pop(ref)
        if slot in self._starting:
            self._check_starts()
        self._progress.pop(slot, None)
        self._asked.pop(slot, None)
        cause: RayError
        try:
            return Ended(slot, JobResult.model_validate_json(ray.get(ref)))
        except RayError as error:
            reason, cause = reason_of_loss(error), error
        if reason is not StopReason.CODE_RAISED:
            self._dead.add(slot)
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


def _last_line(error: Exception) -> str:
    """Return the last line of Ray's message: the error that a worker raised, after its traceback."""
    return str(error).strip().splitlines()[-1].rstrip(".")


def lost(order: WorkOrder, reason: StopReason, error: Exception | None) -> JobResult:
    """Return the result of an attempt whose worker ended without one.

    Args:
        order: The attempt.
        reason: Why it ended.
        error: What Ray raised; None if the attempt was stopped on request.
    """
    failure = Failure(kind=type(error).__name__, message=str(error)) if error else None
    return JobResult(
        job_key=order.spec.key,
        attempt=order.attempt,
        stop_reason=reason,
        failure=failure,
        micro_batches=order.micro_batches,
    )
