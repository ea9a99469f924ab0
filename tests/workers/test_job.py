"""From order to result: a tiny job on a real store, interrupted, resumed, repeated, and failing in every way."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
import torch

from schemas.errors import (
    CheckpointError,
    DataError,
    Diverged,
    Interrupted,
    ResourceError,
    SpecError,
    StoreError,
    StoreUnreachable,
    Superseded,
    WeightsError,
)
from schemas.job import JobSpec
from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkOrder
from schemas.results import CheckpointPointer, JobResult
from tests.support.toy import toy_spec
from workers import job, outcome
from workers.checkpoints import store as checkpoint_store
from workers.checkpoints.ending import read_end
from workers.checkpoints.loading import load_checkpoint
from workers.job import run_job, stop_reason_of
from workers.objects import waiting
from workers.tracking import final_checkpoint
from workers.tracking.run_log import RunLog

if TYPE_CHECKING:
    from tests.conftest import Store


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@dataclass
class Desk:
    """Runs jobs of one ORCH_HOME."""

    store: Store
    new_run: Callable[[], str]
    cache_dir: Path
    checkpoint_dir: Path
    seen: list[Progress] = field(default_factory=list)

    def order(self, spec: JobSpec, run_id: str | None = None, **changes: Any) -> WorkOrder:
        fields: dict[str, Any] = {
            "spec": spec,
            "run_id": run_id or self.new_run(),
            "attempt": 1,
            "tracking_uri": self.store.uri,
            "cache_dir": str(self.cache_dir),
            "checkpoint_dir": str(self.checkpoint_dir),
        }
        return WorkOrder(**(fields | changes))

    def run(self, order: WorkOrder, *, stop_in_epoch: int | None = None) -> JobResult:
        """Run a job, and stop it in the epoch after the given number of epochs."""

        def should_stop() -> bool:
            return stop_in_epoch is not None and any(p.epoch >= stop_in_epoch for p in self.seen)

        return run_job(order, self.seen.append, should_stop)


@pytest.fixture
def desk(store: Store, new_run: Callable[[], str], cache_dir: Path, tmp_path: Path) -> Desk:
    return Desk(store, new_run, cache_dir, tmp_path)


def elsewhere(pointer: CheckpointPointer | None) -> CheckpointPointer:
    """Return a checkpoint as a worker of another machine recorded it."""
    assert pointer is not None
    return pointer.model_copy(update={"path": "/other/attempt-1/epoch-0002-step-0000-0a1b2c3d.pt"})


def weights(pointer: CheckpointPointer | None, spec: JobSpec) -> dict[str, torch.Tensor]:
    assert pointer is not None
    state: dict[str, torch.Tensor] = load_checkpoint(pointer, spec.key)["network"]
    return state


@pytest.mark.parametrize("variant", ["ordinary", "interpretable"])
def test_a_job_leaves_its_run_its_checkpoint_and_its_result(desk: Desk, variant: str, tmp_path: Path) -> None:
    spec = toy_spec(variant, train__freeze_below="top_conv")
    order = desk.order(spec)
    result = desk.run(order)
    assert (result.stop_reason, result.failure, result.epochs_done) == (StopReason.FINISHED, None, 4)
    assert (result.job_key, result.attempt) == (spec.key, 1)
    assert result.metrics is not None
    assert result.metrics.measured_images == 6
    assert result.metrics.images == "generated"

    client = desk.store.client
    assert {item.path for item in client.list_artifacts(order.run_id)} == {
        "spec.json", "metrics.json", "tables", "figures", "checkpoint", "results",
    }  # fmt: skip
    saved = Path(client.download_artifacts(order.run_id, "spec.json", str(tmp_path))).read_text()
    assert JobSpec.model_validate_json(saved) == spec
    assert [item.path for item in client.list_artifacts(order.run_id, "tables")] == ["tables/filters.csv"]
    figures = {item.path for item in client.list_artifacts(order.run_id, "figures")}
    assert result.metrics.location_instability is not None
    assert figures == {
        "figures/curves.png", "figures/filters.png", "figures/peaks.png", "figures/part_distribution.png",
    }  # fmt: skip
    steps = [point.step for point in client.get_metric_history(order.run_id, "validation/accuracy")]
    assert steps == [1, 2, 3, 4]
    assert client.get_run(order.run_id).data.metrics["test_accuracy"] == round(result.metrics.test_accuracy, 4)
    assert result.checkpoint is not None
    assert "optimiser" not in load_checkpoint(result.checkpoint, spec.key)
    (kept,) = client.list_artifacts(order.run_id, "checkpoint")
    assert Path(result.checkpoint.path).name == Path(kept.path).name
    assert list(Path(order.checkpoint_dir).rglob("*.pt")) == []
    assert {progress.phase for progress in desk.seen} >= {
        "preparing images",
        "training",
        "measuring filters",
        "logging",
    }


def test_a_job_that_ends_after_its_last_epoch_and_before_its_outcome_has_logged_all_epochs(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("this cannot be measured")

    monkeypatch.setattr(job, "evaluate", fail)
    order = desk.order(toy_spec("ordinary", train__epochs=2))
    assert desk.run(order).stop_reason is StopReason.CODE_RAISED
    history = desk.store.client.get_metric_history(order.run_id, "train/task_loss")
    assert [point.step for point in history] == [1, 2]


@pytest.mark.parametrize("checkpoint_every", [1, 3])
def test_a_job_that_was_stopped_goes_on_and_ends_with_the_same_bits(
    desk: Desk, checkpoint_every: int, tmp_path: Path
) -> None:
    spec = toy_spec(train__checkpoint_every=checkpoint_every)
    straight = desk.run(desk.order(spec, checkpoint_dir=str(tmp_path / "straight")))
    desk.seen.clear()
    run_id = desk.new_run()
    stopped = desk.run(desk.order(spec, run_id), stop_in_epoch=2)
    assert (stopped.stop_reason, stopped.epochs_done, stopped.metrics) == (StopReason.INTERRUPTED, 2, None)
    assert stopped.checkpoint is not None
    desk.seen.clear()
    resumed = desk.run(desk.order(spec, run_id, attempt=2))
    assert (resumed.stop_reason, resumed.epochs_done, resumed.attempt) == (StopReason.FINISHED, 4, 2)
    assert min(progress.epoch for progress in desk.seen if progress.phase == "training") == 2
    expected, found = weights(straight.checkpoint, spec), weights(resumed.checkpoint, spec)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.metrics == straight.metrics
    steps = [point.step for point in desk.store.client.get_metric_history(run_id, "train/task_loss")]
    assert steps == [1, 2, 3, 4]


def test_an_attempts_end_is_left_beside_its_checkpoints_and_in_its_run(desk: Desk) -> None:
    spec = toy_spec("ordinary", train__epochs=1)
    order = desk.order(spec)
    result = desk.run(order)
    assert read_end(Path(order.checkpoint_dir), spec.key, 1) == result
    assert RunLog(order.tracking_uri, order.run_id).fetch_end(spec.key, 1) == result
    assert RunLog(order.tracking_uri, order.run_id).fetch_end(spec.key, 2) is None


def test_a_finished_job_that_is_sent_again_trains_nothing(desk: Desk) -> None:
    spec = toy_spec("ordinary")
    order = desk.order(spec)
    first = desk.run(order)
    desk.seen.clear()
    again = desk.run(order)
    assert "training" not in {progress.phase for progress in desk.seen}
    assert (again.metrics, again.checkpoint) == (first.metrics, first.checkpoint)


def test_a_job_asked_to_stop_before_it_began_leaves_nothing(desk: Desk) -> None:
    result = run_job(desk.order(toy_spec()), desk.seen.append, lambda: True)
    assert (result.stop_reason, result.epochs_done, result.checkpoint) == (StopReason.INTERRUPTED, 0, None)


def test_a_preempted_job_leaves_that_as_its_end(desk: Desk) -> None:
    order = desk.order(toy_spec())
    result = run_job(order, desk.seen.append, lambda: any(one.epoch >= 1 for one in desk.seen), lambda: True)
    assert result.stop_reason is StopReason.PREEMPTED
    assert read_end(Path(order.checkpoint_dir), order.spec.key, 1) == result
    assert RunLog(order.tracking_uri, order.run_id).fetch_end(order.spec.key, 1) == result


RECIPE = {
    "source": "pretrain", "epochs": 2, "batch_size": 8,
    "data": {"categories": ("voc_part/cat", "voc_part/dog"), "train_per_category": 8, "test_per_category": 4},
}  # fmt: skip


def test_a_category_job_starts_from_the_pretraining_job(desk: Desk) -> None:
    spec = toy_spec(weights=RECIPE, train__freeze_below="conv4")
    assert spec.upstream is not None
    upstream = desk.run(desk.order(spec.upstream))
    assert upstream.stop_reason is StopReason.FINISHED
    result = desk.run(desk.order(spec, upstream=upstream.checkpoint))
    assert result.stop_reason is StopReason.FINISHED
    assert result.metrics is not None
    assert result.metrics.weights == "pre-training on generated animals"
    before, after = weights(upstream.checkpoint, spec.upstream), weights(result.checkpoint, spec)
    assert torch.equal(before["blocks.conv3.conv.weight"], after["blocks.conv3.conv.weight"])
    assert not torch.equal(before["blocks.conv5.conv.weight"], after["blocks.conv5.conv.weight"])


@pytest.mark.parametrize("is_served", [False, True], ids=["embedded", "served"])
def test_the_pretraining_checkpoint_of_another_machine_is_read_from_its_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, is_served: bool
) -> None:
    if is_served:
        monkeypatch.setattr(final_checkpoint, "folder_of", lambda uri: None)
    spec = toy_spec("ordinary", weights=RECIPE, train__epochs=1)
    assert spec.upstream is not None
    order = desk.order(spec.upstream)
    pointer = elsewhere(desk.run(order).checkpoint)
    assert list(desk.checkpoint_dir.rglob("*.pt")) == []
    lost = desk.run(desk.order(spec, upstream=pointer, upstream_run_id=desk.new_run()))
    assert lost.failure is not None
    assert lost.failure.kind == "CheckpointError"
    found = desk.run(desk.order(spec, upstream=pointer, upstream_run_id=order.run_id))
    assert (found.stop_reason, found.failure) == (StopReason.FINISHED, None)
    fetched = [path.parent.name for path in desk.checkpoint_dir.rglob("*.pt")]
    assert fetched == (["attempt-1"] if is_served else [])  # in place where the store is on this machine
    assert not list(desk.checkpoint_dir.glob(".fetched-*"))


def test_a_pretraining_checkpoint_whose_store_is_away_is_waited_for_as_long_as_the_patience(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = toy_spec("ordinary", weights=RECIPE, train__epochs=1)
    assert spec.upstream is not None
    order = desk.order(spec.upstream)
    pointer = elsewhere(desk.run(order).checkpoint)
    fetch, tries = RunLog.fetch_checkpoint, iter(range(99))

    def away_twice(self: RunLog, final: CheckpointPointer, folder: Path) -> Path | None:
        if next(tries) < 2:
            raise StoreUnreachable("The files of the run cannot be used.")
        return fetch(self, final, folder)

    monkeypatch.setattr(RunLog, "fetch_checkpoint", away_twice)
    monkeypatch.setattr(waiting, "WAIT_SECONDS", 0.0)
    sent = desk.order(spec, upstream=pointer, upstream_run_id=order.run_id)
    impatient = desk.run(sent.model_copy(update={"store_patience": -1.0}))
    assert impatient.stop_reason is StopReason.STORE_UNREACHABLE
    found = desk.run(sent)
    assert (found.stop_reason, found.failure) == (StopReason.FINISHED, None)
    assert "waiting for the checkpoint of the pre-training" in {progress.phase for progress in desk.seen}


def test_checkpoints_of_earlier_versions_may_move_with_their_home(desk: Desk, tmp_path: Path) -> None:
    spec = toy_spec("ordinary", weights=RECIPE, train__epochs=1)
    assert spec.upstream is not None
    kept = desk.run(desk.order(spec.upstream)).checkpoint
    pointer = elsewhere(kept)
    moved = tmp_path / "moved" / spec.upstream.key / "attempt-1" / Path(pointer.path).name
    moved.parent.mkdir(parents=True)
    assert kept is not None
    Path(kept.path).rename(moved)
    result = desk.run(desk.order(spec, upstream=pointer, checkpoint_dir=str(tmp_path / "moved")))
    assert (result.stop_reason, result.failure) == (StopReason.FINISHED, None)


def test_a_job_that_diverges_says_where_and_keeps_its_checkpoint(desk: Desk) -> None:
    spec = toy_spec("ordinary", train__learning_rate=1e38, train__weight_decay=10.0)
    result = desk.run(desk.order(spec))
    assert result.stop_reason is StopReason.DIVERGED
    assert result.failure is not None
    assert result.failure.kind == "Diverged"
    assert "epoch 1" in result.failure.message
    assert "trainer.py" in result.failure.traceback


def test_data_other_than_planned_is_bad_data(desk: Desk) -> None:
    result = desk.run(desk.order(toy_spec(data__digest="of-other-images")))
    assert (result.stop_reason, result.epochs_done) == (StopReason.BAD_DATA, 0)


def test_a_store_that_cannot_be_reached_is_not_the_jobs_fault(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = desk.run(desk.order(toy_spec(), tracking_uri="http://127.0.0.1:9", store_patience=0.0))
    assert result.stop_reason is StopReason.STORE_UNREACHABLE


def test_only_exceptions_become_results(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_: int) -> None:
        raise SystemExit(1)

    monkeypatch.setattr(job, "make_deterministic", killed)
    with pytest.raises(SystemExit):
        desk.run(desk.order(toy_spec()))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Interrupted("x"), StopReason.INTERRUPTED),
        (Diverged("x"), StopReason.DIVERGED),
        (DataError("x"), StopReason.BAD_DATA),
        (SpecError("x"), StopReason.BAD_SPEC),
        (WeightsError("x"), StopReason.BAD_SPEC),
        (StoreError("x"), StopReason.STORE_UNREACHABLE),
        (CheckpointError("x"), StopReason.CODE_RAISED),
        (MemoryError(), StopReason.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), StopReason.OUT_OF_MEMORY),
        (ResourceError("x"), StopReason.CODE_RAISED),
        (RuntimeError("could not create a primitive"), StopReason.OUT_OF_MEMORY),  # a message of oneDNN
        (ImportError("a.so: failed to map segment from shared object"), StopReason.OUT_OF_MEMORY),
        (ImportError("No module named a"), StopReason.CODE_RAISED),
        (torch.AcceleratorError("CUDA error: out of memory", 2), StopReason.OUT_OF_MEMORY),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700), StopReason.CODE_RAISED),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), StopReason.OUT_OF_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), StopReason.OUT_OF_MEMORY),
        (RuntimeError("shapes differ"), StopReason.CODE_RAISED),
        (ZeroDivisionError(), StopReason.CODE_RAISED),
    ],
)
def test_every_error_has_its_stop_reason(error: Exception, reason: StopReason) -> None:
    assert stop_reason_of(error) is reason


@pytest.mark.parametrize(
    ("error", "has_failed"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700), True),
        (torch.AcceleratorError("CUDA error: out of memory", 2), False),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_a_job_says_whether_its_gpu_computes_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception, has_failed: bool
) -> None:
    monkeypatch.setattr(job.Trainer, "run_epoch", Mock(side_effect=error))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", Mock(side_effect=error))
    assert desk.run(desk.order(toy_spec())).device_failed is has_failed


def test_a_job_gives_back_the_memory_of_a_gpu(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    networks: list[weakref.ref[object]] = []
    make = job.build_network

    def noting(*arguments: Any, **named: Any) -> Any:
        network = make(*arguments, **named)
        networks.append(weakref.ref(network))
        return network

    left: list[object] = []
    monkeypatch.setattr(job, "build_network", noting)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.extend(network() for network in networks))
    assert desk.run(desk.order(toy_spec())).stop_reason is StopReason.FINISHED
    assert left == [None]


def no_room(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("kind", [StoreError, StoreUnreachable, CheckpointError, DataError, RuntimeError])
def test_whatever_comes_of_a_full_disk_is_a_full_disk(kind: type[Exception], code: int) -> None:
    with pytest.raises(kind) as explained:
        raise kind("no checkpoint") from no_room(code)
    assert stop_reason_of(explained.value) is StopReason.DISK_FULL
    assert stop_reason_of(no_room(code)) is StopReason.DISK_FULL


def test_an_error_that_hides_the_full_disk_before_it_is_its_own() -> None:
    hidden = StoreError("another matter")
    hidden.__context__, hidden.__suppress_context__ = no_room(errno.ENOSPC), True  # as after `from None`
    assert stop_reason_of(hidden) is StopReason.STORE_UNREACHABLE


@pytest.mark.parametrize(
    ("kind", "reason"), [(Interrupted, StopReason.INTERRUPTED), (Superseded, StopReason.SUPERSEDED)]
)
def test_an_attempt_that_is_over_is_over_also_on_a_full_disk(kind: type[Exception], reason: StopReason) -> None:
    with pytest.raises(kind) as ended:
        raise kind("another attempt has the job") from no_room(errno.ENOSPC)
    assert stop_reason_of(ended.value) is reason


def test_figures_that_have_no_room_say_where(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room_for_them(*_: object) -> None:
        raise no_room(errno.ENOSPC)  # as from a write, without a file name

    monkeypatch.setattr(outcome, "write_outcome", no_room_for_them)
    result = desk.run(desk.order(toy_spec()))
    assert result.stop_reason is StopReason.DISK_FULL
    assert result.failure is not None
    assert f"cannot be written in {tempfile.gettempdir()} (No space left on device)" in result.failure.message
    assert result.checkpoint is not None


def test_a_job_whose_checkpoint_has_no_room_says_where_and_goes_on_when_there_is(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room_for_it(*_: object) -> None:
        raise no_room(errno.ENOSPC)

    with monkeypatch.context() as full:
        full.setattr(checkpoint_store, "_save_state", no_room_for_it)
        result = desk.run(desk.order(toy_spec()))
    assert (result.stop_reason, result.checkpoint) == (StopReason.DISK_FULL, None)
    assert result.failure is not None
    assert "No space left on device" in result.failure.message
    assert result.failure.message.startswith(f"On {socket.gethostname()}: A checkpoint cannot be written")
    assert desk.run(desk.order(toy_spec(), attempt=2)).stop_reason is StopReason.FINISHED


def test_more_memory_than_the_machine_has_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert stop_reason_of(caught.value) is StopReason.OUT_OF_MEMORY


def test_checkpoints_that_cannot_be_read_become_a_result_too(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    result = desk.run(desk.order(toy_spec(), checkpoint_dir=str(tmp_path / "file")))
    assert (result.stop_reason, result.checkpoint) == (StopReason.STORE_UNREACHABLE, None)


def test_kept_features_change_no_bit_of_a_job(desk: Desk, tmp_path: Path) -> None:
    spec = toy_spec(train__freeze_below="top_conv", evaluation={"split": "all"})
    orders = [
        desk.order(spec, features_gb=gb, checkpoint_dir=str(tmp_path / str(number)), cache_dir=str(tmp_path / "cache"))
        for number, gb in enumerate((0.0, 1.0, 1.0, 0.0))
    ]
    results, phases = [], []
    for order in orders:
        desk.seen.clear()
        results.append(desk.run(order))
        phases.append({one.phase for one in desk.seen})
    assert ["computing features of the frozen layers" in seen for seen in phases] == [True, True, False, True]
    alone, *kept = (weights(result.checkpoint, spec) for result in results)
    for name, value in alone.items():
        assert all(torch.equal(value, other[name]) for other in kept), name
    assert all(result.metrics == results[0].metrics for result in results)
