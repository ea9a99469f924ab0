"""Jobs that train as one network end as they do alone, whoever of them comes late, leaves or fails."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import Diverged, Interrupted
from schemas.job import JobSpec
from schemas.packs import pack_shape
from tests.support.toy import CPU, run_epochs, toy_data, toy_network, toy_spec
from workers.training import packs, stacked
from workers.training.gradients import Batch, Step
from workers.training.inputs import Inputs
from workers.training.packs import Pack, Packs
from workers.training.records import StepRecord
from workers.training.trainer import Trainer

FOREVER = 60.0
"""Patience with which no member is left behind, however slow the machine is."""
HEAD = {"train__freeze_below": "top_conv", "train__epochs": 2, "model__dropout": 0.5}


def trainer_of(spec: JobSpec, pack: Pack | None = None, dtype: torch.dtype = torch.float32) -> Trainer:
    """Return a trainer whose numbers all have one type."""
    data, network = toy_data(spec), toy_network(spec).to(dtype)
    mean_SS3 = data.mean_SS3.astype(np.float64 if dtype == torch.float64 else np.float32)
    train, test = (Inputs(network, split, mean_SS3, CPU) for split in (data.train, data.test))
    trainer = Trainer(spec, network, train, test, pack=pack)
    for layer in trainer.filter_losses.values():
        layer.to(dtype)
    return trainer


def in_threads(tasks: Sequence[Callable[[], Any]]) -> list[Exception | None]:
    """Run tasks at the same time; return what each raised."""
    raised: list[Exception | None] = [None] * len(tasks)

    def run(number: int) -> None:
        torch.set_num_threads(1)
        try:
            tasks[number]()
        except Exception as error:  # noqa: BLE001 - returned
            raised[number] = error

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a member waits for ever"
    return raised


def train_together(trainers: Sequence[Trainer], epochs: int) -> None:
    """Train some epochs; every step is taken by all at once."""
    together = threading.Barrier(len(trainers))

    def train(trainer: Trainer) -> None:
        for _ in range(epochs):
            trainer.run_epoch(on_step=lambda: together.wait(FOREVER))

    assert in_threads([partial(train, one) for one in trainers]) == [None] * len(trainers)


def assert_equal(found: Trainer, expected: Trainer, tolerance: float) -> None:
    assert [record.epoch for record in found.records] == [record.epoch for record in expected.records]
    for one, other in zip(found.records, expected.records, strict=True):
        for field, value in vars(other).items():
            if field != "seconds":
                assert getattr(one, field) == pytest.approx(value, rel=tolerance, abs=tolerance), field
    for name, value in expected.network.state_dict().items():
        torch.testing.assert_close(found.network.state_dict()[name], value, rtol=tolerance, atol=tolerance)
    for name, layer in expected.filter_losses.items():
        torch.testing.assert_close(
            dict(found.filter_losses[name].named_buffers()), dict(layer.named_buffers()), rtol=tolerance, atol=tolerance
        )


MANY = {
    "data__categories": ("voc_part/cat", "voc_part/dog", "voc_part/cow"),
    "filter_loss": {"assignment": "steady", "weight": 0.1},
}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("ordinary", {}),
    ("interpretable", {"filter_loss": None}),
    ("interpretable", {"filter_loss": {"weight": 1.0, "schedule": "activation"}}),
    ("interpretable", {"filter_loss": {"weight": 1.0, "form": "exact"}}),
    ("interpretable", {"filter_loss": {"weight": 1.0, "form": "released", "peak": "centre_of_mass"}}),
    ("interpretable", {"filter_loss": {"weight": 1.0, "gradient_scope": "layer"}}),
    ("interpretable", {"train__max_grad_norm": 0.5}),
    ("interpretable", MANY),
    ("interpretable", {**MANY, "loss": "softmax"}),
    ("interpretable", {"model__backbone": "vgg16", "train__freeze_below": "conv5_2"}),
]


@pytest.mark.parametrize(("variant", "changes"), KINDS)
def test_each_job_of_a_pack_ends_as_it_does_alone(variant: str, changes: dict[str, Any]) -> None:
    """In double precision, so that rounding hides no mistake; with own seeds, dropout, rates and order of images."""
    specs = [
        toy_spec(variant, **{**HEAD, **changes, "seed": seed, "train__learning_rate": rate})
        for seed, rate in ((0, 0.02), (1, 0.02), (2, 0.05))
    ]
    pack = Pack(FOREVER)
    together = [trainer_of(spec, pack, torch.float64) for spec in specs]
    train_together(together, 2)
    assert pack.stacked == 3 * 2 * 3  # every batch of three jobs
    for spec, trainer in zip(specs, together, strict=True):
        assert_equal(trainer, run_epochs(trainer_of(spec, dtype=torch.float64), 2), 1e-9)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_in_lower_precision_only_rounding_differs(precision: str, tolerance: float) -> None:
    specs = [toy_spec(**HEAD, train__precision=precision, seed=seed) for seed in (0, 1)]
    pack = Pack(FOREVER)
    together = [trainer_of(spec, pack) for spec in specs]
    train_together(together, 1)
    assert pack.stacked == 6
    for spec, trainer in zip(specs, together, strict=True):
        alone = run_epochs(trainer_of(spec), 1)
        assert trainer.records[0].task_loss == pytest.approx(alone.records[0].task_loss, rel=tolerance)
        for name, value in alone.network.state_dict().items():
            torch.testing.assert_close(trainer.network.state_dict()[name], value, rtol=tolerance, atol=tolerance)


def test_jobs_of_which_none_meets_another_are_bitwise_those_without_a_pack() -> None:
    spec = toy_spec(**HEAD)
    alone, in_pack = run_epochs(trainer_of(spec), 2), run_epochs(trainer_of(spec, Pack()), 2)
    assert_equal(in_pack, alone, 0.0)


def test_jobs_in_threads_draw_the_dropout_masks_that_they_draw_alone() -> None:
    specs = [toy_spec(train__epochs=2, model__dropout=0.5, seed=seed) for seed in (0, 1)]
    trainers = [trainer_of(spec) for spec in specs]
    train_together(trainers, 2)
    for spec, trainer in zip(specs, trainers, strict=True):
        assert_equal(trainer, run_epochs(trainer_of(spec), 2), 0.0)


def test_a_job_that_diverges_leaves_and_harms_no_other() -> None:
    specs = [toy_spec(**HEAD, seed=seed) for seed in (0, 1, 2)]
    pack = Pack(FOREVER)
    trainers = [trainer_of(spec, pack, torch.float64) for spec in specs]
    with torch.no_grad():
        next(iter(trainers[1].network.head().values())).get_parameter("conv.bias").fill_(torch.nan)
    arrived = threading.Barrier(3)

    def train(trainer: Trainer) -> None:
        trainer.run_epoch(on_step=lambda: arrived.wait(FOREVER) if trainer.step == 0 else None)

    raised = in_threads([partial(train, one) for one in trainers])
    assert [type(error) for error in raised] == [type(None), Diverged, type(None)]
    assert pack.stacked == 3 + 2 + 2
    for number in (0, 2):
        assert_equal(trainers[number], run_epochs(trainer_of(specs[number], dtype=torch.float64), 1), 1e-9)


def test_an_interrupted_job_joins_again_from_its_checkpoint() -> None:
    specs = [toy_spec(**HEAD, seed=seed) for seed in (0, 1)]
    pack = Pack(FOREVER)
    staying, leaving = (trainer_of(spec, pack, torch.float64) for spec in specs)
    together, again, is_between = threading.Barrier(2), threading.Barrier(2), threading.Event()

    def stay() -> None:
        staying.run_epoch(on_step=lambda: together.wait(FOREVER) if staying.step < 2 else None)
        is_between.set()
        staying.run_epoch(on_step=lambda: again.wait(FOREVER) if staying.step == 0 else None)

    def leave() -> None:
        def stop_at_the_second() -> None:
            together.wait(FOREVER)
            if leaving.step == 1:
                raise Interrupted("asked to stop")

        with pytest.raises(Interrupted):
            leaving.run_epoch(on_step=stop_at_the_second)
        resumed.load_state_dict(leaving.state_dict())
        assert is_between.wait(FOREVER)
        resumed.run_epoch(on_step=lambda: again.wait(FOREVER) if resumed.step == 1 else None)

    resumed = trainer_of(specs[1], pack, torch.float64)
    assert in_threads([stay, leave]) == [None, None]
    assert pack.stacked == 2 + 4  # the first step, and the two that were left
    assert_equal(staying, run_epochs(trainer_of(specs[0], dtype=torch.float64), 2), 1e-9)
    assert_equal(resumed, run_epochs(trainer_of(specs[1], dtype=torch.float64), 1), 1e-9)


def test_a_step_that_cannot_be_stacked_is_done_alone_and_nothing_is_counted_twice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_late(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(stacked, "backward", fail_late)
    specs = [toy_spec(**HEAD, seed=seed) for seed in (0, 1)]
    pack = Pack(FOREVER)
    trainers = [trainer_of(spec, pack) for spec in specs]
    train_together(trainers, 1)
    monkeypatch.setattr(pack, "_wait", None)  # they no longer meet
    train_together(trainers, 1)
    assert pack.stacked == 0
    assert "cannot train as one: out of memory" in caplog.text
    for spec, trainer in zip(specs, trainers, strict=True):
        assert_equal(trainer, run_epochs(trainer_of(spec), 2), 0.0)


def test_what_cannot_be_stacked_trains_without_the_pack() -> None:
    for changes in ({"filter_loss": {"form": "full"}}, {"train__freeze_below": None}, {"train__deterministic": False}):
        assert pack_shape(toy_spec(**{**HEAD, **changes})) == ""
        assert Packs().of(toy_spec(**{**HEAD, **changes})) is None


def test_jobs_share_a_pack_if_only_seeds_rates_data_and_weights_of_the_loss_differ() -> None:
    shared = Packs()
    spec = toy_spec(**HEAD)
    alike = toy_spec(
        **{**HEAD, "train__learning_rate": 0.5, "train__epochs": 9}, seed=4, data__categories=("voc_part/dog",),
        filter_loss={"weight": 2.0, "schedule": "constant"},
    )  # fmt: skip
    assert shared.of(spec) is shared.of(alike)
    for changes in (
        {"model__dropout": 0.25}, {"train__batch_size": 4}, {"train__precision": "bfloat16"}, {"model__width": 0.1},
        {"train__freeze_below": "conv4"}, {"filter_loss": {"gradient_scope": "layer"}},
    ):  # fmt: skip
        assert shared.of(toy_spec(**{**HEAD, **changes})) is not shared.of(spec), changes


NUMBERS = StepRecord(*(torch.zeros(()) for _ in range(5)))


def counted(batches: Sequence[Batch]) -> list[Step]:
    """Stand in for `of_stacked`."""
    return [Step({}, NUMBERS) for _ in batches]


def batch_of(size: int) -> Batch:
    network = toy_network(toy_spec())
    return Batch(toy_spec(), network, {}, torch.zeros(size), 1, x_B=torch.zeros(size, 2))


def test_a_member_that_does_not_come_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "of_stacked", counted)
    pack, batch = Pack(patience=0.01), batch_of(2)
    with pack.taking_part("absent"), pack.taking_part("here"):
        assert pack.step("here", batch) is None
        pack._patience = FOREVER  # now it would be seen
        assert in_threads([lambda: pack.step("here", batch)]) == [None]


def test_a_failure_in_the_thread_that_computes_ends_that_job_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(batches: Sequence[Batch]) -> list[Step]:
        raise ZeroDivisionError

    monkeypatch.setattr(packs, "of_stacked", fail)
    pack, batch, found = Pack(FOREVER), batch_of(2), []
    arrived = threading.Barrier(3)

    def step(member: int) -> None:
        with pack.taking_part(member):
            arrived.wait(FOREVER)
            found.append(pack.step(member, batch))
            found.append(pack.step(member, batch))

    raised = in_threads([partial(step, member) for member in range(3)])
    assert sorted(type(error).__name__ for error in raised) == ["NoneType", "NoneType", "ZeroDivisionError"]
    assert found == [None] * 4


@pytest.mark.parametrize("seed", range(5))
def test_members_come_and_go_in_any_order_and_none_waits_for_ever(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "of_stacked", counted)
    batches = [batch_of(2), batch_of(3)]
    pack = Pack(FOREVER)
    steps_of: dict[int, int] = {}

    def work(member: int) -> None:
        draw = random.Random(f"{seed}/{member}")
        steps = 0
        for _ in range(draw.randint(1, 6)):
            with pack.taking_part(member), suppress(KeyError):
                for _ in range(draw.randint(0, 20)):
                    pack.step(member, draw.choice(batches))
                    steps += 1
                    if draw.random() < 0.1:
                        raise KeyError(member)
        steps_of[member] = steps

    assert in_threads([partial(work, member) for member in range(8)]) == [None] * 8
    assert steps_of.keys() == set(range(8))
    assert not pack._expected
    assert not pack._waiting
    assert not pack._found


def test_a_job_is_told_how_many_ran_beside_it_as_a_mean_over_its_time() -> None:
    seconds = iter([0.0, 10.0, 12.0, 18.0, 18.0, 20.0, 20.0])
    shared = Packs(clock=lambda: next(seconds))
    with shared.running() as of_first:  # from 10 to 20
        with shared.running() as of_second:  # from 12 to 18
            assert of_second() == 2.0
        assert of_first() == pytest.approx((2 * 1 + 6 * 2 + 2 * 1) / 10)


def test_a_job_that_ended_at_once_ran_alone() -> None:
    with Packs(clock=lambda: 5.0).running() as jobs_at_once:
        assert jobs_at_once() == 1.0


def test_only_one_job_is_in_what_libraries_do_not_do_in_threads_and_the_others_say_that_they_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packs, "_REPORT_SECONDS", 0.01)
    shared, said, entered = Packs(), threading.Event(), threading.Event()

    def wait(phase: str) -> None:
        assert phase == "waiting for another job of this process"
        said.set()

    def first() -> None:
        with shared.one_at_a_time(wait):
            entered.set()
            assert said.wait(FOREVER)

    def second() -> None:
        assert entered.wait(FOREVER)
        with shared.one_at_a_time(wait):
            pass

    assert in_threads([first, second]) == [None, None]
