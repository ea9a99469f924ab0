"""The training loop learns, stops when values are not finite, and gives the same bits after an interruption."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import Diverged, Interrupted
from schemas.job import TrainSpec
from tests.support.toy import run_epochs, toy_spec, toy_trainer, weights_of
from workers.checkpoints.loading import load_checkpoint
from workers.checkpoints.store import CheckpointStore
from workers.training import inputs
from workers.training.losses import task_loss
from workers.training.schedule import batches_of_epoch, learning_rate_at


@pytest.mark.parametrize("variant", ["ordinary", "interpretable"])
def test_a_network_learns(variant: str) -> None:
    trainer = run_epochs(toy_trainer(toy_spec(variant, train__epochs=12)), 12)
    first, last = trainer.records[0], trainer.records[-1]
    assert last.task_loss < 0.7 * first.task_loss
    assert last.validation_accuracy > 0.9


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
@pytest.mark.parametrize("variant", ["ordinary", "interpretable"])
def test_a_network_of_several_categories_learns(loss: str, variant: str) -> None:
    spec = toy_spec(variant, loss=loss, data__categories=("voc_part/cat", "voc_part/dog"))
    assert run_epochs(toy_trainer(spec), 12).records[-1].validation_accuracy > 0.9


@pytest.mark.parametrize(
    ("keep", "changes"),
    [
        (False, {}),
        (True, {"train__freeze_below": "conv3"}),
        (False, {"data__categories": ("voc_part/cat", "voc_part/dog"), "filter_loss": {"assignment": "steady"}}),
    ],
    ids=["all layers", "kept features", "several categories"],
)
def test_training_that_was_interrupted_ends_with_the_same_bits(
    tmp_path: Path, keep: bool, changes: dict[str, Any]
) -> None:
    spec = toy_spec("interpretable", **changes)
    straight = run_epochs(toy_trainer(spec, keep=keep), 4)

    store = CheckpointStore(tmp_path, spec.key)
    pointer = store.save(2, run_epochs(toy_trainer(spec, keep=keep), 2).state_dict())
    resumed = toy_trainer(spec, keep=keep)
    torch.rand(17)  # another job ran in this process meanwhile
    resumed.load_state_dict(load_checkpoint(pointer, spec.key))
    run_epochs(resumed, 2)

    for (name, expected), found in zip(weights_of(straight).items(), weights_of(resumed).values(), strict=True):
        assert torch.equal(expected, found), name
    for layer, loss in straight.filter_losses.items():
        for name, buffer in loss.named_buffers():
            assert torch.equal(buffer, dict(resumed.filter_losses[layer].named_buffers())[name]), (layer, name)
    without_time = [[{**vars(record), "seconds": 0} for record in trainer.records] for trainer in (straight, resumed)]
    assert without_time[0] == without_time[1]


def test_the_kind_of_device_and_not_the_checkpoint_decides_how_weights_are_updated() -> None:
    spec = toy_spec()
    state = run_epochs(toy_trainer(spec), 1).state_dict()
    for group in state["optimiser"]["param_groups"]:
        group["fused"] = True  # as on a GPU
    resumed = toy_trainer(spec)
    resumed.load_state_dict(state)
    assert {group["fused"] for group in resumed._optimiser.param_groups} == {None}


def test_another_seed_trains_another_network() -> None:
    one, other = (weights_of(run_epochs(toy_trainer(toy_spec(seed=seed)), 1)) for seed in (0, 1))
    assert not torch.equal(one["blocks.fc8.linear.weight"], other["blocks.fc8.linear.weight"])


def test_biases_move_by_their_own_rates() -> None:
    """Without momentum one step of one batch moves a bias by its rate times the same gradient."""
    changes = {"train__momentum": 0.0, "train__batch_size": 24, "train__final_learning_rate": 0.002}

    def moved(top: float, new: float) -> dict[str, torch.Tensor]:
        rates = {"train__bias_lr_multiplier": top, "train__new_bias_lr_multiplier": new}
        trainer = toy_trainer(toy_spec("ordinary", **rates, **changes))
        before = weights_of(trainer)
        run_epochs(trainer, 1)
        return {name: value - before[name] for name, value in weights_of(trainer).items()}

    plain, fast = moved(1, 1), moved(5, 2)
    factors = {"blocks.conv5.conv.bias": 5, "blocks.fc8.linear.bias": 2, "blocks.conv2.conv.bias": 1}
    for name, factor in (factors | {"blocks.conv5.conv.weight": 1}).items():
        torch.testing.assert_close(fast[name], factor * plain[name], rtol=1e-3, atol=1e-8)
        assert plain[name].abs().sum() > 0


def test_frozen_layers_stay_and_the_others_move() -> None:
    trainer = toy_trainer(toy_spec(train__freeze_below="top_conv"), keep=True)
    before = weights_of(trainer)
    run_epochs(trainer, 1)
    after = weights_of(trainer)
    for name in before:
        layer = name.split(".")[1]
        is_same = torch.equal(before[name], after[name])
        assert is_same == (layer in {"conv1", "conv2", "conv3", "conv4"}), name


def test_features_kept_in_memory_train_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = toy_spec(train__freeze_below="top_conv")
    kept = run_epochs(toy_trainer(spec, keep=True), 2)
    monkeypatch.setattr(inputs, "MEMORY_LIMIT", 0)
    anew = run_epochs(toy_trainer(spec, keep=True), 2)
    for name, value in weights_of(kept).items():
        torch.testing.assert_close(value, weights_of(anew)[name])


def test_the_filter_loss_within_its_layer_leaves_the_layers_below_alone() -> None:
    """With `gradient_scope: layer`, layers below the interpretable ones get the gradient of the task alone."""

    def gradients(**changes: object) -> dict[str, torch.Tensor]:
        trainer = toy_trainer(toy_spec(train__epochs=1, train__batch_size=24, **changes))
        run_epochs(trainer, 1)
        return {name: p.grad.clone() for name, p in trainer.network.named_parameters() if p.grad is not None}

    task, layer, network = (
        gradients(filter_loss=None),
        gradients(filter_loss={"weight": 50, "gradient_scope": "layer"}),
        gradients(filter_loss={"weight": 50, "gradient_scope": "network"}),
    )
    below, own = "blocks.conv4.conv.weight", "blocks.conv6.conv.weight"
    assert torch.equal(task[below], layer[below])
    assert not torch.equal(task[below], network[below])
    assert not torch.equal(task[own], layer[own])
    torch.testing.assert_close(layer[own], network[own])


def test_a_loss_that_is_not_finite_stops_training_and_says_where() -> None:
    trainer = run_epochs(toy_trainer(toy_spec("ordinary")), 1)
    with torch.no_grad():
        trainer.network.blocks["fc8"].linear.bias.fill_(math.nan)  # type: ignore[union-attr, operator]
    with pytest.raises(Diverged, match=r"The task loss of voc-cat alexnet ordinary is nan in epoch 2, step 1\."):
        trainer.run_epoch(on_step=lambda: None)


def test_a_filter_loss_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = toy_trainer(toy_spec())
    monkeypatch.setattr(trainer.filter_losses["conv6"], "forward", lambda x, _: x.sum() * math.inf)
    with pytest.raises(Diverged, match=r"The conv6 filter loss .* in epoch 1, step 1\. .*filter_loss.weight"):
        trainer.run_epoch(on_step=lambda: None)


def test_weights_that_are_not_finite_after_the_last_step_are_noticed() -> None:
    trainer = toy_trainer(toy_spec("ordinary", train__batch_size=24, train__learning_rate=1e38, train__weight_decay=10))
    with pytest.raises(Diverged, match="are not finite after epoch 1"):
        trainer.run_epoch(on_step=lambda: None)


def test_what_a_step_raises_ends_the_epoch() -> None:
    trainer = toy_trainer(toy_spec())
    steps = iter([None, Interrupted("asked to stop")])

    def on_step() -> None:
        if error := next(steps):
            raise error

    with pytest.raises(Interrupted):
        trainer.run_epoch(on_step)
    assert trainer.epoch == 0


def test_a_clipped_gradient_bounds_the_step() -> None:
    changes = {"train__momentum": 0.0, "train__weight_decay": 0.0, "train__batch_size": 24, "train__learning_rate": 1.0}
    trainer = toy_trainer(toy_spec("ordinary", **changes, train__max_grad_norm=0.01))
    before = weights_of(trainer)
    run_epochs(trainer, 1)
    moved = sum(float((value - before[name]).square().sum()) for name, value in weights_of(trainer).items())
    assert math.sqrt(moved) == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize(
    ("logits", "labels", "loss", "expected"),
    [
        ([[0.0], [0.0]], [1, 0], "logistic", math.log(2)),
        ([[2.0], [2.0]], [1, 0], "logistic", (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2),
        ([[1e4], [-1e4]], [0, 1], "logistic", 1e4),
        ([[0.0, 0.0, 0.0]], [2], "logistic", 3 * math.log(2)),
        ([[50.0, -50.0, -50.0]], [0], "logistic", 0.0),
        ([[0.0, 0.0, 0.0]], [1], "softmax", math.log(3)),
    ],
)
def test_task_loss_by_hand(logits: list[list[float]], labels: list[int], loss: str, expected: float) -> None:
    found = task_loss(torch.tensor(logits, dtype=torch.float64), torch.tensor(labels), loss)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_the_learning_rate_falls_log_spaced_and_is_then_held() -> None:
    train = TrainSpec(epochs=5, learning_rate=1e-2, final_learning_rate=1e-4, decay_epochs=3)
    assert [learning_rate_at(train, epoch) for epoch in range(1, 6)] == pytest.approx([1e-2, 1e-3, 1e-4, 1e-4, 1e-4])


def test_the_decay_takes_all_epochs_unless_told_otherwise() -> None:
    train = TrainSpec(epochs=20, learning_rate=0.02, final_learning_rate=0.002)
    rates = [learning_rate_at(train, epoch) for epoch in range(1, 21)]
    assert (rates[0], rates[-1]) == (pytest.approx(0.02), pytest.approx(0.002))
    assert len({round(later / earlier, 9) for earlier, later in pairwise(rates)}) == 1
    assert learning_rate_at(TrainSpec(epochs=20, learning_rate=0.02), 20) == 0.02
    assert learning_rate_at(TrainSpec(epochs=1, learning_rate=0.02, final_learning_rate=0.002), 1) == pytest.approx(
        0.02
    )


@pytest.mark.parametrize(("images", "size"), [(24, 8), (25, 8), (31, 8), (3, 2), (2, 32), (960, 32), (33, 32)])
def test_an_epoch_sees_every_image_once_and_never_one_alone(images: int, size: int) -> None:
    batches = batches_of_epoch(images, size, seed=5, epoch=3)
    assert sorted(np.concatenate(batches)) == list(range(images))
    lengths = [len(batch) for batch in batches]
    assert min(lengths) >= 2
    assert max(lengths) - min(lengths) <= 1


def test_every_epoch_has_an_order_of_its_own_and_always_the_same() -> None:
    orders = [np.concatenate(batches_of_epoch(50, 8, seed=5, epoch=epoch)).tolist() for epoch in (1, 2, 1)]
    assert orders[0] == orders[2] != orders[1]
