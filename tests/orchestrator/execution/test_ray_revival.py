"""A private Ray whose node dies or whose head hangs. Apart from test_ray_pool.py, whose Ray is shared by its tests."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from orchestrator.execution import ray_session
from orchestrator.execution.in_time import within
from orchestrator.execution.pool import RayAway
from orchestrator.execution.ray_session import RaySession
from schemas.lifecycle import StopReason
from schemas.order import WorkOrder
from tests.support.doubles import plan_of
from tests.support.ray_workers import ended, pool_of_one, start_when_idle

pytestmark = pytest.mark.slow


def sleeper() -> Any:
    """Return a worker class whose first job does not end."""
    import ray

    class Sleeper:
        def hello(self) -> str:
            from workers.actor import own_facts

            return own_facts().model_dump_json()

        def run(self, order_json: str) -> str:
            import time

            from schemas.lifecycle import StopReason
            from schemas.order import WorkOrder
            from schemas.results import JobResult

            order = WorkOrder.model_validate_json(order_json)
            time.sleep(600 if order.attempt == 1 else 0)
            key = order.spec.key
            return JobResult(job_key=key, attempt=2, stop_reason=StopReason.FINISHED).model_dump_json()

    return ray.remote(max_restarts=0, max_task_retries=0)(Sleeper)


def test_a_ray_whose_node_dies_is_started_again_and_takes_jobs() -> None:
    session = RaySession("local", cpus=1, memory_gb=1.0)
    session.start()
    pool = pool_of_one(session, sleeper())
    order = WorkOrder(
        spec=plan_of("smoke").jobs[0], run_id="r", attempt=1, tracking_uri="", cache_dir="", checkpoint_dir=""
    )
    try:
        start_when_idle(pool, order)
        (raylet,) = [child for child in psutil.Process().children(recursive=True) if child.name() == "raylet"]
        raylet.kill()
        assert ended(pool).result.stop_reason in (StopReason.NODE_LOST, StopReason.WORKER_LOST)
        start_when_idle(pool, order.model_copy(update={"attempt": 2}))
        assert ended(pool).result.stop_reason is StopReason.FINISHED
    finally:
        pool.close()
        session.stop()


def test_a_head_that_hangs_is_asked_in_vain_only_for_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "ANSWER_SECONDS", 1.0)
    session = RaySession("local", cpus=1, memory_gb=1.0)
    session.start()
    try:
        (head,) = [child for child in psutil.Process().children(recursive=True) if child.name() == "gcs_server"]
        head.suspend()
        with pytest.raises(RayAway, match="does not answer"):
            within(20.0, session.look, ["0" * 32])
        head.resume()
        assert len(session.look(["0" * 32]).nodes) == 1
    finally:
        session.stop()
