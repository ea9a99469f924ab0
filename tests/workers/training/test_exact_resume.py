"""A job that is killed repeatedly ends with bit-identical results to an undisturbed one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from schemas.job import JobSpec
from schemas.lifecycle import StopReason
from schemas.results import CheckpointPointer, JobResult
from tests.support.desk import Desk
from tests.support.lives import Moment, live
from tests.support.toy import toy_spec
from workers.checkpoints.loading import load_checkpoint
from workers.checkpoints.store import CheckpointStore
from workers.job import run_job
from workers.tracking.curves import CURVES

if TYPE_CHECKING:
    from tests.conftest import Store

STEPS = 3
"""Batches per epoch: 24 images in batches of eight; there are four epochs."""
EVERYWHERE: tuple[Moment, ...] = (
    ("training", STEPS + 2),
    ("training", STEPS),
    ("writing a checkpoint", 1),
    ("publishing a checkpoint", 3),
    ("writing points", 1),
    ("measuring accuracy", 1),
    ("measuring filters", 1),
    ("logging", 1),
    ("writing files", 1),
    ("uploading the log", 1),
)
"""One kill for each attempt: within epochs, around a checkpoint, in evaluation and while results are logged."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def new_desk(store: Store, new_run: Callable[[], str], tmp_path: Path, cache: Path) -> Callable[[str], Desk]:
    return lambda name: Desk(store, new_run(), tmp_path / name, cache)


def state_of(pointer: CheckpointPointer | None, spec: JobSpec) -> dict[str, Any]:
    assert pointer is not None
    return load_checkpoint(pointer, spec.key)


def same(one: Any, other: Any) -> bool:
    """Return whether two nested states are bit-identical."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def without_times(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"records": [record | {"seconds": 0} for record in state["records"]]}


def assert_ended_alike(spec: JobSpec, calm: tuple[Desk, JobResult], stormy: tuple[Desk, JobResult]) -> None:
    (desk, result), (other_desk, other_result) = calm, stormy
    assert other_result.failure is None
    assert (result.stop_reason, other_result.stop_reason) == (StopReason.FINISHED,) * 2
    states = [without_times(state_of(r.checkpoint, spec)) for r in (result, other_result)]
    assert same(*states)
    assert result.metrics == other_result.metrics
    for curve in CURVES.values():
        expected, found = desk.points(curve), other_desk.points(curve)
        assert [step for step, _ in found] == [step for step, _ in expected], curve
        assert curve == CURVES["seconds"] or found == expected, curve
    for path in ("metrics.json", "tables/filters.csv"):
        assert desk.file(path) == other_desk.file(path), path


def lives_of(desk: Desk, spec: JobSpec, moments: tuple[Moment, ...]) -> JobResult:
    for attempt, moment in enumerate(moments, start=1):
        live(desk.order(spec, attempt), moment)
    result = live(desk.order(spec, len(moments) + 1), None)
    assert result is not None
    return result


def check(spec: JobSpec, new_desk: Callable[[str], Desk], moments: tuple[Moment, ...]) -> tuple[Desk, JobResult]:
    calm, stormy = new_desk("calm"), new_desk("stormy")
    result = live(calm.order(spec, 1), None)
    assert result is not None
    assert result.failure is None
    ended = lives_of(stormy, spec, moments)
    assert_ended_alike(spec, (calm, result), (stormy, ended))
    return stormy, ended


@pytest.mark.slow
def test_an_interpretable_network_killed_in_mid_epoch_and_at_its_checkpoint(new_desk: Callable[[str], Desk]) -> None:
    spec = toy_spec(model__dropout=0.5)
    check(spec, new_desk, (("training", STEPS + 2), ("publishing a checkpoint", 2), ("writing files", 1)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("ordinary", {"model__dropout": 0.5, "train__freeze_below": "conv4"}),
        ("ordinary", {"model__dropout": 0.3, "train__checkpoint_every": 2, "train__max_grad_norm": 0.5}),
        ("interpretable", {"filter_loss": {"form": "labelled", "schedule": "inverse_epoch", "weight": 1.0},
                           "train__freeze_below": "top_conv", "model__dropout": 0.5}),
        ("interpretable", {"filter_loss": {"form": "approximate", "schedule": "activation", "weight": 1.0},
                           "train__max_grad_norm": 1.0, "model__dropout": 0.5}),
        ("interpretable", {"filter_loss": {"form": "released", "schedule": "constant", "weight": 0.1},
                           "train__max_grad_norm": 1.0}),
        ("interpretable", {"filter_loss": {"form": "full", "schedule": "activation", "weight": 1.0},
                           "train__checkpoint_every_steps": 2, "train__final_learning_rate": 0.002}),
        ("interpretable", {"data__categories": ("voc_part/cat", "cub200/bird"), "loss": "softmax",
                           "data__train_per_category": 12, "train__checkpoint_every_steps": 1}),
    ],
)  # fmt: skip
def test_killed_everywhere(variant: str, changes: dict[str, Any], new_desk: Callable[[str], Desk]) -> None:
    check(toy_spec(variant, **changes), new_desk, EVERYWHERE)


@pytest.mark.slow
def test_with_a_step_interval_no_more_than_its_steps_are_lost(new_desk: Callable[[str], Desk]) -> None:
    spec = toy_spec(train__epochs=2, train__checkpoint_every=2, train__checkpoint_every_steps=2, model__dropout=0.5)
    desk = new_desk("stormy")
    live(desk.order(spec, 1), ("training", STEPS))
    pointer = CheckpointStore(desk.folder / "checkpoints", spec.key).newest()
    assert pointer is not None
    assert (pointer.epoch, pointer.step) == (0, 2)
    calm = new_desk("calm")
    undisturbed, resumed = live(calm.order(spec, 1), None), live(desk.order(spec, 2), None)
    assert undisturbed is not None
    assert resumed is not None
    assert_ended_alike(spec, (calm, undisturbed), (desk, resumed))
    log = (desk.folder / "logs" / spec.key / "attempt-2.log").read_text()
    assert "resuming after epoch 0, step 2" in log


@pytest.mark.parametrize("damage", ["torn", "empty", "bit flipped", "gone", "pointer torn"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_is_reported(
    damage: str, new_desk: Callable[[str], Desk]
) -> None:
    spec = toy_spec("ordinary", train__epochs=3)
    desk = new_desk("stormy")
    begun: list[int] = []
    run_job(desk.order(spec, 1), lambda progress: begun.append(progress.epoch), lambda: 2 in begun)
    store = CheckpointStore(desk.folder / "checkpoints", spec.key)
    newest = store.newest()
    assert newest is not None
    spoil(Path(newest.path) if damage != "pointer torn" else store.pointer, damage)
    result = run_job(desk.order(spec, 2), lambda _: None, lambda: False)
    assert (result.stop_reason, result.epochs_done) == (StopReason.FINISHED, 3)
    (problem,) = result.problems
    log = (desk.folder / "logs" / spec.key / "attempt-2.log").read_text()
    assert problem in log
    went_on = "epoch 2, step 1" if damage == "pointer torn" else "epoch 2"
    assert f"resuming after {went_on}\n" in log
    assert [step for step, _ in desk.points("train/task_loss")] == [1, 2, 3]


def spoil(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
        return
    if damage == "empty":
        content.clear()
    elif damage == "bit flipped":
        content[len(content) // 2] ^= 1
    else:
        del content[len(content) // 2 :]
    path.write_bytes(content)


def test_a_checkpoint_of_another_job_is_refused_by_name(new_desk: Callable[[str], Desk]) -> None:
    spec, other = toy_spec("ordinary", train__epochs=2), toy_spec("ordinary", train__epochs=2, seed=7)
    desk, epochs = new_desk("desk"), [0]
    run_job(desk.order(other, 1), lambda progress: epochs.append(progress.epoch), lambda: max(epochs) == 1)
    root = desk.folder / "checkpoints"
    (root / other.key).rename(root / spec.key)
    result = run_job(desk.order(spec, 1), lambda _: None, lambda: False)
    assert result.failure is not None
    assert f"belongs to job {other.key}, not {spec.key}" in json.dumps(result.failure.message)
