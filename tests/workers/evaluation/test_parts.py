"""Filters are measured on masked maps and on the parts of their own category; dead filters are left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_model.mask import apply_mask, peak_index
from interp_model.network import Network
from schemas.job import JobSpec
from tests.support.toy import CPU, SIDE, toy_data, toy_network, toy_spec, toy_trainer
from workers.data.dataset import JobData, Rows
from workers.evaluation.evaluate import evaluate
from workers.evaluation.parts import Parts, measure_parts
from workers.evaluation.peaks import unit_to_pixel
from workers.training import inputs
from workers.training.inputs import Inputs

UNITS = 3
ONE_UNIT_AN_IMAGE = 1 / UNITS**2


def places(images: int) -> NDArray[np.int64]:
    """One unit of the map per image."""
    return np.arange(images) % UNITS**2


def marked_data(spec: JobSpec, network: Network) -> JobData:
    """Return black images with a bright block around one unit; the block is the first or the second part."""
    data = toy_data(spec)
    images = 18
    centre_N2 = unit_to_pixel(network, torch.from_numpy(places(images))[None])[0].numpy().round().astype(int)
    label_N = np.arange(images, dtype=np.int64) % len(spec.data.categories)
    images_NSS3 = np.zeros((images, SIDE, SIDE, 3), np.uint8)
    parts_NSS = np.zeros((images, SIDE, SIDE), np.uint8)
    for n, (row, column) in enumerate(centre_N2):
        block = n, slice(row - 8, row + 8), slice(column - 8, column + 8)
        images_NSS3[block][..., label_N[n]] = 255
        parts_NSS[block] = 1 << label_N[n]
    index_N = np.arange(images)
    rows = Rows((images_NSS3,), 0 * index_N, index_N)
    measured = replace(
        data.test,
        labels_N=label_N,
        categories_N=label_N,
        landmarks_NK2=np.full((images, 1, 2), np.nan, np.float32),
        images_NSS3=rows,
        parts_NSS=replace(rows, sources=(parts_NSS,)),
    )
    return replace(data, measured=measured, category_names=spec.data.categories, mean_SS3=0 * data.mean_SS3)


def measure(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """Set the filters: one fires at the red block, one at the green, one opposite the red, the others never."""
    network = toy_network(spec)

    def see(network: Network, images_B3SS: Tensor) -> Tensor:
        bright_B3HW = torch.nn.functional.adaptive_avg_pool2d(images_B3SS, UNITS)
        strongest_B3HW = bright_B3HW * (bright_B3HW == bright_B3HW.amax(dim=(2, 3), keepdim=True))
        red, green = strongest_B3HW[:, 0], strongest_B3HW[:, 1]
        x_BFHW = torch.zeros(len(red), network.filters(network.top_layer), UNITS, UNITS)
        x_BFHW[:, 0], x_BFHW[:, 1], x_BFHW[:, 2] = red, green, red.roll(1, dims=2)
        return x_BFHW

    monkeypatch.setattr(Network, "forward_measured", see)
    data = marked_data(spec, network)
    found = measure_parts(spec, network, data, Inputs(network, data.measured, data.mean_SS3, CPU), lambda _: None)
    assert found is not None
    return found


@pytest.mark.parametrize("batch", [5, 64])
def test_a_filter_that_fires_at_the_part_is_that_part(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(inputs, "EVALUATION_BATCH", batch)
    found = measure(toy_spec("ordinary", evaluation={"valid_share": ONE_UNIT_AN_IMAGE}), monkeypatch)
    assert found.names_K == ("head", "torso", "frontal_legs", "back_legs", "tail")
    assert found.found.images_K.tolist() == [18, 0, 0, 0, 0]
    assert found.found.per_filter_F[[0, 2]].tolist() == [1, 0]
    assert found.found.left_out_F.tolist() == [False, True, False] + [True] * (len(found.category_F) - 3)


def test_of_several_categories_a_filter_is_measured_on_the_one_that_activates_it_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = toy_spec(
        "ordinary",
        data__categories=("voc_part/cat", "voc_part/bird"),
        evaluation={"valid_share": ONE_UNIT_AN_IMAGE},
    )
    found = measure(spec, monkeypatch)
    assert found.names_K == ("head", "torso", "frontal_legs", "back_legs", "tail", "legs")
    assert found.category_F[:3].tolist() == [0, 1, 0]
    assert found.found.per_filter_F[:3].tolist() == [1, 1, 0]
    # The green blocks are the second part of a bird; a bird has no frontal legs to find.
    assert found.found.per_part_FK[1].tolist() == pytest.approx([float("nan"), 1, *[float("nan")] * 4], nan_ok=True)
    assert found.found.images_K.tolist() == [9, 9, 0, 0, 0, 0]


def test_both_region_rules_are_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = {"valid_share": ONE_UNIT_AN_IMAGE, "part_regions": "bilinear"}
    assert measure(toy_spec("ordinary", evaluation=evaluation), monkeypatch).found.per_filter_F[0] == 1
    evaluation = {"valid_share": ONE_UNIT_AN_IMAGE, "round_radius": 0.01}
    assert measure(toy_spec("ordinary", evaluation=evaluation), monkeypatch).found.per_filter_F[0] == 0


@torch.no_grad()
def test_maps_are_masked_where_the_layer_has_masks() -> None:
    for spec, is_masked in (
        (toy_spec(), True),
        (toy_spec(model__mask=False), False),
        (toy_spec("ordinary"), False),
    ):
        network, data = toy_network(spec), toy_data(spec)
        features = Inputs(network, data.test, data.mean_SS3, CPU).as_they_are(np.arange(4))
        plain = network.forward_head(features).maps[network.top_layer]
        expected = apply_mask(plain, network.bank_PHW, peak_index(plain)) if is_masked else plain
        assert torch.equal(network.forward_measured(features), expected)
        assert torch.equal(expected, plain) is not is_masked


def test_without_masks_of_parts_nothing_is_measured() -> None:
    spec = toy_spec()
    trainer, data = toy_trainer(spec), toy_data(spec)
    inputs = [Inputs(trainer.network, split, data.mean_SS3, CPU) for split in (data.train, data.test, data.measured)]
    evaluation = evaluate(trainer, data, *inputs, lambda _: None)
    assert evaluation.metrics.part_interpretability is None
    assert evaluation.metrics.part_images == {}
    assert {row.part_interpretability for row in evaluation.rows} == {None}


def test_the_numbers_of_a_job_and_its_table_agree() -> None:
    spec = toy_spec(evaluation={"valid_share": 0.2})
    trainer = toy_trainer(spec)
    data = marked_data(spec, trainer.network)
    with torch.no_grad():
        conv = trainer.network.blocks["conv6"].conv  # type: ignore[union-attr]
        conv.weight[1] = 0  # type: ignore[index, operator]
        conv.bias[1] = -1  # type: ignore[index, operator]
    inputs = [Inputs(trainer.network, split, data.mean_SS3, CPU) for split in (data.train, data.test, data.measured)]
    evaluation = evaluate(trainer, data, *inputs, lambda _: None)
    metrics, dead = evaluation.metrics, evaluation.rows[1]
    assert (dead.part_interpretability, dead.best_part, dead.per_part["head"]) == (None, "", None)
    values = [row.part_interpretability for row in evaluation.rows if row.part_interpretability is not None]
    assert metrics.part_filters_left_out == len(evaluation.rows) - len(values) >= 1
    assert metrics.part_interpretability == pytest.approx(sum(values) / len(values))
    assert metrics.part_images == {"head": 18, "torso": 0, "frontal_legs": 0, "back_legs": 0, "tail": 0}
    assert set(metrics.part_association) == {"head"}
    assert metrics.part_valid_units == pytest.approx(0.2 * UNITS**2)
