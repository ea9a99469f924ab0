"""Which GPUs a worker of a real Ray sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.execution.ray_session import RaySession
from schemas.order import WorkOrder
from schemas.results import Failure
from schemas.sweep import Needs
from tests.support.doubles import plan_of
from tests.support.ray_workers import ended, pool_of_one, start_when_idle

pytestmark = pytest.mark.slow


def gpu_reporter() -> Any:
    """Return a worker class whose jobs end with a failure that names the visible GPUs."""
    import ray

    class GpuReporter:  # local, so that Ray pickles the class: its workers cannot import the tests
        def __init__(self) -> None:
            from workers.actor import hide_gpus_of_others

            hide_gpus_of_others()

        def hello(self) -> str:
            from workers.actor import own_facts

            return own_facts().model_dump_json()

        def run(self, order_json: str) -> str:
            import os

            from schemas.lifecycle import StopReason
            from schemas.order import WorkOrder
            from schemas.results import Failure, JobResult

            key = WorkOrder.model_validate_json(order_json).spec.key
            seen = Failure(kind="GPUs", message=os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
            result = JobResult(job_key=key, attempt=1, stop_reason=StopReason.FINISHED, failure=seen)
            return result.model_dump_json()

    return ray.remote(GpuReporter)


@pytest.fixture(scope="module")
def ray_with_gpu() -> Iterator[tuple[RaySession, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 1}')
        patch.setenv("CUDA_VISIBLE_DEVICES", "0")
        session = RaySession("local", cpus=1, memory_gb=1.0)
        session.start()
        try:
            yield session, gpu_reporter()
        finally:
            session.stop()


@pytest.mark.parametrize(("gpus", "seen"), [(0.0, ""), (0.5, "0")])
def test_a_worker_sees_a_gpu_only_where_it_has_a_share_of_one(
    ray_with_gpu: tuple[RaySession, Any], gpus: float, seen: str
) -> None:
    session, worker_class = ray_with_gpu
    pool = pool_of_one(session, worker_class, needs=Needs(1, gpus, 0.1))
    try:
        spec = plan_of("smoke").jobs[0]
        order = WorkOrder(spec=spec, run_id="r", attempt=1, tracking_uri="", cache_dir="", checkpoint_dir="")
        start_when_idle(pool, order)
        result = ended(pool).result
    finally:
        pool.close()
    assert result.failure == Failure(kind="GPUs", message=seen)
