"""A private Ray whose node dies. Not in test_ray_pool.py, because the Ray of that file is shared by its tests."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from orchestrator.execution.pool import WorkerLayout
from orchestrator.execution.ray_pool import RayPool
from orchestrator.execution.ray_session import RaySession
from schemas.lifecycle import StopReason
from schemas.order import WorkOrder
from schemas.results import JobResult
from tests.support.doubles import plan_of

pytestmark = pytest.mark.slow


def sleeper() -> Any:
    """Return a worker class whose first job does not end."""
    import ray

    class Sleeper:
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
    session = RaySession("local", cpus=1)
    session.start()
    pool = RayPool(sleeper(), WorkerLayout(slots=1, cpus=1, gpus=0.0), revive=session.revive)
    order = WorkOrder(
        spec=plan_of("smoke").jobs[0], run_id="r", attempt=1, tracking_uri="", cache_dir="", checkpoint_dir=""
    )
    try:
        pool.start(0, order)
        (raylet,) = [child for child in psutil.Process().children(recursive=True) if child.name() == "raylet"]
        raylet.kill()
        assert _ended(pool).stop_reason in (StopReason.NODE_LOST, StopReason.WORKER_LOST)
        pool.start(0, order.model_copy(update={"attempt": 2}))
        assert _ended(pool).stop_reason is StopReason.FINISHED
    finally:
        pool.close()
        session.stop()


def _ended(pool: RayPool) -> JobResult:
    while not (ended := pool.wait(1.0)):
        pass
    return ended[0].result
