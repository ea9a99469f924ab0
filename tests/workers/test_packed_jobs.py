"""Jobs in threads of one process: each leaves what it leaves alone, its own log, and a checkpoint to go on from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from schemas.job import JobSpec
from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkOrder
from schemas.packs import Packing
from schemas.results import JobResult
from tests.support.toy import toy_spec
from workers.actor import JobWorker
from workers.checkpoints.loading import load_checkpoint
from workers.job import run_job
from workers.tracking.job_log import log_path
from workers.training.packs import Packs

if TYPE_CHECKING:
    from tests.conftest import Store

SECONDS = 60.0
TOLERANCE = 1e-4
SPECS = [toy_spec(train__freeze_below="top_conv", train__epochs=2, model__dropout=0.5, seed=seed) for seed in (0, 1)]
TOGETHER = "training as one network"

MakeOrder = Callable[..., WorkOrder]


@pytest.fixture
def make_order(store: Store, new_run: Callable[[], str], tmp_path: Path) -> MakeOrder:
    def make(spec: JobSpec, folder: str, attempt: int = 1, run_id: str = "") -> WorkOrder:
        return WorkOrder(
            spec=spec, run_id=run_id or new_run(), attempt=attempt, tracking_uri=store.uri,
            cache_dir=str(tmp_path / "cache"), checkpoint_dir=str(tmp_path / folder), log_dir=str(tmp_path / folder),
        )  # fmt: skip

    return make


def state_of(result: JobResult) -> dict[str, Any]:
    assert result.stop_reason is StopReason.FINISHED, result.failure
    assert result.checkpoint is not None
    return load_checkpoint(result.checkpoint, result.job_key)


def assert_alike(found: JobResult, alone: JobResult) -> None:
    one, other = state_of(found), state_of(alone)
    torch.testing.assert_close(one["network"], other["network"], rtol=TOLERANCE, atol=TOLERANCE)
    assert (found.in_pack, alone.in_pack) == (True, False)
    assert 1.0 == alone.jobs_at_once < found.jobs_at_once <= 2.0
    assert [record["epoch"] for record in one["records"]] == [record["epoch"] for record in other["records"]]
    for mine, expected in zip(one["records"], other["records"], strict=True):
        assert mine["task_loss"] == pytest.approx(expected["task_loss"], rel=TOLERANCE)
    assert found.metrics is not None
    assert found.metrics.test_accuracy == pytest.approx(alone.metrics.test_accuracy if alone.metrics else None)


def run_together(jobs: list[Callable[[], JobResult]]) -> list[JobResult]:
    found: dict[int, JobResult] = {}

    def run(number: int) -> None:
        found[number] = jobs[number]()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SECONDS)
    return [found[number] for number in range(len(jobs))]


def meeting(parties: int) -> Callable[[Progress], None]:
    """Return a receiver of progress with which jobs wait for each other before their first step."""
    barrier, met = threading.Barrier(parties), threading.local()

    def receive(progress: Progress) -> None:
        if progress.phase == "training" and not hasattr(met, "yes"):
            met.yes = True
            barrier.wait(SECONDS)

    return receive


def log_of(order: WorkOrder) -> str:
    assert order.log_dir is not None
    return log_path(Path(order.log_dir), order.spec.key, order.attempt).read_text(encoding="utf-8")


def test_jobs_of_a_pack_leave_what_they_leave_alone_and_a_stopped_one_goes_on_in_a_pack(make_order: MakeOrder) -> None:
    alone = [run_job(make_order(spec, "alone"), lambda _: None, lambda: False) for spec in SPECS]
    orders = [make_order(spec, "packed") for spec in SPECS]
    packs, receive = Packs(SECONDS), meeting(2)
    stopping: list[Progress] = []

    def receive_and_keep(progress: Progress) -> None:
        receive(progress)
        stopping.append(progress)

    def is_in_second_epoch() -> bool:
        return any(progress.epoch == 1 for progress in stopping)

    first, stopped = run_together([
        partial(run_job, orders[0], receive, lambda: False, packs=packs),
        partial(run_job, orders[1], receive_and_keep, is_in_second_epoch, packs=packs),
    ])  # fmt: skip
    assert_alike(first, alone[0])
    assert stopped.stop_reason is StopReason.INTERRUPTED
    assert stopped.checkpoint is not None

    third = toy_spec(train__freeze_below="top_conv", train__epochs=1, model__dropout=0.5, seed=2)
    again = make_order(SPECS[1], "packed", attempt=2, run_id=orders[1].run_id)
    other, receive = make_order(third, "packed"), meeting(2)
    resumed, _ = run_together([
        partial(run_job, order, receive, lambda: False, packs=packs) for order in (again, other)
    ])  # fmt: skip
    assert_alike(resumed, alone[1])
    later = run_job(make_order(SPECS[1], "packed", attempt=3, run_id=orders[1].run_id), lambda _: None, lambda: False)
    assert (later.in_pack, alone[1].in_pack) == (True, False), "the weights were trained in a pack"
    for order in (*orders, again, other):
        log = log_of(order)
        assert TOGETHER in log
        assert log.count("attempt ") == 1, "a log has the lines of another job"


def test_a_worker_runs_as_many_jobs_as_asked_for_and_answers_for_each(make_order: MakeOrder) -> None:
    packing = Packing(setting=2, example=SPECS[0])
    worker = JobWorker("", packing.model_dump_json())
    assert worker._prepare_packs() == 2
    orders = [make_order(spec, "worker") for spec in SPECS]
    running: list[set[str]] = []
    barrier = threading.Barrier(2)
    note = worker._note

    def meet(progress: Progress) -> None:
        note(progress)
        if progress.phase == "opening the run":
            barrier.wait(SECONDS)
            running.append({key for key in (one.spec.key for one in orders) if worker.progress(key)})
            barrier.wait(SECONDS)
            worker.interrupt(SPECS[1].key)

    worker._note = meet  # type: ignore[method-assign]
    first, second = run_together([
        lambda order=order: JobResult.model_validate_json(worker.run(order.model_dump_json())) for order in orders
    ])  # fmt: skip
    assert running == [{spec.key for spec in SPECS}] * 2
    assert (first.stop_reason, second.stop_reason) == (StopReason.FINISHED, StopReason.INTERRUPTED)
    assert worker.progress(SPECS[0].key) is None
