"""Stops the jobs of a pool's workers and kills workers, without waiting for a Ray that may not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from orchestrator.execution.attempt_ends import AttemptEnds
from orchestrator.execution.in_time import Background
from orchestrator.execution.losses import LOSSES
from orchestrator.execution.ray_worker import RayWorker, RayWorkers
from schemas.errors import ResourceError
from schemas.lifecycle import StopReason

HEAR_SECONDS = 6.0
"""How long a worker may take to hear that it should stop its job, before it is killed."""
SAVE_SECONDS = 300.0
"""How long a worker may take to end its job after it has heard so, before it is killed."""


@dataclass
class WorkerStops:
    """What ends the workers of a pool, or their jobs; it notes how the attempts end."""

    workers: RayWorkers
    """The pool's workers; those that are killed are removed."""
    ends: AttemptEnds
    """Receives the ends of their attempts."""
    clock: Callable[[], float] = time.monotonic
    _kills: list[Background[None]] = field(default_factory=list)
    """Unanswered requests to kill workers."""

    def stop_all(self) -> None:
        """Ask every worker to save its job and stop it, and kill those without one."""
        for worker in list(self.workers.values()):
            if worker.order is not None:
                self._ask(worker, worker.actor.stop, StopReason.INTERRUPTED)
            elif self.workers.is_free(worker):
                self.kill(worker)

    def interrupt(self, worker: RayWorker) -> None:
        """Ask a worker to save its job and stop it; the others of its process go on."""
        if worker.order is not None:
            self._ask(worker, worker.actor.interrupt, StopReason.INTERRUPTED, worker.order.spec.key)

    def preempt(self, worker: RayWorker) -> None:
        """Ask a worker to save its job, which is to go on elsewhere; its process takes no more jobs."""
        self._ask(worker, worker.actor.preempt, StopReason.PREEMPTED)
        self.take_no_more(worker)

    def _ask(self, worker: RayWorker, method: Any, reason: StopReason, *arguments: str) -> None:
        import ray

        worker.reason = reason
        worker.kill_at = self.clock() + HEAR_SECONDS
        worker.heard = Background(lambda: ray.get(method.remote(*arguments)))

    def kill_deaf(self) -> None:
        """Kill workers that were asked to stop their job and do not hear it, or do not end it."""
        now = self.clock()
        for worker in [one for one in self.workers.values() if one.kill_at is not None]:
            if worker.id not in self.workers:
                continue  # lost with another job of its process
            if worker.heard is not None and worker.heard.wait(0):
                worker.heard, worker.kill_at = None, now + SAVE_SECONDS
            if worker.kill_at is not None and now >= worker.kill_at and worker.order is not None:
                self.ends.end(worker, worker.reason, None)
                self.kill(worker)

    def take_no_more(self, worker: RayWorker) -> None:
        """Give a worker's process no more jobs."""
        for one in self.workers.of_process(worker):
            one.is_leaving = True

    def let_go(self, worker: RayWorker) -> None:
        """Kill a worker's process if it takes no more jobs and has none."""
        if worker.is_leaving and self.workers.is_free(worker):
            self.kill(worker)

    def lose(self, worker: RayWorker, reason: StopReason, error: Exception) -> None:
        """End the attempt of a worker that is gone, or only unreachable and still working."""
        self.ends.hold(worker, reason, error)
        self.kill(worker, reason)

    def kill(self, worker: RayWorker, reason: StopReason = StopReason.WORKER_LOST) -> None:
        """Kill a worker's process without waiting for Ray. Its other jobs are lost with it.

        Args:
            worker: The worker, whose own job the caller has ended.
            reason: Why it is killed.
        """
        import ray

        for other in self.workers.of_process(worker):
            del self.workers[other.id]
            if other is worker:
                continue
            if other.kill_at is not None:  # it was asked to stop too
                self.ends.end(other, other.reason, None)
            else:
                gone = ResourceError("The process of its pack has ended")
                shared = reason in LOSSES or reason is StopReason.PREEMPTED
                self.ends.hold(other, reason if shared else StopReason.WORKER_LOST, gone)
        self._kills = [kill for kill in self._kills if not kill.wait(0)]
        if ray.is_initialized():  # otherwise the call would start a Ray
            self._kills.append(Background(partial(ray.kill, worker.actor)))

    def kill_all(self, seconds: float) -> None:
        """Kill all workers, and wait up to some seconds until Ray has heard so."""
        for worker in list(self.workers.values()):
            self.kill(worker)
        until = self.clock() + seconds
        for kill in self._kills:
            kill.wait(max(0.0, until - self.clock()))
        self._kills.clear()
