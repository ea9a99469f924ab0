"""Measures share one forward pass of the measured images, and find the same without room to keep its maps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from interp_model.network import Network
from schemas.job import JobSpec
from tests.support.toy import CPU, toy_data, toy_spec, toy_trainer, with_parts
from workers.evaluation.evaluate import Evaluation, evaluate
from workers.evaluation.kept_maps import KeptMaps
from workers.training import inputs
from workers.training.inputs import Inputs

TWO = ("voc_part/cat", "voc_part/dog")


def evaluated(spec: JobSpec, monkeypatch: pytest.MonkeyPatch, *, room: int) -> tuple[Evaluation, Counter[int]]:
    """Measure with so much room for maps; return also how often each size of batch passed to the measured layer."""
    trainer, data = toy_trainer(spec), with_parts(toy_data(spec))
    passed: Counter[int] = Counter()
    forward = Network.forward_unmasked

    def counting(network: Network, x: Tensor) -> Tensor:
        passed[len(x)] += 1
        return forward(network, x)

    monkeypatch.setattr(Network, "forward_unmasked", counting)
    monkeypatch.setattr(inputs, "MEMORY_LIMIT", room)
    splits = [Inputs(trainer.network, split, data.mean_SS3, CPU) for split in (data.train, data.test, data.measured)]
    found = evaluate(trainer, data, *splits, lambda _: None)
    monkeypatch.undo()
    return found, passed


@pytest.mark.parametrize(
    ("categories", "shared", "alone"), [(TWO[:1], {12: 1}, {12: 3}), (TWO, {12: 1, 6: 2}, {12: 1, 6: 4})]
)
def test_maps_are_computed_once_if_there_is_room(
    monkeypatch: pytest.MonkeyPatch, categories: tuple[str, ...], shared: dict[int, int], alone: dict[int, int]
) -> None:
    spec = toy_spec(data__categories=categories, evaluation={"stability_images": 0, "valid_share": 0.2})
    with_room, few = evaluated(spec, monkeypatch, room=2**20)
    without, many = evaluated(spec, monkeypatch, room=0)
    assert (dict(few), dict(many)) == (shared, alone)
    assert with_room.metrics == without.metrics
    assert repr(with_room.rows) == repr(without.rows)
    assert with_room.metrics.part_interpretability is not None


def test_only_whole_batches_that_are_wanted_are_kept_while_there_is_room() -> None:
    first, second, other = (np.arange(start, start + 2, dtype=np.int64) for start in (0, 2, 4))
    maps_BFHW = torch.ones(2, 1, 1, 1)
    kept = KeptMaps([first, second], limit=maps_BFHW.nbytes)
    kept.keep(other, maps_BFHW)
    kept.keep(first, maps_BFHW)
    kept.keep(second, maps_BFHW)
    assert (kept.get(other), kept.get(second)) == (None, None)
    assert kept.get(first) is maps_BFHW
    assert kept.get(first[:1]) is None
    assert kept.pop(first) is maps_BFHW
    assert kept.pop(first) is None
    kept.keep(second, maps_BFHW)
    assert kept.get(second) is maps_BFHW
