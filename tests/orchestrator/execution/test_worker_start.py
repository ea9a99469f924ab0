"""What real workers inherit from the terminal of their driver, and what becomes of workers that do not start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.ray_session import RaySession
from orchestrator.import_path import HOME
from schemas.errors import ResourceError
from schemas.order import WorkOrder
from tests.support.doubles import plan_of
from tests.support.ray_workers import ended, pool_of_one, start_when_idle

pytestmark = pytest.mark.slow

ORDER = WorkOrder(
    spec=plan_of("smoke").jobs[0], run_id="r", attempt=1, tracking_uri="", cache_dir="", checkpoint_dir=""
)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaySession]:
    """A Ray that was started in a folder, and with variables, that would divert its workers."""
    project = tmp_path_factory.mktemp("project")
    for name in ("queue.py", "calendar.py", "sitecustomize.py", "schemas/__init__.py", "workers/__init__.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(f"raise SystemExit('{name} of the project was imported')")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("PYTHONPATH", f"{HOME}:")
        patch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
        patch.setenv("RAY_RUNTIME_ENV_HOOK", "no.such.hook")
        patch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {"working_dir": "/nowhere"}}))
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "1")
        session = RaySession("local", cpus=1, memory_gb=1.0)
        session.start()
        try:
            assert Path.cwd() == project
            yield session
        finally:
            session.stop()


def classes() -> tuple[Any, Any, Any]:
    """Return worker classes that report what they import, that take for ever to start, and that fail to start."""
    import ray

    class Reporter:  # local, so that Ray pickles the class: its workers cannot import the tests
        def hello(self) -> str:
            from workers.actor import own_facts

            return own_facts().model_dump_json()

        def run(self, order_json: str) -> str:
            import calendar
            import sys

            import workers.actor
            from schemas.lifecycle import StopReason
            from schemas.order import WorkOrder
            from schemas.results import Failure, JobResult

            key = WorkOrder.model_validate_json(order_json).spec.key
            seen = Failure(kind=str(workers.actor.__file__), message=str(calendar.__file__), traceback=str(sys.path))
            failed = JobResult(job_key=key, attempt=1, stop_reason=StopReason.FINISHED, failure=seen)
            return failed.model_dump_json()

    class Slow:
        def __init__(self) -> None:
            import sys
            import time

            print("still importing", file=sys.stderr, flush=True)
            time.sleep(600)

        def hello(self) -> str:
            return ""

    class Broken(Slow):
        def __init__(self) -> None:
            raise ImportError("no module of that name")

    return ray.remote(Reporter), ray.remote(max_restarts=0)(Slow), ray.remote(max_restarts=0)(Broken)


def test_workers_import_the_running_orch_whatever_lies_in_the_working_folder(session: RaySession) -> None:
    pool = pool_of_one(session, classes()[0])
    try:
        start_when_idle(pool, ORDER)
        seen = ended(pool).result.failure
    finally:
        pool.close()
    assert seen is not None
    assert seen.kind == f"{HOME}/workers/actor.py"
    assert str(Path.cwd()) not in seen.message + seen.traceback


def test_workers_that_do_not_start_end_the_sweep_with_the_end_of_their_log(session: RaySession) -> None:
    pool = pool_of_one(session, classes()[1], start_seconds=8.0)
    try:
        with pytest.raises(ResourceError, match=r"(?s)did not answer within 8 s .ORCH_WORKER_START_SECONDS.*importing"):
            ended(pool)
    finally:
        pool.close()


def test_workers_that_cannot_start_end_the_sweep_with_the_cause(session: RaySession) -> None:
    pool = pool_of_one(session, classes()[2])
    try:
        with pytest.raises(ResourceError, match="No worker can start: ImportError: no module of that name"):
            ended(pool)
    finally:
        pool.close()


def test_a_worker_that_has_not_started_is_released_at_once_when_the_sweep_stops(session: RaySession) -> None:
    pool = pool_of_one(session, classes()[1])
    try:
        assert pool.wait(0.5) == []
        pool.stop()
        assert pool.wait(0.5) == []
        assert pool.idle() == []
        assert pool.size == 0
    finally:
        pool.close()
