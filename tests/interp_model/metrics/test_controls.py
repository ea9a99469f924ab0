"""What a location instability is worth, by hand, under what must not change it, and with values missing."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor

from interp_model.metrics.baselines import baselines
from interp_model.metrics.bootstrap import intervals, percentiles, resamples
from interp_model.metrics.consistency import NEAR, consistency, counted, near_landmarks, stability
from interp_model.metrics.location_instability import location_instability, top_images
from interp_model.metrics.scene import Scene, make_scene
from interp_model.metrics.tracking import peak_distances, real_variance, shuffled, tracking_share

NAN = float("nan")
SIDE = 100.0
GRID = torch.cartesian_prod(torch.arange(7.0), torch.arange(7.0)).double() * 15 + 5
"""(row, column) of a 7 x 7 map's places."""


def drawn(n_images: int = 40, filters: int = 5, landmarks: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return units, scores (some 0) and landmarks (some hidden) at random."""
    generator = torch.Generator().manual_seed(0)
    units = torch.randint(len(GRID), (n_images, filters), generator=generator)
    scores = (torch.rand(n_images, filters, generator=generator) - 0.1).clamp_min(0)
    places = SIDE * torch.rand(n_images, landmarks, 2, generator=generator, dtype=torch.float64)
    places[torch.rand(n_images, landmarks, generator=generator) < 0.3] = NAN
    return units, scores, places


def scene_of(units: Tensor, scores: Tensor, landmarks: Tensor, places: Tensor = GRID, **settings: int) -> Scene:
    return make_scene(units, scores, torch.ones_like(scores, dtype=torch.bool), places, landmarks, SIDE, **settings)


def on_a_line(landmarks: list[float], units: list[int] | None = None) -> Scene:
    """One filter over three places 0, 30 and 60 pixels along a line; the diagonal is 100."""
    places = torch.tensor([[0.0, 0.0], [0.0, 30.0], [0.0, 60.0]])
    at = torch.tensor([[[0.0, x]] for x in landmarks])
    at[at.isnan().any(-1)] = NAN
    n = len(landmarks)
    return make_scene(
        torch.tensor(units or [0] * n)[:, None], torch.ones(n, 1), torch.ones(n, 1, dtype=torch.bool), places, at,
        100 / 2**0.5,
    )  # fmt: skip


def deviation(scene: Scene, variance_KF: Tensor) -> float:
    return scene.mean_deviation(variance_KF).item()


def test_the_images_used_are_those_behind_the_location_instability() -> None:
    units, scores, landmarks = drawn()
    real = location_instability(GRID[units], scores, landmarks, torch.full((40,), SIDE * 2**0.5), top=9, fewest=3)
    scene = scene_of(units, scores, landmarks, top=9, fewest=3)
    torch.testing.assert_close(scene.mean_deviation(real_variance(scene)), real.per_filter_F, rtol=1e-6, atol=1e-7)
    assert scene.count_KF.T.tolist() == real.images_used_FK.tolist()


def test_the_best_scores_are_used_and_ties_go_to_the_first_image() -> None:
    scores = torch.tensor([[0.2], [0.9], [0.2], [0.8]])
    assert top_images(scores, torch.tensor([[True], [False], [True], [True]]), 2).tolist() == [
        [True], [False], [False], [True],
    ]  # fmt: skip


# -- shuffled instability -----------------------------------------------------------------------------------------


def test_two_images_have_two_ways_to_deal() -> None:
    # Peaks at 0 and 60, landmarks at 10 and 90: distances (10, 30) as they are, and (90, 50) dealt the other way.
    scene = on_a_line([10, 90], [0, 2])
    assert deviation(scene, real_variance(scene)) == pytest.approx(math.sqrt(0.02))
    assert deviation(scene, shuffled(scene).variance_KF) == pytest.approx(math.sqrt((0.02 + 0.08) / 2))


def test_the_closed_form_is_the_mean_over_all_permutations() -> None:
    units, scores, landmarks = drawn(n_images=6, filters=3, landmarks=1)
    landmarks, scores = landmarks.nan_to_num(20.0), scores + 1
    variances = []
    for order in permutations(range(6)):
        scene = scene_of(units[list(order)], scores, landmarks)
        variances.append(real_variance(scene))
    expected = torch.stack(variances).mean(dim=0)
    torch.testing.assert_close(shuffled(scene_of(units, scores, landmarks)).variance_KF, expected)


def test_leaving_an_image_out_gives_its_influence() -> None:
    units, scores, landmarks = drawn(n_images=12)
    scene = scene_of(units, scores, landmarks)
    found = shuffled(scene)
    k, f = 1, 2
    used = torch.nonzero(scene.used_KNF[k, :, f]).squeeze(1)
    without = []
    for n in used.tolist():
        kept = torch.tensor([i for i in range(12) if i != n])
        without.append(shuffled(scene_of(units[kept], scores[kept], landmarks[kept])).variance_KF[k, f])
    change = (len(used) - 1) * (found.variance_KF[k, f] - torch.stack(without))
    torch.testing.assert_close(found.influence_KNF[k, used, f], change - change.mean())
    assert found.influence_KNF[k].where(~scene.used_KNF[k], 0).abs().max() == 0


def test_a_peak_that_never_moves_tracks_nothing() -> None:
    _, scores, landmarks = drawn()
    scene = scene_of(torch.full((40, 5), 24), scores, landmarks)
    real, dealt = (scene.mean_deviation(v) for v in (real_variance(scene), shuffled(scene).variance_KF))
    torch.testing.assert_close(tracking_share(real, dealt), torch.zeros(5, dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_peak_at_a_constant_offset_from_the_landmark_tracks_it_wholly() -> None:
    units = torch.randint(len(GRID), (40, 2), generator=torch.Generator().manual_seed(3))
    landmarks = GRID[units[:, :1]] + 4.0
    scene = scene_of(units[:, :1], torch.ones(40, 1), landmarks)
    real, dealt = (scene.mean_deviation(v) for v in (real_variance(scene), shuffled(scene).variance_KF))
    assert dealt.item() > 0.1
    assert tracking_share(real, dealt).item() == pytest.approx(1, abs=1e-6)


def test_peaks_at_random_track_nothing_on_average() -> None:
    generator = torch.Generator().manual_seed(1)
    units = torch.randint(len(GRID), (100, 400), generator=generator)
    landmarks = SIDE * torch.rand(100, 1, 2, generator=generator, dtype=torch.float64)
    scene = scene_of(units, torch.ones(100, 400), landmarks)
    real, dealt = (scene.mean_deviation(v).mean() for v in (real_variance(scene), shuffled(scene).variance_KF))
    assert tracking_share(real, dealt).item() == pytest.approx(0, abs=0.01)


def test_nothing_to_track_has_no_share() -> None:
    assert tracking_share(torch.zeros(1), torch.zeros(1)).isnan().all()


# -- baselines ----------------------------------------------------------------------------------------------------


def test_baselines_by_hand() -> None:
    # From places 0, 30, 60 to landmarks 20 and 80: (.2, .8), (.1, .5), (.4, .2); the centre is at 34.85.
    found = baselines(on_a_line([20, 80]))
    assert found.best_fixed_F.item() == pytest.approx(0.2 / 2**0.5)
    # Each landmark's distance from a random place has variance 0.014 / 0.9 and 0.06; the means are .7/3 and .5.
    within = (torch.tensor([0.2, 0.1, 0.4]).var(correction=0) + torch.tensor([0.8, 0.5, 0.2]).var(correction=0)) / 2
    assert found.random_F.item() == pytest.approx(math.sqrt(within + (0.7 / 3 - 0.5) ** 2 / 2), rel=1e-6)


def test_the_centre_is_that_of_the_image() -> None:
    landmarks = torch.tensor([[[49.5, 49.5 + x]] for x in (0.0, 10.0)])
    found = baselines(scene_of(torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1), landmarks))
    assert found.centre_F.item() == pytest.approx(10 / (SIDE * 2**0.5) / 2**0.5)


def test_a_fixed_filter_has_the_instability_of_its_place_and_none_is_below_the_best_one() -> None:
    _, scores, landmarks = drawn()
    fixed = [
        scene.mean_deviation(real_variance(scene))
        for unit in range(len(GRID))
        if (scene := scene_of(torch.full((40, 5), unit), scores, landmarks))
    ]
    found = baselines(scene_of(torch.zeros(40, 5, dtype=torch.int64), scores, landmarks))
    torch.testing.assert_close(found.best_fixed_F, torch.stack(fixed).amin(dim=0))


def test_random_peaks_have_the_random_baseline() -> None:
    generator = torch.Generator().manual_seed(1)
    landmarks = SIDE * torch.rand(100, 1, 2, generator=generator, dtype=torch.float64)
    scene = scene_of(torch.randint(len(GRID), (100, 400), generator=generator), torch.ones(100, 400), landmarks)
    real = scene.mean_deviation(real_variance(scene)).mean()
    assert real.item() == pytest.approx(baselines(scene).random_F.mean().item(), rel=0.01)


# -- consistency and stability ------------------------------------------------------------------------------------


def test_a_landmark_is_near_inside_a_square_around_the_peak() -> None:
    half = NEAR * SIDE
    at = torch.tensor([[[50.0, 50.0]]]).double()
    landmarks = torch.tensor([[[50 + half - 0.1, 50 - half + 0.1], [50 + half + 0.1, 50.0], [NAN, NAN]]]).double()
    assert near_landmarks(at, landmarks, SIDE).flatten().tolist() == [True, False, False]


def test_consistency_counts_the_most_frequent_landmark_over_the_images_that_show_it() -> None:
    # Landmark 0 is near in 4 of 5 images, landmark 1 in 2 of the 3 that show it. The other filter is never near.
    landmarks = torch.tensor([[[5.0, 5.0], [5.0, 5.0]]] * 5).double()
    landmarks[4, 0] = landmarks[2, 1] = 95.0
    landmarks[3:, 1] = NAN
    units = torch.tensor([[0, 6]] * 5)
    fires = torch.ones(5, 2, dtype=torch.bool)
    near = near_landmarks(GRID[units], landmarks, SIDE)
    found = consistency(near, counted(fires, landmarks), GRID, landmarks, SIDE, fewest=2)
    assert found.share_F.tolist() == pytest.approx([0.8, 0.0])
    assert found.landmark_F[0] == 0
    assert found.score == 0.5
    assert found.fixed_F.tolist() == pytest.approx([0.8, 0.8])  # the place of the first filter
    assert found.fixed_score == 1.0


def test_a_filter_that_never_fires_has_no_consistency_and_is_left_out() -> None:
    landmarks = torch.full((4, 1, 2), 5.0).double()
    fires = torch.tensor([[True, False]] * 4)
    near = near_landmarks(GRID[torch.zeros(4, 2, dtype=torch.int64)], landmarks, SIDE)
    found = consistency(near, counted(fires, landmarks), GRID, landmarks, SIDE, fewest=2)
    assert (found.share_F[0].item(), found.share_F[1].isnan().item(), found.score) == (1.0, True, 1.0)
    hidden = torch.full((4, 1, 2), NAN).double()
    nothing = consistency(near & False, counted(fires, hidden), GRID, hidden, SIDE, fewest=2)
    assert math.isnan(nothing.score)


def test_a_filter_is_stable_where_noise_changes_no_landmark_near_it() -> None:
    near = torch.tensor([[[True], [True], [False], [True], [True]]])  # one landmark, five images
    noisy = torch.tensor([[[True], [False], [False], [True], [False]]])
    counts = torch.tensor([[[True], [True], [True], [True], [False]]])
    fires = torch.tensor([[True], [True], [True], [False], [True]])
    # the same; no longer near; near nothing in both; fires no longer; does not count
    assert stability(near, noisy, counts, fires).tolist() == [0.5]
    assert stability(near, noisy, counts & False, fires).isnan().all()


# -- intervals ----------------------------------------------------------------------------------------------------


def test_every_resample_draws_as_many_images_as_there_are() -> None:
    weight_BN = resamples(7, count=50)
    assert weight_BN.sum(dim=1).tolist() == [7.0] * 50
    assert weight_BN.tolist() == resamples(7, count=50).tolist()
    assert weight_BN.tolist() != resamples(7, count=50, seed=1).tolist()


def test_percentiles_leave_out_what_is_undefined() -> None:
    low, high = percentiles(torch.cat([torch.linspace(0, 1, 1001), torch.tensor([NAN])])).tolist()
    assert (low, high) == pytest.approx((0.025, 0.975), abs=1e-6)
    assert math.isnan(percentiles(torch.tensor([NAN]))[0].item())


def test_the_interval_of_one_filter_is_that_of_resampled_images() -> None:
    units, scores, landmarks = drawn(n_images=60, filters=1, landmarks=1)
    units, scores = units, scores + 1
    landmarks = landmarks.nan_to_num(30.0)
    scene = scene_of(units, scores, landmarks)
    near, counts = near_landmarks(GRID[units], landmarks, SIDE), counted(scores > 0, landmarks)
    weight_BN = resamples(60, count=400)
    found = intervals(scene, shuffled(scene), near, counts, weight_BN)
    real, share = [], []
    for weight_N in weight_BN.long():
        again = torch.repeat_interleave(torch.arange(60), weight_N)
        of_resample = scene_of(units[again], scores[again], landmarks[again])
        variance = real_variance(of_resample) * 60 / 59
        real.append(of_resample.mean_deviation(variance).item())
        # Dealt over the same number of distinct pairs, so that an image and its double are no luck of the draw.
        dealt = of_resample.mean_deviation(shuffled(of_resample).variance_KF * 60 / 59)
        share.append(1 - real[-1] / dealt.item())
    assert found.instability == pytest.approx(percentiles(torch.tensor(real, dtype=torch.float64)).tolist(), abs=1e-6)
    assert found.tracking == pytest.approx(percentiles(torch.tensor(share, dtype=torch.float64)).tolist(), abs=0.02)


def test_the_interval_covers_the_value_of_the_images() -> None:
    units, scores, landmarks = drawn(n_images=80, filters=20)
    scene = scene_of(units, scores, landmarks)
    near, counts = near_landmarks(GRID[units], landmarks, SIDE), counted(scores > 0, landmarks)
    dealt = shuffled(scene)
    found = intervals(scene, dealt, near, counts, resamples(80))
    real = scene.mean_deviation(real_variance(scene)).nanmean().item()
    share = 1 - real / scene.mean_deviation(dealt.variance_KF).nanmean().item()
    assert found.instability[0] < real < found.instability[1] < 1.2 * real
    assert found.tracking[0] < share < found.tracking[1]


# -- what must not change anything, and what is missing -----------------------------------------------------------


def values(units: Tensor, scores: Tensor, landmarks: Tensor, fewest: int = 2) -> list[Tensor]:
    scene = scene_of(units, scores, landmarks, top=9, fewest=fewest)
    near, counts = near_landmarks(GRID[units], landmarks, SIDE), counted(scores > 0, landmarks)
    found = consistency(near, counts, GRID, landmarks, SIDE, fewest)
    return [
        scene.mean_deviation(shuffled(scene).variance_KF), *baselines(scene), found.share_F, found.fixed_F,
    ]  # fmt: skip


def test_the_order_of_images_and_of_filters_does_not_matter() -> None:
    units, scores, landmarks = drawn()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    filters = torch.tensor([3, 0, 4, 1, 2])
    for plain, permuted in zip(
        values(units, scores, landmarks),
        values(units[order][:, filters], scores[order][:, filters], landmarks[order]),
        strict=True,
    ):
        torch.testing.assert_close(plain[filters], permuted)


def test_one_unmeasurable_landmark_spoils_nothing() -> None:
    units, scores, landmarks = drawn()
    hidden = torch.cat([landmarks, torch.full((40, 1, 2), NAN, dtype=torch.float64)], dim=1)
    for plain, more in zip(values(units, scores, landmarks), values(units, scores, hidden), strict=True):
        torch.testing.assert_close(plain, more)


def test_a_filter_without_enough_images_has_no_value_and_changes_no_other() -> None:
    units, scores, landmarks = drawn()
    plain = values(units, scores, landmarks)
    scores[:, 2] = 0
    scores[0, 2] = 1
    for before, after in zip(plain, values(units, scores, landmarks), strict=True):
        assert after[2].isnan()
        torch.testing.assert_close(before[[0, 1, 3, 4]], after[[0, 1, 3, 4]])


def test_images_without_landmarks_give_no_value_anywhere() -> None:
    units, scores, _ = drawn()
    landmarks = torch.full((40, 2, 2), NAN, dtype=torch.float64)
    assert all(value.isnan().all() for value in values(units, scores, landmarks))
    scene = scene_of(units, scores, landmarks)
    near, counts = near_landmarks(GRID[units], landmarks, SIDE), counted(scores > 0, landmarks)
    found = intervals(scene, shuffled(scene), near, counts, resamples(40, count=20))
    assert all(math.isnan(bound) for interval in found for bound in interval)


def test_distances_are_those_of_the_places() -> None:
    units, scores, landmarks = drawn()
    expected = (GRID[units][:, :, None] - landmarks[:, None]).norm(dim=3).permute(2, 0, 1) / (SIDE * 2**0.5)
    seen = ~landmarks.isnan().any(dim=2).T[:, :, None].expand_as(expected)
    found = peak_distances(scene_of(units, scores, landmarks))
    torch.testing.assert_close(found[seen], expected[seen])
