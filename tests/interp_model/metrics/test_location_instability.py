"""Location instability by hand, under what must not change it, and with images, landmarks or peaks missing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from interp_model.metrics.location_instability import LocationInstability, location_instability, steadiest_category

NAN = float("nan")


def scene(n_images: int = 40, filters: int = 5, landmarks: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    peaks = 200 * torch.rand(n_images, filters, 2, generator=generator, dtype=torch.float64)
    scores = torch.rand(n_images, filters, generator=generator, dtype=torch.float64) + 0.1
    places = 200 * torch.rand(n_images, landmarks, 2, generator=generator, dtype=torch.float64)
    places[torch.rand(n_images, landmarks, generator=generator) < 0.3] = NAN
    return peaks, scores, places, torch.full((n_images,), 300.0, dtype=torch.float64)


def same(a: LocationInstability, b: LocationInstability) -> None:
    for ours, theirs in zip(a, b, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def one_filter(distances: list[float], scores: list[float] | None = None, top: int = 100) -> LocationInstability:
    """One filter that peaks at the origin; a landmark so many pixels to the right; a diagonal of 10 pixels."""
    n = len(distances)
    landmarks = torch.tensor([[[0.0, d]] for d in distances])
    landmarks[landmarks.isnan().any(-1)] = NAN
    return location_instability(
        torch.zeros(n, 1, 2), torch.tensor(scores or [1.0] * n)[:, None], landmarks, torch.full((n,), 10.0), top
    )


def test_standard_deviation_of_the_normalised_distance_with_n_minus_1() -> None:
    # distances 0.3, 0.4, 0.8: mean 0.5, squares 0.04 + 0.01 + 0.09 = 0.14, over 2 = 0.07
    measured = one_filter([3.0, 4.0, 8.0])
    assert measured.mean == pytest.approx(math.sqrt(0.07))
    assert measured.images_used_FK.tolist() == [[3]]


def test_the_distance_is_euclidean_and_divided_by_each_images_own_diagonal() -> None:
    peaks = torch.tensor([[[0.0, 0.0]], [[10.0, 10.0]]])
    landmarks = torch.tensor([[[3.0, 4.0]], [[10.0, 16.0]]])
    measured = location_instability(peaks, torch.ones(2, 1), landmarks, torch.tensor([10.0, 20.0]))
    # 5/10 = 0.5 and 6/20 = 0.3: half their difference, times the root of 2
    assert measured.mean == pytest.approx(0.1 * math.sqrt(2))


def test_a_filter_that_keeps_its_distance_is_perfectly_steady() -> None:
    peaks, scores, landmarks, diagonal = scene(landmarks=1)
    landmarks = landmarks.nan_to_num(50.0)
    measured = location_instability(landmarks.expand_as(peaks) + 7, scores, landmarks, diagonal)
    torch.testing.assert_close(measured.per_filter_F, torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)


def test_only_the_images_with_the_highest_scores_count() -> None:
    measured = one_filter([1.0, 9.0, 3.0, 50.0], scores=[0.9, 0.2, 0.8, 0.1], top=2)
    assert measured.mean == pytest.approx(0.1 * math.sqrt(2))  # 0.1 and 0.3
    assert measured.images_used_FK.tolist() == [[2]]


def test_the_top_images_are_taken_among_those_that_show_the_landmark() -> None:
    measured = one_filter([NAN, 1.0, 3.0, 9.0], scores=[0.9, 0.8, 0.7, 0.6], top=2)
    assert measured.mean == pytest.approx(0.1 * math.sqrt(2))


def test_each_landmark_has_its_own_images_and_the_filter_their_mean() -> None:
    landmarks = torch.tensor([[[0.0, 1.0], [NAN, NAN]], [[0.0, 3.0], [0.0, 2.0]], [[NAN, NAN], [0.0, 6.0]]])
    measured = location_instability(torch.zeros(3, 1, 2), torch.ones(3, 1), landmarks, torch.full((3,), 10.0))
    assert measured.per_landmark_FK.tolist() == [pytest.approx([0.1 * math.sqrt(2), 0.2 * math.sqrt(2)])]
    assert measured.mean == pytest.approx(0.15 * math.sqrt(2))
    assert measured.images_used_FK.tolist() == [[2, 2]]


def test_one_usable_image_is_not_enough() -> None:
    measured = one_filter([1.0, NAN, NAN])
    assert math.isnan(measured.mean)
    assert measured.left_out_F.tolist() == [True]
    assert measured.never_fires_F.tolist() == [False]


def test_a_landmark_that_cannot_be_measured_does_not_spoil_the_others() -> None:
    landmarks = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[0.0, 3.0], [NAN, NAN]]])
    measured = location_instability(torch.zeros(2, 1, 2), torch.ones(2, 1), landmarks, torch.full((2,), 10.0))
    assert measured.per_landmark_FK[0, 1].isnan()
    assert measured.mean == pytest.approx(0.1 * math.sqrt(2))


def test_a_filter_that_never_fires_is_left_out_and_told_apart() -> None:
    peaks, scores, landmarks, diagonal = scene()
    scores[:, 2] = 0
    measured = location_instability(peaks, scores, landmarks, diagonal)
    assert measured.never_fires_F.tolist() == [False, False, True, False, False]
    assert measured.left_out_F.tolist() == [False, False, True, False, False]
    others = measured.per_filter_F[[0, 1, 3, 4]]
    assert measured.mean == pytest.approx(others.mean().item())


def test_images_on_which_a_filter_does_not_fire_are_not_used() -> None:
    same(one_filter([1.0, 3.0, 50.0], scores=[0.5, 0.4, 0.0]), one_filter([1.0, 3.0], scores=[0.5, 0.4]))


def test_no_landmark_anywhere_gives_no_value() -> None:
    measured = one_filter([NAN, NAN, NAN])
    assert math.isnan(measured.mean)
    assert measured.images_used_FK.tolist() == [[0]]


def test_moving_peaks_and_landmarks_together_changes_nothing() -> None:
    peaks, scores, landmarks, diagonal = scene()
    shift = torch.tensor([13.0, -4.0], dtype=torch.float64)
    same(
        location_instability(peaks, scores, landmarks, diagonal, top=7),
        location_instability(peaks + shift, scores, landmarks + shift, diagonal, top=7),
    )


def test_mirroring_every_image_changes_nothing() -> None:
    peaks, scores, landmarks, diagonal = scene()
    flip = torch.tensor([1.0, -1.0], dtype=torch.float64)
    across = torch.tensor([0.0, 224.0], dtype=torch.float64)
    same(
        location_instability(peaks, scores, landmarks, diagonal, top=7),
        location_instability(across + flip * peaks, scores, across + flip * landmarks, diagonal, top=7),
    )


def test_the_unit_of_length_does_not_matter() -> None:
    peaks, scores, landmarks, diagonal = scene()
    same(
        location_instability(peaks, scores, landmarks, diagonal),
        location_instability(3 * peaks, scores, 3 * landmarks, 3 * diagonal),
    )


def test_the_order_of_filters_and_of_images_does_not_matter() -> None:
    peaks, scores, landmarks, diagonal = scene()
    plain = location_instability(peaks, scores, landmarks, diagonal, top=9)
    filters, order = torch.tensor([3, 0, 4, 1, 2]), torch.randperm(40, generator=torch.Generator().manual_seed(1))
    permuted = location_instability(
        peaks[order][:, filters], scores[order][:, filters], landmarks[order], diagonal[order], top=9
    )
    same(LocationInstability(*(part[filters] for part in plain)), permuted)


def test_random_scatter_about_a_landmark_gives_its_standard_deviation() -> None:
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    peaks = torch.zeros(n, 1, 2, dtype=torch.float64)
    peaks[:, 0, 1] = 100 + 4 * torch.randn(n, generator=generator, dtype=torch.float64)
    measured = location_instability(peaks, torch.ones(n, 1), torch.zeros(n, 1, 2), torch.full((n,), 200.0), top=n)
    assert measured.mean == pytest.approx(4 / 200, rel=0.02)


def test_a_filter_of_many_categories_takes_the_one_where_it_is_steadiest() -> None:
    value, category = steadiest_category(torch.tensor([[0.3, NAN, NAN], [0.1, 0.2, NAN]]))
    assert value[:2].tolist() == pytest.approx([0.1, 0.2])
    assert category[:2].tolist() == [1, 1]
    assert value[2].isnan()


def test_a_deviation_rests_on_as_many_images_as_are_asked_for() -> None:
    """The filter fires on two of four images, at one distance by chance: steadier than it is anywhere else."""
    peaks = torch.tensor([[[0.0, 3.0]], [[0.0, 3.0]], [[0.0, 9.0]], [[0.0, 1.0]]])
    scores = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    landmarks, diagonal = torch.zeros(4, 1, 2), torch.full((4,), 10.0)
    assert location_instability(peaks, scores, landmarks, diagonal).per_filter_F.tolist() == [0.0]
    assert location_instability(peaks, scores, landmarks, diagonal, fewest=3).left_out_F.tolist() == [True]
    everywhere = torch.ones(4, 1)
    expected = torch.tensor([0.3, 0.3, 0.9, 0.1]).std()
    found = location_instability(peaks, everywhere, landmarks, diagonal, fewest=3).per_filter_F
    assert found.item() == pytest.approx(expected.item())
