"""Peaks match the maps, filters are measured on their steadiest category, and dead filters are left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.toy import CPU, SIDE, run_epochs, toy_data, toy_network, toy_spec, toy_trainer
from workers.data.dataset import Rows, Split
from workers.evaluation.evaluate import assigned_filters, evaluate, filter_rows, measure
from workers.evaluation.peaks import Peaks, find_noisy_peaks, find_peaks, unit_to_pixel
from workers.training.inputs import Inputs


def peaks_at(pixel_NF2: list[list[tuple[float, float]]], score: float = 1.0) -> Peaks:
    pixels = torch.tensor(pixel_NF2, dtype=torch.float64)
    return Peaks(torch.zeros(pixels.shape[:2], dtype=torch.int64), pixels, torch.full(pixels.shape[:2], score))


def test_units_are_rows_then_columns_one_stride_apart() -> None:
    network = toy_network(toy_spec("ordinary", model__input_size=224))
    assert network.map_side("conv5") == 13
    pixel_2 = unit_to_pixel(network, torch.tensor([[0, 1, 13]]))[0]
    # conv1's unit 0 sees pixels -2 to 8, with pixel 3 in the middle; two poolings reach 4 and 8 pixels further.
    assert pixel_2[0].tolist() == [15, 15]
    assert (pixel_2[1] - pixel_2[0]).tolist() == [0, 16]
    assert (pixel_2[2] - pixel_2[0]).tolist() == [16, 0]


def test_peaks_are_found_before_masking_and_image_by_image() -> None:
    spec = toy_spec()
    network, data = toy_network(spec), toy_data(spec)
    inputs = Inputs(network, data.test, data.mean_SS3, CPU)
    together = find_peaks(network, inputs, lambda _: None)
    with torch.no_grad():
        x_1FHW = network.forward_head(inputs.as_they_are(np.array([3]))).maps["conv6"]
    assert torch.allclose(together.score_NF[3], x_1FHW[0].amax(dim=(1, 2)))
    side = network.map_side("conv6")
    unit_F = together.unit_NF[3]
    strongest_F = x_1FHW[0, torch.arange(len(unit_F)), unit_F // side, unit_F % side]
    assert torch.allclose(strongest_F, together.score_NF[3])


def test_a_filter_that_keeps_its_distance_to_the_landmark_is_steady() -> None:
    spec = toy_spec("ordinary")
    data = toy_data(spec)
    measured = replace(
        data.test,
        landmarks_NK2=np.array([[[10, 10]], [[20, 30]], [[5, 50]]], np.float32),
        categories_N=np.zeros(3, np.int64),
    )
    steady = [(13.0, 14.0), (23.0, 34.0), (8.0, 54.0)]
    jumping = [(10.0, 10.0), (20.0, 40.0), (5.0, 30.0)]  # 0, 10 and 20 pixels away
    found, category_F = measure(
        spec, replace(data, measured=measured), peaks_at(list(map(list, zip(steady, jumping, strict=True))))
    )
    assert found.per_filter_F.tolist() == [pytest.approx(0), pytest.approx(10 / (SIDE * 2**0.5))]
    assert category_F.tolist() == [0, 0]


def test_of_several_categories_a_filter_counts_for_the_one_it_marks_most_steadily() -> None:
    spec = toy_spec("ordinary", data__categories=("voc_part/cat", "voc_part/dog"))
    data = toy_data(spec)
    measured = replace(data.test, landmarks_NK2=np.full((4, 1, 2), 10, np.float32), categories_N=np.array([0, 0, 1, 1]))
    jumps_on_cats = [[(10.0, 10.0)], [(40.0, 10.0)], [(15.0, 10.0)], [(15.0, 10.0)]]
    found, category_F = measure(spec, replace(data, measured=measured), peaks_at(jumps_on_cats))
    assert found.per_filter_F.tolist() == [0.0]
    assert category_F.tolist() == [1]


def test_without_landmarks_a_filter_counts_for_the_category_that_activates_it_most() -> None:
    spec = toy_spec("ordinary", data__categories=("voc_part/cat", "voc_part/dog"))
    data = replace(toy_data(spec), landmark_names=())
    measured = replace(
        data.test, landmarks_NK2=np.full((4, 1, 2), np.nan, np.float32), categories_N=np.array([0, 0, 1, 1])
    )
    score_NF = torch.tensor([[3.0, 1.0], [3.0, 1.0], [2.0, 2.0], [2.0, 2.0]])
    peaks = replace(peaks_at([[(10.0, 10.0)] * 2] * 4), score_NF=score_NF)
    found, category_F = measure(spec, replace(data, measured=measured), peaks)
    assert found.per_filter_F.isnan().all()
    assert category_F.tolist() == [0, 1]


def test_without_landmarks_accuracy_and_peaks_are_measured_but_no_instability() -> None:
    spec = toy_spec()
    trainer, data = run_epochs(toy_trainer(spec), 1), toy_data(spec)
    nowhere = [
        replace(split, landmarks_NK2=np.full((len(split), 1, 2), np.nan, np.float32))
        for split in (data.train, data.test, data.measured)
    ]
    data = replace(data, train=nowhere[0], test=nowhere[1], measured=nowhere[2], landmark_names=())
    inputs = [Inputs(trainer.network, split, data.mean_SS3, CPU) for split in nowhere]
    evaluation = evaluate(trainer, data, *inputs, lambda _: None)
    metrics = evaluation.metrics
    assert (metrics.location_instability, metrics.tracking_share, metrics.consistency) == (None, None, None)
    assert metrics.landmark_instability == {}
    assert 0 <= metrics.test_accuracy <= 1
    assert {row.near_landmark for row in evaluation.rows} == {""}
    assert any(row.peak_spread is not None for row in evaluation.rows)


def test_a_filter_that_never_fires_is_reported_and_left_out() -> None:
    spec = toy_spec()
    trainer, data = toy_trainer(spec), toy_data(spec)
    with torch.no_grad():
        conv = trainer.network.blocks["conv6"].conv  # type: ignore[union-attr]
        conv.weight[1] = 0  # type: ignore[index, operator]
        conv.bias[1] = -1  # type: ignore[index, operator]
    inputs = [Inputs(trainer.network, split, data.mean_SS3, CPU) for split in (data.train, data.test, data.measured)]
    evaluation = evaluate(trainer, data, *inputs, lambda _: None)
    row = evaluation.rows[1]
    assert (row.fires, row.firing_rate, row.peak_max, row.location_instability) == (False, 0.0, 0.0, None)
    assert row.images_used == {"head": 0}
    spreads = [row.peak_spread for row in evaluation.rows if row.peak_spread is not None]
    assert row.peak_spread is None
    assert evaluation.metrics.peak_spread == pytest.approx(sum(spreads) / len(spreads))
    assert evaluation.metrics.filters_left_out >= 1
    assert evaluation.metrics.location_instability is not None


def test_every_filter_is_compared_with_its_own_peaks_dealt_out_and_with_fixed_places() -> None:
    spec = toy_spec("ordinary")
    trainer, data = run_epochs(toy_trainer(spec), 2), toy_data(spec)
    inputs = [Inputs(trainer.network, split, data.mean_SS3, CPU) for split in (data.train, data.test, data.measured)]
    found = evaluate(trainer, data, *inputs, lambda _: None)
    metrics, rows = found.metrics, [row for row in found.rows if row.location_instability is not None]
    assert metrics.location_instability is not None
    assert metrics.shuffled_instability == pytest.approx(np.mean([row.shuffled_instability for row in rows]))
    assert metrics.tracking_share == pytest.approx(
        1 - metrics.location_instability / (metrics.shuffled_instability or 0)
    )
    assert all(
        row.tracking_share == pytest.approx(1 - row.location_instability / row.shuffled_instability) for row in rows
    )
    assert all((row.best_fixed_instability or 1) < (row.random_instability or 0) for row in rows)
    assert (metrics.held_out_instability, metrics.held_out_images) == (metrics.location_instability, 12)
    assert metrics.chance_accuracy == 0.5
    assert {row.near_landmark for row in rows} <= {"head", ""}
    assert metrics.stability_images == 12
    assert 0 <= (metrics.stability or 0) <= 1
    for name in ("location_instability", "tracking_share", "consistency"):
        low, high = metrics.intervals[name]
        assert low <= getattr(metrics, name) <= high


def test_held_out_images_are_also_measured_alone() -> None:
    spec = toy_spec("ordinary", train__epochs=1)
    trainer, data = toy_trainer(spec), toy_data(spec)
    inputs = [Inputs(trainer.network, split, data.mean_SS3, CPU) for split in (data.train, data.test, data.measured)]
    held_out_N = np.arange(12) % 3 != 0
    together = evaluate(trainer, replace(data, held_out_N=held_out_N), *inputs, lambda _: None).metrics
    kept = np.flatnonzero(held_out_N)
    test = data.test
    alone = Split(
        test.labels_N[kept], test.categories_N[kept], test.landmarks_NK2[kept], tuple(test.names_N[i] for i in kept),
        Rows(test.images_NSS3.sources, test.images_NSS3.source_N[kept], test.images_NSS3.row_N[kept]),
    )  # fmt: skip
    inputs[2] = Inputs(trainer.network, alone, data.mean_SS3, CPU)
    expected = evaluate(trainer, replace(data, measured=alone), *inputs, lambda _: None).metrics
    assert together.held_out_images == 8
    assert together.held_out_instability == pytest.approx(expected.location_instability, rel=1e-6)
    assert together.held_out_tracking_share == pytest.approx(expected.tracking_share, rel=1e-4)
    assert together.held_out_instability != together.location_instability


def test_stability_is_measured_on_as_many_images_as_are_asked_for() -> None:
    trainer, data = toy_trainer(toy_spec()), toy_data(toy_spec())
    measured = Inputs(trainer.network, data.test, data.mean_SS3, CPU)
    some = find_noisy_peaks(trainer.network, measured, np.array([0, 5, 9]), lambda _: None)
    every = find_noisy_peaks(trainer.network, measured, np.arange(12), lambda _: None)
    assert some.unit_NF.tolist() == every.unit_NF[[0, 5, 9]].tolist()  # an image's noise does not depend on the others
    inputs = [Inputs(trainer.network, split, data.mean_SS3, CPU) for split in (data.train, data.test, data.measured)]
    for images in (0, 5):
        trainer.spec = toy_spec(evaluation={"stability_images": images})
        metrics = evaluate(trainer, data, *inputs, lambda _: None).metrics
        assert (metrics.stability_images, metrics.stability is None) == (images, images == 0)


def test_accuracies_are_those_of_a_trained_network_without_dropout() -> None:
    spec = toy_spec("ordinary")
    trainer, data = run_epochs(toy_trainer(spec), 12), toy_data(spec)
    inputs = [Inputs(trainer.network, split, data.mean_SS3, CPU) for split in (data.train, data.test, data.measured)]
    metrics = evaluate(trainer, data, *inputs, lambda _: None).metrics
    assert metrics.test_accuracy == trainer.records[-1].validation_accuracy
    assert metrics.train_accuracy > 0.9
    assert (metrics.measured_layer, metrics.filters) == ("conv5", len(trainer.network.blocks["conv5"].conv.bias))  # type: ignore[union-attr, arg-type]


def test_the_table_has_peak_statistics_over_the_measured_images() -> None:
    spec = toy_spec("ordinary")
    data = replace(toy_data(spec), measured=replace(toy_data(spec).test))
    score_NF = torch.tensor([[0.0], [2.0], [4.0], [0.0]])
    pixel_NF2 = torch.tensor([[[0.0, 0.0]], [[10.0, 20.0]], [[10.0, 40.0]], [[60.0, 60.0]]], dtype=torch.float64)
    peaks = Peaks(torch.zeros(4, 1, dtype=torch.int64), pixel_NF2, score_NF)
    measured = replace(data.test, landmarks_NK2=np.zeros((4, 1, 2), np.float32), categories_N=np.zeros(4, np.int64))
    data = replace(data, measured=measured)
    found, category_F = measure(spec, data, peaks)
    (row,) = filter_rows(spec, data, peaks, found, category_F, None)
    assert (row.firing_rate, row.peak_mean, row.peak_max) == (0.5, 1.5, 4.0)
    assert row.peak_std == pytest.approx((11 / 3) ** 0.5)
    assert row.peak_spread == pytest.approx(200**0.5 / (SIDE * 2**0.5))  # of the two images on which it fires
    assert row.images_used == {"head": 2}
    assert (row.category, row.assigned_category) == ("voc_part/cat", "")


def test_filters_are_counted_by_category_and_one_without_any_is_said(caplog: pytest.LogCaptureFixture) -> None:
    spec = toy_spec("ordinary", data__categories=("voc_part/cat", "voc_part/dog", "cub200/bird"), loss="softmax")
    counts = assigned_filters(spec, torch.tensor([0, 2, 2, 0, 2]))
    assert counts == {"voc-cat": 2, "voc-dog": 0, "cub-bird": 3}
    assert "no filter has category voc-dog" in caplog.text
    assert assigned_filters(toy_spec(), torch.zeros(5, dtype=torch.int64)) == {}


@pytest.mark.parametrize("variant", ["ordinary", "interpretable"])
def test_a_network_of_several_categories_says_which_filters_stand_for_which(variant: str) -> None:
    spec = toy_spec(variant, data__categories=("voc_part/cat", "voc_part/dog"), loss="softmax")
    trainer, data = run_epochs(toy_trainer(spec), 1), toy_data(spec)
    inputs = [Inputs(trainer.network, split, data.mean_SS3, CPU) for split in (data.train, data.test, data.measured)]
    evaluation = evaluate(trainer, data, *inputs, lambda _: None)
    counts = evaluation.metrics.assigned_filters
    assert sum(counts.values()) == evaluation.metrics.filters
    if variant == "interpretable":
        trained = [row.assigned_category for row in evaluation.rows]
        assert counts == {"voc-cat": trained.count("voc_part/cat"), "voc-dog": trained.count("voc_part/dog")}


def test_each_filter_says_what_it_tells_and_what_it_leaves_open() -> None:
    spec = toy_spec()
    trainer, data = run_epochs(toy_trainer(spec), 1), toy_data(spec)
    inputs = [Inputs(trainer.network, split, data.mean_SS3, CPU) for split in (data.train, data.test, data.measured)]
    rows = evaluate(trainer, data, *inputs, lambda _: None).rows
    values = [row.mutual_information or 0.0 for row in rows]
    assert sum(values) / len(values) == pytest.approx(trainer.records[-1].mutual_information)
    assert all((row.category_entropy or 0.0) > 0 and (row.spatial_entropy or 0.0) > 0 for row in rows)
