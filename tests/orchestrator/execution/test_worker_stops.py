"""How workers are stopped and killed, without a Ray: what they hear, how long they may take, and whose job is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from orchestrator.execution.attempt_ends import AttemptEnds
from orchestrator.execution.placement import Wish
from orchestrator.execution.ray_worker import RayWorker, RayWorkers
from orchestrator.execution.worker_stops import HEAR_SECONDS, SAVE_SECONDS, WorkerStops
from schemas.lifecycle import StopReason
from schemas.order import WorkerFacts
from tests.orchestrator.execution.test_pool_and_faults import NEEDS, ORDER, SECONDS, Remote

FACTS = WorkerFacts(node="a", host="a", cores=4)


class Processes:
    """Workers whose processes hear every call, unless a test makes them deaf."""

    def __init__(self) -> None:
        self.now = 0.0
        self.workers = RayWorkers()
        self.ends = AttemptEnds()
        self.stops = WorkerStops(self.workers, self.ends, lambda: self.now)
        self.heard: list[tuple[str, ...]] = []
        self.killed: list[str] = []
        self.can_hear = threading.Event()
        self.can_hear.set()

    def add(self, *, jobs: int = 1, places: int = 1) -> None:
        """Add a process with some places, the first of which have jobs."""
        process = len(self.workers)
        actor: Any = SimpleNamespace(
            name=f"process {process}", **{name: Remote(self._call(name)) for name in ("stop", "preempt", "interrupt")}
        )
        for place in range(places):
            worker = RayWorker(process + place, process, Wish(NEEDS), NEEDS, actor, None, 0.0, facts=FACTS)
            if place < jobs:
                worker.begin_job(ORDER)
            self.workers[worker.id] = worker

    def _call(self, name: str) -> Callable[..., tuple[str, ...]]:
        return lambda *arguments: (name, *arguments)

    def get(self, call: tuple[str, ...]) -> None:
        self.can_hear.wait(SECONDS)
        self.heard.append(call)

    def after(self, seconds: float) -> None:
        """Let time pass, once what was asked has been heard or cannot be."""
        for worker in self.workers.values():
            if worker.heard is not None and self.can_hear.is_set():
                assert worker.heard.wait(SECONDS)
        self.now += seconds
        self.stops.kill_deaf()

    def ended(self) -> list[tuple[int, StopReason]]:
        self.ends.release(float("inf"))
        return sorted((one.worker, one.result.stop_reason) for one in self.ends.take())


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    made = Processes()
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get", made.get)
    monkeypatch.setattr(ray, "kill", lambda actor: made.killed.append(actor.name))
    yield made
    made.can_hear.set()


def test_a_worker_that_hears_may_take_long_to_save_its_job(processes: Processes) -> None:
    processes.add()
    processes.stops.interrupt(processes.workers[0])
    processes.after(HEAR_SECONDS)
    assert processes.heard == [("interrupt", ORDER.spec.key)]
    processes.after(SAVE_SECONDS - 1)
    assert processes.ended() == []
    processes.after(1)
    assert processes.ended() == [(0, StopReason.INTERRUPTED)]
    assert not processes.workers


def test_a_worker_that_does_not_hear_is_killed_soon(processes: Processes) -> None:
    processes.can_hear.clear()
    processes.add()
    processes.stops.preempt(processes.workers[0])
    processes.after(HEAR_SECONDS - 1)
    assert processes.ended() == []
    processes.after(1)
    assert processes.ended() == [(0, StopReason.PREEMPTED)]


def test_all_are_stopped_and_those_without_a_job_killed(processes: Processes) -> None:
    processes.add()
    processes.add(jobs=0)
    processes.stops.stop_all()
    assert list(processes.workers) == [0]
    processes.stops.kill_all(SECONDS)
    assert processes.killed == ["process 1", "process 0"]
    assert processes.heard == [("stop",)]
    assert not processes.workers


def test_a_place_without_a_job_does_not_end_the_process_of_a_pack(processes: Processes) -> None:
    processes.add(jobs=1, places=2)
    processes.stops.stop_all()
    assert len(processes.workers) == 2


def test_a_process_that_takes_no_more_jobs_is_let_go_after_its_last(processes: Processes) -> None:
    processes.add(jobs=2, places=2)
    first, second = processes.workers.values()
    processes.stops.preempt(first)
    for worker in (first, second):
        processes.stops.let_go(worker)
        assert len(processes.workers) == 2
        worker.end_job()
    processes.stops.let_go(second)
    assert not processes.workers


@pytest.mark.parametrize(
    ("why", "others"),
    [
        (StopReason.OUT_OF_MEMORY, StopReason.WORKER_LOST),
        (StopReason.NODE_LOST, StopReason.NODE_LOST),
        (StopReason.PREEMPTED, StopReason.PREEMPTED),
    ],
)
def test_the_others_of_a_process_are_lost_with_it_and_share_only_a_loss(
    processes: Processes, why: StopReason, others: StopReason
) -> None:
    processes.add(jobs=3, places=3)
    one, asked, _ = processes.workers.values()
    processes.stops.interrupt(asked)
    processes.stops.kill(one, why)
    assert processes.ended() == [(1, StopReason.INTERRUPTED), (2, others)]
