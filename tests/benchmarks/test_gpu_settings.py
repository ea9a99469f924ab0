"""Compiled training steps: which calls are compiled, and that they compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks import gpu_settings
from benchmarks.gpu_parts import SMALL
from interp_model.network import Output
from tests.support.toy import CPU, run_epochs, toy_network, toy_spec, toy_trainer


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that pass through a compiled function, which is not compiled here."""
    sizes: list[int] = []

    def compile_(function: Callable[[torch.Tensor], Output], **_: Any) -> Callable[[torch.Tensor], Output]:
        def noting(x: torch.Tensor) -> Output:
            sizes.append(len(x))
            return function(x)

        return noting

    monkeypatch.setattr(torch, "compile", compile_)
    return sizes


def test_only_training_steps_of_whole_batches_are_compiled(compiled: list[int]) -> None:
    trainer = toy_trainer(toy_spec(train__batch_size=8))  # of 24 images; 12 are measured after the epoch
    gpu_settings.compile_steps(trainer.network, 8, "default")
    run_epochs(trainer, 1)
    assert compiled == [8, 8, 8]
    other = toy_trainer(toy_spec(train__batch_size=6))
    gpu_settings.compile_steps(other.network, 8, "default")
    run_epochs(other, 1)
    assert compiled == [8, 8, 8]


def test_a_row_compares_a_compiled_epoch_with_a_plain_one(compiled: list[int]) -> None:
    (row,) = gpu_settings.compile_gain(CPU, SMALL, lambda: True, ["alexnet"])
    assert row["difference"] == 0
    assert row["plain_s"] > 0 < row["compiled_s"]
    assert set(compiled) == {SMALL.batch}


def test_the_largest_difference_is_relative_to_the_largest_weight() -> None:
    one, other = toy_network(toy_spec()), toy_network(toy_spec())
    assert gpu_settings.largest_difference(one, other) == 0
    with torch.no_grad():
        weight = next(other.parameters())
        weight.flatten()[weight.abs().argmin()] += weight.abs().max() / 4
    assert gpu_settings.largest_difference(one, other) == pytest.approx(0.25)
