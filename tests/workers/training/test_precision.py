"""Training with bfloat16 computes its layers with it, and its statistics and metrics stay near those of float32."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from schemas.job import JobSpec
from schemas.results import JobMetrics
from tests.support.toy import CPU, run_epochs, toy_data, toy_network, toy_spec, toy_trainer, weights_of
from workers.evaluation.evaluate import evaluate
from workers.training.inputs import Inputs
from workers.training.precision import forward_head
from workers.training.trainer import Trainer

HALF = {"train__precision": "bfloat16"}
GRADIENT_ERROR = 0.15
"""Largest error of a parameter's gradient relative to its norm. One rounding to bfloat16 has up to 0.004; the filter
loss and ten layers of a tiny network multiply it."""
METRIC_ERROR = 0.1
"""Largest relative difference of the location instability of two toy networks, over 12 images."""


def metrics_of(spec: JobSpec) -> JobMetrics:
    """Train a job and return everything that is measured of it."""
    data, trainer = toy_data(spec), run_epochs(toy_trainer(spec), spec.train.epochs)
    train, test = (Inputs(trainer.network, split, data.mean_SS3, CPU) for split in (data.train, data.test))
    return evaluate(trainer, data, train, test, test, lambda _: None).metrics


def test_convolutions_and_matrix_products_are_computed_with_bfloat16_and_given_back_as_float32() -> None:
    network, seen = toy_network(toy_spec()), []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    output = forward_head(network, torch.randn(2, 3, 64, 64), "bfloat16")
    assert set(seen) == {torch.bfloat16}
    assert {output.logits.dtype, *(maps.dtype for maps in output.maps.values())} == {torch.float32}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_filter_statistics_stay_in_float32() -> None:
    trainer = run_epochs(toy_trainer(toy_spec(**HALF, filter_loss={"form": "full"})), 1)
    (layer, *_) = trainer.filter_losses.values()
    assert layer.log_mean_FT.dtype == torch.float32
    assert not torch.equal(layer.log_mean_FT, layer.log_mean_FT.bfloat16().float())  # nor were they rounded on the way


def gradients_of(spec: JobSpec, *, micro_batches: int = 1) -> dict[str, Tensor]:
    """Return the gradients of one step on the whole data."""
    data, network = toy_data(spec), toy_network(spec)
    inputs = Inputs(network, data.train, data.mean_SS3, CPU)
    trainer = Trainer(spec, network, inputs, inputs, micro_batches=micro_batches)
    run_epochs(trainer, 1)
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("filter_loss", [{}, {"gradient_scope": "layer"}], ids=["whole", "layer"])
def test_gradients_differ_from_those_of_float32_by_rounding(filter_loss: dict[str, Any], micro_batches: int) -> None:
    one_batch = {"train__batch_size": 24, "train__epochs": 1, "filter_loss": filter_loss}
    exact = gradients_of(toy_spec(**one_batch))
    rounded = gradients_of(toy_spec(**one_batch, **HALF), micro_batches=micro_batches)
    assert exact.keys() == rounded.keys()
    for name, gradient in exact.items():
        error = ((rounded[name] - gradient).norm() / gradient.norm()).item()
        assert 0 < error < GRADIENT_ERROR, name


def test_metrics_are_near_those_of_float32() -> None:
    exact, rounded = metrics_of(toy_spec()), metrics_of(toy_spec(**HALF))
    assert rounded.location_instability != exact.location_instability
    assert rounded.location_instability == pytest.approx(exact.location_instability, rel=METRIC_ERROR)
    assert rounded.test_accuracy == pytest.approx(exact.test_accuracy, abs=1 / 12)


def test_an_interrupted_job_goes_on_with_the_same_bits() -> None:
    spec = toy_spec(**HALF, model__dropout=0.5)
    straight, first = run_epochs(toy_trainer(spec), 4), run_epochs(toy_trainer(spec), 2)
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = toy_trainer(spec)
    second.load_state_dict(torch.load(saved, weights_only=True))
    run_epochs(second, 2)
    expected = weights_of(straight)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(second).items())
