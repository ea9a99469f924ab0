"""Networks are only timed as one if they get the gradients that each gets alone."""

from __future__ import annotations

import pytest
import torch

from benchmarks import packs
from benchmarks.packs import epochs_of, job_of, largest_difference, operations_of, times_of
from schemas.job import ModelSpec
from workers.training.pack_probe import batches_of

CPU = torch.device("cpu")
MODEL = ModelSpec(backbone="alexnet", variant="interpretable", width=0.05, input_size=64, fc_width=16)


def test_each_network_of_a_pack_has_its_own_gradients() -> None:
    batches = batches_of(job_of(MODEL, 4), 3, CPU)
    assert 0 < largest_difference(batches) < 1e-4
    assert all(parameter.grad is None for batch in batches for parameter in batch.network.parameters())


def test_a_pack_whose_gradients_differ_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "largest_difference", lambda batches: 2e-3)
    with pytest.raises(RuntimeError, match=r"the gradients differ by 2\.0e-03"):
        times_of(MODEL, 2, 4, 1, CPU)


def test_a_pack_starts_fewer_operations_than_its_networks_one_by_one() -> None:
    alone, packed = operations_of(batches_of(job_of(MODEL, 4), 4, CPU))
    assert alone > 4 * 50
    assert packed < alone / 2


def test_whole_epochs_are_timed_both_ways() -> None:
    assert min(epochs_of(job_of(MODEL, 4), 2, 8, 1, CPU)) > 0
