"""A loss that is not finite stops the training, also where losses are read seldom."""

from __future__ import annotations

import pytest
import torch

from schemas.errors import Diverged, Interrupted
from tests.support.toy import toy_spec, toy_trainer
from workers.training import divergence
from workers.training.divergence import LossWatch, check_weights

FINE, LOST = torch.tensor(1.0), torch.tensor(float("nan"))


def test_the_first_step_with_such_a_loss_is_named_when_the_losses_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "READ_EVERY", 4)
    watch = LossWatch(toy_spec(), torch.device("meta"))
    for step, loss in enumerate((FINE, LOST, LOST), start=1):
        watch.add({"task": FINE, "conv6 filter": loss}, epoch=2, step=step)
    with pytest.raises(Diverged, match=r"The conv6 filter loss of .* is nan in epoch 2, step 2\."):
        watch.add({"task": LOST, "conv6 filter": FINE}, epoch=2, step=4)
    watch.read()  # nothing is left


def test_the_first_weights_that_are_not_finite_are_named() -> None:
    network = toy_trainer(toy_spec("ordinary")).network
    check_weights(toy_spec("ordinary"), network, 3)
    _, second, *_ = names = [name for name, _ in network.named_parameters()]
    with torch.no_grad():
        for name in (second, names[-1]):
            network.get_parameter(name).flatten()[0] = torch.inf
    with pytest.raises(Diverged, match=rf"The weights {second} of .* are not finite after epoch 3\."):
        check_weights(toy_spec("ordinary"), network, 3)


def test_on_a_cpu_every_step_is_read_at_once() -> None:
    with pytest.raises(Diverged, match=r"epoch 1, step 1\."):
        LossWatch(toy_spec(), torch.device("cpu")).add({"task": LOST}, epoch=1, step=1)


def test_a_state_with_unread_losses_is_not_saved_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = toy_trainer(toy_spec("ordinary"))
    monkeypatch.setattr(trainer._losses, "_every", 1000)
    steps = iter(range(3))

    def on_step() -> None:
        if next(steps) == 1:
            with torch.no_grad():
                trainer.network.blocks["fc8"].linear.bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
        elif trainer.step == 2:
            raise Interrupted("asked to stop")

    with pytest.raises(Interrupted):
        trainer.run_epoch(on_step)
    with pytest.raises(Diverged, match=r"epoch 1, step 2\."):
        trainer.state_dict()
