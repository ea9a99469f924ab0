"""Workers on a real Ray cluster whose nodes join, leave, hang and drain."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from orchestrator.execution.losses import LOSSES
from orchestrator.execution.placement import Wish
from orchestrator.execution.pool import Ended
from orchestrator.execution.ray_pool import RayPool
from orchestrator.execution.ray_session import RaySession
from schemas.lifecycle import StopReason
from schemas.order import WorkOrder
from schemas.sweep import Needs
from tests.support.doubles import plan_of

pytestmark = pytest.mark.slow

NEEDS = Needs(1, 0.0, 0.1)
ORDER = WorkOrder(
    spec=plan_of("smoke").jobs[0], run_id="r", attempt=1, tracking_uri="", cache_dir="", checkpoint_dir=""
)


def sleeper() -> Any:
    """Return a worker class whose jobs end when they are asked to."""
    import ray

    class Sleeper:
        def __init__(self) -> None:
            import threading

            self._asked = threading.Event()
            self._reason = "interrupted"

        def hello(self) -> str:
            from workers.actor import own_facts

            return own_facts().model_dump_json()

        def run(self, order_json: str) -> str:
            from schemas.lifecycle import StopReason
            from schemas.order import WorkOrder
            from schemas.results import JobResult

            order = WorkOrder.model_validate_json(order_json)
            self._asked.wait(600)
            result = JobResult(job_key=order.spec.key, attempt=order.attempt, stop_reason=StopReason(self._reason))
            return result.model_dump_json()

        def progress(self, job_key: str) -> None: ...

        def stop(self) -> None:
            self._asked.set()

        def preempt(self) -> None:
            self._reason = "preempted"
            self._asked.set()

    return ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=3)(Sleeper)


class Site:
    """A cluster whose head has no CPU, and pools on it."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.session = RaySession(self.cluster.address, cpus=1)
        self.session.start()
        self.pools: list[RayPool] = []

    def pool(self, limit: int = 4) -> RayPool:
        self.pools.append(RayPool(sleeper, self.session, limit, (NEEDS,)))
        return self.pools[-1]

    def close(self) -> None:
        for pool in self.pools:
            pool.close()
        self.session.stop()
        self.cluster.shutdown()


@pytest.fixture
def site() -> Iterator[Site]:
    """A cluster for each test: Ray places workers on a node that died until it has missed it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_health_check_failure_threshold", "30")
        site = Site()
        try:
            yield site
        finally:
            site.close()


def turn_until(pools: list[RayPool], jobs: int, condition: Callable[[], bool], within: float = 60.0) -> list[Ended]:
    """Ask for workers for so many jobs of each pool, until a condition holds; return the attempts that ended."""
    found: list[Ended] = []
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until, [pool.waiting() for pool in pools]
        for pool in pools:
            pool.ask([Wish(NEEDS)] * jobs)
            found += pool.wait(0.2)
    return found


def ended_of(pool: RayPool, jobs: int = 0, within: float = 60.0) -> Ended:
    found: list[Ended] = []
    until = time.monotonic() + within
    while not found:
        assert time.monotonic() < until, "no attempt has ended"
        pool.ask([Wish(NEEDS)] * jobs)
        found += pool.wait(0.2)
    return found[0]


def raylet_of(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def test_zero_machines_are_waited_for_and_one_that_joins_is_used(site: Site) -> None:
    pool = site.pool()
    turn_until([pool], 2, lambda: "2 jobs wait: the cluster has no machine for workers" in pool.waiting())
    site.cluster.add_node(num_cpus=1)
    began = time.monotonic()
    turn_until([pool], 2, lambda: pool.size == 1)
    assert time.monotonic() - began < 15
    site.cluster.add_node(num_cpus=1)
    turn_until([pool], 2, lambda: pool.size == 2)


def test_a_node_lost_for_good_does_not_bind_its_job_while_a_worker_is_idle(site: Site) -> None:
    pool = site.pool()
    nodes = [site.cluster.add_node(num_cpus=1) for _ in range(2)]
    turn_until([pool], 2, lambda: len(pool.idle()) == 2)
    dying = next(one for one in pool.idle() if one.node == nodes[0].node_id)
    pool.start(dying.worker, ORDER)
    site.cluster.remove_node(nodes[0], allow_graceful=False)
    ended = ended_of(pool)
    assert ended.worker == dying.worker
    assert ended.result.stop_reason in LOSSES  # Ray often says only that the worker is gone
    (idle,) = pool.idle()
    assert idle.node == nodes[1].node_id
    pool.start(idle.worker, ORDER.model_copy(update={"attempt": 2}))
    pool.stop()
    assert ended_of(pool).result.attempt == 2


def test_a_node_that_drains_saves_first(site: Site) -> None:
    import ray
    from ray.core.generated import autoscaler_pb2

    pool = site.pool()
    node = site.cluster.add_node(num_cpus=1)
    turn_until([pool], 1, lambda: len(pool.idle()) == 1)
    pool.start(pool.idle()[0].worker, ORDER)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int(time.time() * 1000) + 60_000
    ray._private.worker.global_worker.gcs_client.drain_node(node.node_id, reason, "taken away", deadline)
    ended = ended_of(pool, within=20)
    assert (ended.result.stop_reason, ended.is_told) == (StopReason.PREEMPTED, True)
    assert pool.idle() == []


def test_a_worker_that_hangs_does_not_hold_up_a_stop(site: Site) -> None:
    pool = site.pool()
    node = site.cluster.add_node(num_cpus=1)
    turn_until([pool], 1, lambda: len(pool.idle()) == 1)
    pool.start(pool.idle()[0].worker, ORDER)
    raylet = raylet_of(node)
    stopped = [raylet, *raylet.children(recursive=True)]
    for process in stopped:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        pool.stop()
        began = time.monotonic()
        assert ended_of(pool, within=20).result.stop_reason is StopReason.INTERRUPTED
        assert time.monotonic() - began < 12
    finally:
        for process in stopped:
            if process.is_running():
                os.kill(process.pid, signal.SIGCONT)


def test_a_worker_that_hangs_loses_its_job_once_another_machine_can_take_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.execution.ray_pool.SILENT_SECONDS", 2.0)
    pool = site.pool()
    node = site.cluster.add_node(num_cpus=1)
    turn_until([pool], 1, lambda: len(pool.idle()) == 1)
    hanging = pool.idle()[0].worker
    pool.start(hanging, ORDER)
    raylet = raylet_of(node)
    stopped = [raylet, *raylet.children(recursive=True)]
    for process in stopped:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        until = time.monotonic() + 6
        while time.monotonic() < until:
            pool.progress()
            pool.ask([])
            assert pool.wait(0.2) == []  # no other machine can take it
        new = site.cluster.add_node(num_cpus=1)
        found: list[Ended] = []
        until = time.monotonic() + 30
        while not found:
            assert time.monotonic() < until
            pool.progress()
            pool.ask([])
            found = pool.wait(0.2)
        assert [(one.worker, one.result.stop_reason) for one in found] == [(hanging, StopReason.NODE_LOST)]
        turn_until([pool], 1, lambda: [one.node for one in pool.idle()] == [new.node_id])
    finally:
        for process in stopped:
            if process.is_running():
                os.kill(process.pid, signal.SIGCONT)


def test_two_pools_share_two_cpus_and_one_that_needs_none_gives_its_own_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.execution.ray_pool.GRACE_SECONDS", 1.0)
    first, second = site.pool(), site.pool()
    site.cluster.add_node(num_cpus=2)
    turn_until([first], 2, lambda: first.size == 2)
    turn_until([second], 1, lambda: "machines that would do are in use" in second.waiting())
    until = time.monotonic() + 60
    while not second.size:
        assert time.monotonic() < until
        first.ask([Wish(NEEDS)])  # it can use one worker only
        second.ask([Wish(NEEDS)])
        assert first.wait(0.1) == second.wait(0.1) == []
    assert first.size == second.size == 1
