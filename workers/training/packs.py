"""Where the jobs of a process meet for each step, to train as one batched network.

Jobs run in threads and share nothing else. One that saves a checkpoint, measures, ends or fails is not waited for, so
which jobs step together depends on how fast each is. That changes rounding alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from schemas.job import JobSpec
from schemas.order import ReportPhase
from schemas.packs import pack_shape
from workers.training.gradients import Batch, Step
from workers.training.stacked import of_stacked

_LOGGER = logging.getLogger("orch.job")

PATIENCE = 0.1
"""Seconds for which the jobs of a pack wait for one that was with them; after that they wait for it when it is back."""
_REPORT_SECONDS = 1.0
"""Seconds between two reports of a job that waits until another one has been measured."""


class Pack:
    """Jobs of equal `pack_shape`. Members are any objects, one for each job."""

    def __init__(self, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without members.

        Args:
            patience: seconds for which a member that was there in the last step is waited for.
            clock: seconds that do not go backwards.
        """
        self._patience = patience
        self._clock = clock
        self._changed = threading.Condition()
        self._expected: set[Any] = set()
        self._waiting: dict[Any, Batch] = {}
        self._found: dict[Any, Step | None] = {}
        self._is_computing = False
        self._can_stack = True
        self.stacked = 0
        """Number of batches that were computed together with others."""

    @contextmanager
    def taking_part(self, member: Any) -> Iterator[None]:
        """Be waited for within the context."""
        with self._changed:
            self._expected.add(member)
        try:
            yield
        finally:
            with self._changed:
                self._expected.discard(member)
                self._waiting.pop(member, None)
                self._found.pop(member, None)
                self._changed.notify_all()

    def step(self, member: Any, batch: Batch) -> Step | None:
        """Compute a member's gradients together with those of the other members, each in its own thread.

        Returns:
            What the step has computed; None if the member is to compute it alone.
        """
        with self._changed:
            if not self._can_stack:
                self._expected.discard(member)
                self._changed.notify_all()
                return None
            self._expected.add(member)
            self._waiting[member] = batch
            self._changed.notify_all()
            self._wait(member)
            if member in self._found:
                return self._found.pop(member)
            group, self._waiting = self._waiting, {}
            self._is_computing = True
        found: dict[Any, Step | None] = dict.fromkeys(group)
        try:
            found |= self._compute(group)
        except BaseException:
            self._can_stack = False  # so that no other job ends by it
            raise
        finally:
            with self._changed:
                self._found |= {other: found[other] for other in group if other in self._expected}
                self._is_computing = False
                self._changed.notify_all()
        with self._changed:
            return self._found.pop(member)

    def _wait(self, member: Any) -> None:
        """Wait until a member's gradients are there, or it is to compute those of all who wait."""
        since = self._clock()
        while member not in self._found:
            if self._is_computing:
                self._changed.wait()
                since = self._clock()
                continue
            if self._expected <= self._waiting.keys():
                return
            left = since + self._patience - self._clock()
            if left <= 0:
                self._expected &= self._waiting.keys()
                return
            self._changed.wait(left)

    def _compute(self, group: Mapping[Any, Batch]) -> dict[Any, Step]:
        alike: dict[Any, list[Any]] = defaultdict(list)
        for member, batch in group.items():
            alike[batch.x_B.shape if batch.x_B is not None else None].append(member)
        found: dict[Any, Step] = {}
        for members in alike.values():
            if len(members) < 2 or not self._can_stack:
                continue
            try:
                steps = of_stacked([group[member] for member in members])
            except (RuntimeError, ValueError) as error:  # of torch: no memory for all, or what it cannot batch
                self._can_stack = False
                _LOGGER.warning("jobs of this process go on one by one, because they cannot train as one: %s", error)
                return found
            found |= dict(zip(members, steps, strict=True))
            self.stacked += len(members)
        return found


class Packs:
    """What the jobs of one process share."""

    def __init__(self, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without jobs; the arguments are those of `Pack`."""
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs = 0
        self._job_seconds = 0.0
        """Seconds that jobs have run here, summed over the jobs, until `_counted_at`."""
        self._counted_at = clock()
        self._packs: dict[str, Pack] = {}
        self._measuring = threading.Lock()

    def of(self, spec: JobSpec) -> Pack | None:
        """Return the pack of a job; None if it trains alone."""
        shape = pack_shape(spec)
        if not shape:
            return None
        with self._lock:
            return self._packs.setdefault(shape, Pack(self._patience))

    @contextmanager
    def running(self) -> Iterator[Callable[[], float]]:
        """Count a job within the context.

        Yields:
            Returns how many jobs have run in this process since the context began, as a mean over the time.
        """
        began, before = self._count(+1)

        def jobs_at_once() -> float:
            now, after = self._count(0)
            return (after - before) / (now - began) if now > began else 1.0

        try:
            yield jobs_at_once
        finally:
            self._count(-1)

    def _count(self, change: int) -> tuple[float, float]:
        """Change the number of running jobs; return the time and the seconds of jobs until then."""
        with self._lock:
            now = self._clock()
            self._job_seconds += self._jobs * (now - self._counted_at)
            self._jobs, self._counted_at = self._jobs + change, now
            return now, self._job_seconds

    @contextmanager
    def one_at_a_time(self, report: ReportPhase) -> Iterator[None]:
        """Keep the other jobs of this process out of the same context: libraries that draw are not made for threads.

        Args:
            report: called every second while another job is in it; an error that it raises ends the wait.
        """
        while not self._measuring.acquire(timeout=_REPORT_SECONDS):
            report("waiting for another job of this process")
        try:
            yield
        finally:
            self._measuring.release()
