"""Asks the workers of a pool how far their jobs are, without waiting for one that does not answer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.execution.in_time import Hung
from orchestrator.execution.ray_worker import RayWorker, answer_to, promptly
from schemas.order import Progress

MOST_UNHEARD = 2.0
"""Most seconds of silence counted per call: a longer gap means that the driver itself stood still."""


@dataclass
class Listening:
    """When the workers were asked last."""

    _at: float = 0.0

    def hear(self, workers: Iterable[RayWorker]) -> dict[int, Progress]:
        """Take the answers that have come, ask again, and count the silence of the others.

        Returns:
            The last known progress of each busy worker, by id.
        """
        import ray

        busy = [(one, one.order.spec.key) for one in workers if one.order is not None]
        asked = [worker.asked for worker, _ in busy if worker.asked is not None]
        ready: set[Any] = set()
        before, self._at = self._at, time.monotonic()
        passed = min(self._at - before, MOST_UNHEARD)
        with suppress(Hung):  # the watch notes that Ray does not answer
            if asked:
                ready = set(promptly(ray.wait, asked, num_returns=len(asked), timeout=0)[0])
            for worker, key in busy:
                if worker.asked is None:
                    worker.asked = promptly(worker.actor.progress.remote, key)
                elif worker.asked not in ready:
                    worker.silent += passed
                else:
                    answer, _ = answer_to(worker.asked)  # of a dead worker: `RayPool.wait` reports it
                    worker.asked, worker.silent = None, 0.0
                    worker.progress = Progress.model_validate_json(answer) if answer else worker.progress
        return {worker.id: worker.progress for worker, _ in busy if worker.progress is not None}
