"""What a pool of workers does if calls into Ray hang or fail, and if machines are of no use: without a real Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from orchestrator.execution import machines, ray_worker, worker_stops
from orchestrator.execution.machines import Look, Watch
from orchestrator.execution.placement import Node, Room, Wish
from orchestrator.execution.pool import Ended, RayAway
from orchestrator.execution.ray_pool import RayPool
from schemas.errors import ResourceError
from schemas.lifecycle import StopReason
from schemas.order import WorkerFacts, WorkOrder
from schemas.sweep import Needs
from tests.support.doubles import plan_of, result_of

NEEDS = Needs(1, 0.0, 0.1)
ORDER = WorkOrder(
    spec=plan_of("smoke").jobs[0], run_id="r", attempt=1, tracking_uri="", cache_dir="", checkpoint_dir=""
)
SECONDS = 20.0
"""After so long a test fails."""


class Ref:
    """Ray's reference of an answer, which a test gives."""

    answer: Any = None

    @property
    def is_ready(self) -> bool:
        return self.answer is not None


class Remote:
    """A method of a worker; `call` decides what becomes of it."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


class FakeRay:
    """A Ray of workers that answer as `hello` says for their node, on machines of one core."""

    is_private = False

    def __init__(self, *nodes: str) -> None:
        self.live, self.number = list(nodes), 0
        self.hello: dict[str, Any] = {}
        """What a worker answers first, by node; None for nothing wrong."""
        self.places: dict[str, str] = {}
        self.shows_places = True
        self.options_of: list[dict[str, Any]] = []
        """The options of each requested worker."""
        self.avoided: list[str] = []
        """The label selector of each requested worker."""
        self.runs: list[Ref] = []
        self.killed: list[str] = []
        self.ever = threading.Event()
        """What hangs, hangs until this is set."""
        self.hangs: set[str] = set()
        """Names of the calls that hang."""

    def look(self, workers: Sequence[str]) -> Look:
        used = list(self.places.values())
        nodes = tuple(Node(each, each, Room(1, 0, 8), Room(1 - used.count(each), 0, 8)) for each in self.live)
        return Look(nodes, dict(self.places) if self.shows_places else {})

    def join(self) -> None: ...

    def end_of_worker_log(self) -> str:
        return "See the logs."

    def options(self, **options: Any) -> Any:
        selector = options.get("label_selector", {}).get("ray.io/node-id", "")
        assert "(," not in selector
        assert "()" not in selector
        self.avoided.append(selector)
        self.options_of.append(options)
        return Remote(lambda *arguments: self._actor(selector))

    def _actor(self, selector: str) -> Any:
        self.number += 1
        name = f"w{self.number}"
        free = [each for each in self.live if each not in selector and each not in self.places.values()]
        hello = Ref()
        if free:
            self.places[name] = free[0]
            problem = self.hello.get(free[0])
            hello.answer = problem or WorkerFacts(node=free[0], host=free[0], cores=1).model_dump_json()
        method = {each: Remote(self._method(each)) for each in ("run", "progress", "stop", "preempt", "interrupt")}
        actor_id = SimpleNamespace(hex=lambda: name)
        return SimpleNamespace(_actor_id=actor_id, hello=Remote(lambda: hello), **method)

    def _method(self, name: str) -> Callable[..., Ref]:
        def call(*arguments: Any) -> Ref:
            self._hang(name)
            ref = Ref()
            if name == "run":
                self.runs.append(ref)
            return ref

        return call

    def _hang(self, name: str) -> None:
        if name in self.hangs:
            self.ever.wait()

    def wait(self, refs: list[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        ready = [ref for ref in refs if ref.is_ready][:num_returns]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref: Ref) -> Any:
        self._hang("get")
        if isinstance(ref.answer, Exception):
            raise ref.answer
        return ref.answer

    def kill(self, actor: Any) -> None:
        self._hang("kill")
        self.killed.append(actor._actor_id.hex())
        self.places.pop(actor._actor_id.hex(), None)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    found = FakeRay("a", "b")
    for name in ("wait", "get", "kill"):
        monkeypatch.setattr(ray, name, getattr(found, name))
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_worker, "CALL_SECONDS", 0.2)
    monkeypatch.setattr(machines, "LOOK_SECONDS", 0.01)
    yield found
    found.ever.set()


def turn_until(
    pool: RayPool, condition: Callable[[], bool], jobs: int = 0, avoid: str = "", shape: str = ""
) -> list[Ended]:
    found: list[Ended] = []
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, pool.waiting()
        pool.ask([Wish(NEEDS, frozenset(avoid.split()), shape)] * jobs)
        found += pool.wait(0.01)
    return found


def ended_of(pool: RayPool, number: int = 1) -> list[Ended]:
    found: list[Ended] = []
    end = time.monotonic() + SECONDS
    while len(found) < number:
        assert time.monotonic() < end
        found += pool.wait(0.01)
    return found


def pool_with(fake: FakeRay, workers: int) -> RayPool:
    pool = RayPool(lambda: fake, fake, 4, (NEEDS,))
    turn_until(pool, lambda: len(pool.idle()) == workers, workers)
    return pool


def test_an_order_that_cannot_be_handed_over_is_a_lost_worker(fake: FakeRay) -> None:
    pool = pool_with(fake, 1)
    fake.hangs.add("run")
    pool.start(0, ORDER)
    (ended,) = ended_of(pool)
    assert (ended.worker, ended.node, ended.result.stop_reason) == (0, "a", StopReason.WORKER_LOST)
    assert pool.idle() == []  # the order may still reach it


def test_a_result_that_ray_does_not_give_now_is_asked_for_again(fake: FakeRay) -> None:
    pool = pool_with(fake, 1)
    pool.start(0, ORDER)
    fake.runs[0].answer = result_of(ORDER).model_dump_json()
    fake.hangs.add("get")
    assert pool.wait(0.01) == []
    fake.hangs.clear()
    (ended,) = ended_of(pool)
    assert (ended.result.stop_reason, ended.is_told) == (StopReason.FINISHED, True)


def test_a_stop_waits_neither_for_ray_nor_for_workers(fake: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_stops, "HEAR_SECONDS", 0.5)
    fake.live = list("abcd")
    pool = pool_with(fake, 4)
    pool.start(0, ORDER)
    pool.start(1, ORDER)
    fake.hangs |= {"stop", "kill"}
    began = time.monotonic()
    pool.stop()
    assert time.monotonic() - began < 0.4  # not a limit of time for each of four workers
    assert [one.result.stop_reason for one in ended_of(pool, 2)] == [StopReason.INTERRUPTED] * 2
    pool.close()


def test_progress_of_a_worker_that_does_not_take_calls_is_not_waited_for(fake: FakeRay) -> None:
    pool = pool_with(fake, 2)
    pool.start(0, ORDER)
    pool.start(1, ORDER)
    fake.hangs.add("progress")
    began = time.monotonic()
    assert pool.progress() == {}
    assert time.monotonic() - began < 0.4


def test_a_machine_with_other_code_is_avoided_and_costs_no_job_a_retry(fake: FakeRay) -> None:
    other = WorkerFacts(node="a", host="a", cores=1, problem="Other code.").model_dump_json()
    fake.hello["a"] = other
    pool = RayPool(lambda: fake, fake, 2, (NEEDS,))
    assert turn_until(pool, lambda: len(pool.idle()) == 1, jobs=1) == []
    assert (pool.idle()[0].node, list(pool.nodes())) == ("b", ["b"])
    assert fake.avoided[-1] in ("", "!in(a)")
    fake.hello["b"] = other.replace('"a"', '"b"')
    pool.stop()
    with pytest.raises(ResourceError, match=r"No worker can start: On a: Other code\. On b: Other code\."):
        turn_until(pool, lambda: False, jobs=2)


@pytest.mark.parametrize("shows_places", [True, False])
def test_machines_on_which_three_workers_die_are_not_used(fake: FakeRay, shows_places: bool) -> None:
    fake.shows_places = shows_places
    for name in fake.live:
        fake.hello[name] = RayActorError(None, "No module named 'workers'")
    pool = RayPool(lambda: fake, fake, 2, (NEEDS,))
    with pytest.raises(ResourceError, match=r"No worker can start: No module named 'workers'\. See the logs\."):
        turn_until(pool, lambda: False, jobs=2)
    assert len(fake.avoided) in range(3, 9)
    assert fake.runs == []


def test_a_machine_that_lacks_data_is_used_when_it_is_tried_again(
    fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = RayPool(lambda: fake, fake, 1, (NEEDS,))
    turn_until(pool, lambda: "machines that would do are in use" in pool.waiting(), jobs=1, avoid="a b")
    assert fake.avoided == ["!in(a,b)"]  # a demand that a machine which joins meets
    turn_until(pool, lambda: len(pool.idle()) == 1, jobs=1)
    assert pool.idle()[0].node == "a"


def test_workers_whose_ray_is_gone_are_closed_without_asking_for_another(
    fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray.kill` would start a Ray first if none is running."""
    gone, there = pool_with(fake, 1), pool_with(fake, 1)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    gone.close()
    assert fake.killed == []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    there.close()
    assert len(fake.killed) == 1


def test_one_look_that_fails_is_no_lost_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "LOOK_SECONDS", 0.01)
    watches: list[Watch] = []
    answers, problems = iter([True, False, True, False, False]), list[str]()
    done = threading.Event()

    def look(workers: Sequence[str]) -> Look:
        problems.append(watches[0].problem if watches else "")
        answer = next(answers, None)
        if answer is None:
            done.set()
        if not answer:
            raise RayAway("away")
        return Look()

    watches.append(Watch(look))
    assert done.wait(SECONDS)
    watches[0].stop()
    assert problems[:6] == ["", "", "", "", "", "away"]
