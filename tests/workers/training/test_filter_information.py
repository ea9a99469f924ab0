"""One pass over held-out images gives the logits, the information in the filters, and their categories."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from interp_model.loss.mutual_information import Information
from tests.support.toy import CPU, run_epochs, toy_data, toy_spec, toy_trainer
from workers.data.dataset import Rows, Split
from workers.evaluation.evaluate import predict
from workers.training import filter_information
from workers.training.filter_information import assess
from workers.training.inputs import Inputs
from workers.training.trainer import Trainer

TWO = ("voc_part/cat", "voc_part/dog")


def inputs_of(trainer: Trainer, split: Split) -> Inputs:
    return Inputs(trainer.network, split, toy_data(trainer.spec).mean_SS3, CPU)


def some_of(split: Split, index_N: list[int]) -> Split:
    return Split(
        split.labels_N[index_N],
        split.categories_N[index_N],
        split.landmarks_NK2[index_N],
        tuple(split.names_N[n] for n in index_N),
        Rows((split.take(index_N),), np.zeros(len(index_N), np.int64), np.arange(len(index_N))),
    )


def assert_told_alike(found: Information, expected: Information) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_answers_are_those_of_every_image() -> None:
    trainer = run_epochs(toy_trainer(toy_spec()), 1)
    inputs = inputs_of(trainer, toy_data(trainer.spec).train)
    assert torch.equal(assess(trainer.network, inputs).logits_NO, predict(trainer.network, inputs))


def test_of_many_images_evenly_spaced_ones_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = run_epochs(toy_trainer(toy_spec()), 2)
    split = toy_data(trainer.spec).train
    monkeypatch.setattr(filter_information, "INFORMATION_IMAGES", 6)
    found = assess(trainer.network, inputs_of(trainer, split))
    spaced = some_of(split, [0, 5, 9, 14, 18, 23])
    assert_told_alike(found.information, assess(trainer.network, inputs_of(trainer, spaced)).information)
    assert len(found.logits_NO) == 24


def test_a_filter_that_grows_tells_no_more() -> None:
    """Maps are scaled by each filter's own mean peak."""
    trainer = run_epochs(toy_trainer(toy_spec("ordinary")), 2)
    inputs = inputs_of(trainer, toy_data(trainer.spec).test)
    before = assess(trainer.network, inputs).information
    with torch.no_grad():
        for parameter in trainer.network.blocks["conv5"].parameters():
            parameter *= 8
    assert_told_alike(assess(trainer.network, inputs).information, before)


def test_a_filter_stands_for_the_category_whose_images_activate_it_most() -> None:
    trainer = run_epochs(toy_trainer(toy_spec("ordinary", data__categories=TWO, loss="softmax")), 1)
    inputs = inputs_of(trainer, toy_data(trainer.spec).test)
    with torch.no_grad():
        maps = trainer.network.forward_head(inputs.as_they_are(np.arange(12))).maps["conv5"]
    mean_CF = torch.stack([maps[inputs.label_N == c].sum(dim=(2, 3)).mean(dim=0) for c in range(2)])
    assert assess(trainer.network, inputs).category_F.tolist() == (mean_CF[1] > mean_CF[0]).long().tolist()


@pytest.mark.parametrize("variant", ["ordinary", "interpretable"])
def test_every_epoch_records_what_the_filters_tell_and_what_they_leave_open(variant: str) -> None:
    trainer = run_epochs(toy_trainer(toy_spec(variant)), 2)
    places = trainer.network.map_side(trainer.network.top_layer) ** 2
    for record in trainer.records:
        parts = (record.mutual_information, record.category_entropy, record.spatial_entropy)
        assert sum(parts) == pytest.approx(math.log(places + 1), abs=1e-6)  # Eq. 5
        assert record.mutual_information > 0
