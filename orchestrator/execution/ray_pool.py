"""Workers as Ray actors: starting Ray, one actor per slot, and what a lost actor means."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.execution.pool import Ended, WorkerLayout
from orchestrator.ledger.lease import here
from schemas.errors import ResourceError
from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkOrder
from schemas.results import Failure, JobResult

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.exceptions import RayError


_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray's own words on dead workers go to stdout, in the middle of our JSON
}

RAY_PARENT, RAY_PREFIX, RAY_OWNER = "/tmp", "orch-ray-", "orch-driver"
"""Where a private Ray has its folder, and the file in it that says which process of which machine it belongs to."""

NODE_DIED = "node has died"
"""Words of Ray's message: an actor's death has one class, whether its process or its node is gone."""

LOOK_SECONDS = 10.0
"""Between two looks at whether Ray is still there."""

LOSSES = frozenset({StopReason.WORKER_LOST, StopReason.NODE_LOST})


@dataclass
class RayPool:
    """Ray's own retries are off: every retry is the driver's decision."""

    worker_class: Any
    """A Ray actor class with `run`, `progress` and `stop`, such as `workers.actor.worker_class()`."""
    shape: WorkerLayout
    cores: int = 1
    revive: Callable[[], bool] = lambda: False
    """Starts Ray anew should it be gone, which only whoever started it can do; true if it did."""
    _look_at: float = 0.0
    _actors: dict[int, ActorHandle[Any]] = field(default_factory=dict)
    _busy: dict[Any, tuple[int, WorkOrder]] = field(default_factory=dict)
    _asked: dict[int, Any] = field(default_factory=dict)
    _heard: dict[int, Progress] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for slot in range(self.shape.slots):
            self._spawn(slot)

    @property
    def slots(self) -> int:
        return self.shape.slots

    def start(self, slot: int, order: WorkOrder) -> None:
        self._heard.pop(slot, None)
        self._asked.pop(slot, None)
        self._busy[self._actors[slot].run.remote(order.model_dump_json())] = (slot, order)

    def wait(self, seconds: float) -> list[Ended]:
        ended = self._wait(seconds)
        lost_one = any(one.result.stop_reason in LOSSES for one in ended)
        if lost_one or time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            ended += self._after_revival()
        return ended

    def _after_revival(self) -> list[Ended]:
        """Without its node Ray takes jobs and never begins them, so what it has in hand ends here."""
        if not self.revive():
            return []
        gone = ResourceError("Ray's node died and was started again")
        ended = [Ended(slot, lost(order, StopReason.NODE_LOST, gone)) for slot, order in self._busy.values()]
        for held in (self._busy, self._asked, self._heard, self._actors):
            held.clear()
        for slot in range(self.shape.slots):
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
                self._heard[slot] = Progress.model_validate_json(answer)
        return dict(self._heard)

    def stop(self) -> None:
        for slot, _ in self._busy.values():
            self._actors[slot].stop.remote()

    def interrupt(self, slot: int) -> None:
        for busy, order in self._busy.values():
            if busy == slot:
                self._actors[slot].interrupt.remote(order.spec.key)

    def close(self) -> None:
        import ray

        if ray.is_initialized():  # else asking it for anything would start one
            for actor in self._actors.values():
                ray.kill(actor)
        self._actors.clear()
        self._busy.clear()

    def _spawn(self, slot: int) -> None:
        actor = self.worker_class.options(num_cpus=self.shape.cpus, num_gpus=self.shape.gpus)
        self._actors[slot] = actor.remote()

    def _collect(self, ref: Any) -> Ended:
        import ray
        from ray.exceptions import RayError

        slot, order = self._busy.pop(ref)
        self._heard.pop(slot, None)
        self._asked.pop(slot, None)
        cause: RayError
        try:
            return Ended(slot, JobResult.model_validate_json(ray.get(ref)))
        except RayError as error:
            reason, cause = reason_of_loss(error), error
        if reason is not StopReason.CODE_RAISED:
            ray.kill(self._actors[slot])  # one that only cannot be reached may still be at work
            self._spawn(slot)
        return Ended(slot, lost(order, reason, cause))


def reason_of_loss(error: RayError) -> StopReason:
    """What Ray knows of the end of a worker that handed in no result."""
    from ray.exceptions import LocalRayletDiedError, NodeDiedError, OutOfMemoryError, RayActorError

    if isinstance(error, OutOfMemoryError):
        return StopReason.OUT_OF_MEMORY
    if isinstance(error, RayActorError) and error.preempted:
        return StopReason.PREEMPTED
    if isinstance(error, (NodeDiedError, LocalRayletDiedError)) or NODE_DIED in str(error):
        return StopReason.NODE_LOST
    return StopReason.WORKER_LOST if isinstance(error, RayActorError) else StopReason.CODE_RAISED


def lost(order: WorkOrder, reason: StopReason, error: Exception) -> JobResult:
    failure = Failure(kind=type(error).__name__, message=str(error))
    return JobResult(
        job_key=order.spec.key,
        attempt=order.attempt,
        stop_reason=reason,
        failure=failure,
        micro_batches=order.micro_batches,
    )


@dataclass
class RaySession:
    """A private Ray that is started and stopped here, or a seat at a cluster that is not ours to stop."""

    address: str
    cpus: int
    _folder: str | None = None

    def start(self) -> None:
        """
        Raises:
            ResourceError: Ray did not start, or the cluster does not answer.
        """
        for name, value in _RAY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import ray

        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        on_sigterm, on_sighup = (signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP))
        is_main = threading.current_thread() is threading.main_thread()
        if is_main:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited: a closed terminal is for the driver to heed
        try:
            if self.address == "local":
                # Short, because the sockets below it may take 107 characters in all.
                self._folder = tempfile.mkdtemp(prefix=RAY_PREFIX, dir=RAY_PARENT)
                Path(self._folder, RAY_OWNER).write_text(f"{here()} {os.getpid()}")
                ray.init(address="local", num_cpus=self.cpus, include_dashboard=False, _temp_dir=self._folder, **quiet)
            else:
                ray.init(address=self.address, **quiet)
        except Exception as error:  # a node that dies while it starts is a plain Exception to Ray
            self.stop()
            raise ResourceError(
                f"Ray ({self.address}) cannot be used: {error}. "
                "See that memory and /tmp have room, or repair ORCH_RAY_ADDRESS."
            ) from error
        except BaseException:  # a second Ctrl-C
            self.stop()
            raise
        finally:
            if is_main:
                signal.signal(signal.SIGHUP, on_sighup)
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts one of its own there, which exits at once

    def revive(self) -> bool:
        """Start a private Ray again whose node is gone: where memory is short, the system may end just that process.

        Raises:
            ResourceError: it does not start again.
        """
        if self.address != "local" or self._is_up():
            return False
        self.stop()
        self.start()
        return True

    def _is_up(self) -> bool:
        import ray

        return any(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]

    def cores_of_a_node(self) -> int:
        """What a job that is alone may use: one that runs on a cluster has no use for the cores of the driver."""
        import ray

        if self.address == "local":
            return self.cpus
        nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        return max(1, int(min((cores for cores in nodes if cores), default=1)))

    def totals(self) -> dict[str, float]:
        import ray

        return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        import ray

        ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
