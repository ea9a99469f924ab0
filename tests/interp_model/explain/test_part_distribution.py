"""Where the peaks of filters lie, counted by hand."""

from __future__ import annotations

import pytest
import torch

from interp_model.explain.part_distribution import nearest_landmarks, parts_at_peaks, peak_density, relative_scores

NAN = float("nan")


def test_the_nearest_landmark_is_counted_on_images_where_the_filter_fires_and_something_is_seen() -> None:
    landmark_NK2 = torch.tensor(
        [[[0.0, 0.0], [10.0, 10.0]], [[NAN, NAN], [10.0, 10.0]], [[NAN, NAN], [NAN, NAN]], [[0.0, 0.0], [10.0, 10.0]]]
    )
    pixel_NF2 = torch.tensor([[[1.0, 1.0]], [[1.0, 1.0]], [[1.0, 1.0]], [[1.0, 1.0]]])
    fires_NF = torch.tensor([[True], [True], [True], [False]])
    found = nearest_landmarks(pixel_NF2, fires_NF, landmark_NK2)
    assert found.share_FK.tolist() == [[0.5, 0.5]]  # on the second image only the far one can be seen
    assert found.images_F.tolist() == [2]


def test_a_filter_that_never_fires_has_no_share() -> None:
    found = nearest_landmarks(torch.zeros(2, 1, 2), torch.zeros(2, 1, dtype=torch.bool), torch.zeros(2, 3, 2))
    assert bool(found.share_FK.isnan().all())
    assert found.images_F.tolist() == [0]


def test_overlapping_parts_both_count_and_the_background_is_what_is_left() -> None:
    part_NFK = torch.tensor([[[True, True]], [[False, False]], [[True, False]]])
    shown_NK = torch.tensor([[True, True], [True, False], [False, False]])
    found = parts_at_peaks(part_NFK, torch.ones(3, 1, dtype=torch.bool), shown_NK)
    assert found.share_FK.tolist() == [[0.5, 0.5]]
    assert found.images_F.tolist() == [2]


def test_the_heat_is_highest_at_the_peak_and_sums_to_the_mean_weight() -> None:
    pixel_NF2 = torch.tensor([[[20.0, 30.0], [20.0, 30.0], [90.0, -7.0]]])
    heat_NSS = peak_density(pixel_NF2, torch.tensor([[1.0, 0.5, 0.0]]), 64, sigma=2.5)
    assert heat_NSS.shape == (1, 64, 64)
    assert divmod(int(heat_NSS[0].argmax()), 64) == (20, 30)
    assert heat_NSS.sum().item() == pytest.approx(0.5, abs=1e-3)


def test_no_filter_outweighs_another_by_its_scale() -> None:
    score_NF = torch.tensor([[1.0, 100.0, 0.0], [0.5, 50.0, 0.0]])
    assert relative_scores(score_NF).tolist() == [[1, 1, 0], [0.5, 0.5, 0]]
