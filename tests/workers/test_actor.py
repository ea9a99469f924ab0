"""The worker takes and returns JSON, answers while a job runs, and runs no job after `stop`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkOrder
from schemas.results import JobResult
from tests.support.toy import toy_spec
from workers import job
from workers.actor import JobWorker

if TYPE_CHECKING:
    from tests.conftest import Store


@pytest.fixture
def order(store: Store, new_run: Callable[[], str], tmp_path: Path) -> WorkOrder:
    folders = {"cache_dir": str(tmp_path / "cache"), "checkpoint_dir": str(tmp_path / "checkpoints")}
    return WorkOrder(spec=toy_spec(), run_id=new_run(), attempt=3, tracking_uri=store.uri, **folders)


def test_a_worker_without_a_job_has_no_progress() -> None:
    assert JobWorker().progress(toy_spec().key) is None


def test_progress_is_what_the_job_said_last(order: WorkOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = JobWorker()
    heard: list[str | None] = []

    def pretend(order: WorkOrder, on_progress: Callable[[Progress], None], *_: Callable[[], bool]) -> JobResult:
        on_progress(Progress(job_key=order.spec.key, phase="training", epoch=2, epochs=4))
        heard.append(worker.progress(order.spec.key))
        return JobResult(job_key=order.spec.key, attempt=order.attempt, stop_reason=StopReason.FINISHED)

    monkeypatch.setattr(job, "run_job", pretend)
    result = JobResult.model_validate_json(worker.run(order.model_dump_json()))
    assert (result.attempt, result.stop_reason) == (3, StopReason.FINISHED)
    assert heard[0] is not None
    assert Progress.model_validate_json(heard[0]).epoch == 2
    assert worker.progress(order.spec.key) is None


def test_a_worker_that_was_stopped_interrupts_whatever_it_is_sent(order: WorkOrder) -> None:
    worker = JobWorker()
    worker.stop()
    for _ in range(2):
        result = JobResult.model_validate_json(worker.run(order.model_dump_json()))
        assert result.stop_reason is StopReason.INTERRUPTED


def test_an_order_of_another_version_fails_at_validation(order: WorkOrder) -> None:
    with pytest.raises(ValidationError, match="invented_later"):
        JobWorker().run(order.model_dump_json().replace('"attempt"', '"invented_later":1,"attempt"'))
