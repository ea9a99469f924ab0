"""Mutual information is Eq. 1, Eq. 5 splits it exactly, and each entropy says what the paper says it does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from interp_model.loss import mutual_information as module
from interp_model.loss.mutual_information import entropies, information, mutual_information, prior_entropy
from interp_model.templates import make_templates, template_prior

N_SIDE = 4
T_THW = make_templates(N_SIDE).double()
PRIOR_T = template_prior(N_SIDE).double()


def maps(*, images: int = 5, filters: int = 3, scale: float = 50.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.rand(images, filters, N_SIDE, N_SIDE, dtype=torch.float64, generator=generator)


def joint_by_loops(x_NHW: Tensor) -> list[list[float]]:
    """p(x, T) of one filter by Eq. 2, one number after the other: [T][x]."""
    strength = [[math.exp((x_HW * t_HW).sum().item()) for x_HW in x_NHW] for t_HW in T_THW]
    return [[s / sum(row) / len(T_THW) for s in row] for row in strength]


def mi_by_loops(x_NHW: Tensor) -> float:
    """Eq. 1 with its sign turned, sum by sum."""
    joint = joint_by_loops(x_NHW)
    p_x = [sum(row[x] for row in joint) for x in range(len(x_NHW))]
    p_t = 1 / len(T_THW)
    return sum(p * math.log(p / p_t / p_x[x]) for row in joint for x, p in enumerate(row))


def entropies_by_loops(x_NHW: Tensor) -> tuple[float, float]:
    """Eqs. 6 and 7, sum by sum."""
    *where, negative = joint_by_loops(x_NHW)
    category, spatial = 0.0, 0.0
    for x in range(len(x_NHW)):
        positive = sum(row[x] for row in where)
        p_x = positive + negative[x]
        category -= sum(p * math.log(p / p_x) for p in (positive, negative[x]))
        spatial -= positive * sum(row[x] / positive * math.log(row[x] / positive) for row in where)
    return category, spatial


def test_mutual_information_is_eq_1_summed_by_hand() -> None:
    x_NFHW = maps()
    expected = [mi_by_loops(x_NFHW[:, f]) for f in range(3)]
    torch.testing.assert_close(mutual_information(x_NFHW, T_THW, PRIOR_T), torch.tensor(expected, dtype=torch.float64))


def test_the_entropies_are_eqs_6_and_7_summed_by_hand() -> None:
    x_NFHW = maps()
    expected = torch.tensor([entropies_by_loops(x_NFHW[:, f]) for f in range(3)], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(entropies(x_NFHW, T_THW, PRIOR_T), dim=1), expected)


@pytest.mark.parametrize("scale", [0.1, 10.0, 1e3])
@pytest.mark.parametrize("seed", range(3))
def test_eq_5_decomposes_eq_1(scale: float, seed: int) -> None:
    x_NFHW = maps(images=7, scale=scale, seed=seed)
    found = entropies(x_NFHW, T_THW, PRIOR_T)
    loss_F = -prior_entropy(PRIOR_T) + found.category_F + found.spatial_F  # Eq. 5
    torch.testing.assert_close(loss_F, -mutual_information(x_NFHW, T_THW, PRIOR_T), rtol=0, atol=1e-12)  # Eq. 1


def test_maps_that_say_nothing_leave_the_prior_s_own_entropies() -> None:
    """p(T-) = 1/17 and 16 places: H(T') by hand, and p(T+) log 16."""
    found = information(torch.zeros(6, 2, N_SIDE, N_SIDE).double(), T_THW, PRIOR_T)
    category = -(16 / 17) * math.log(16 / 17) - (1 / 17) * math.log(1 / 17)
    for values, expected in zip(found, (0.0, category, 16 / 17 * math.log(16)), strict=True):
        torch.testing.assert_close(values, torch.full((2,), expected, dtype=torch.float64), rtol=0, atol=1e-7)


def test_equal_maps_tell_nothing() -> None:
    x_NFHW = maps(images=1).expand(6, -1, -1, -1)
    torch.testing.assert_close(mutual_information(x_NFHW, T_THW, PRIOR_T), torch.zeros(3, dtype=torch.float64))


def test_mutual_information_is_bounded_by_what_the_images_can_carry() -> None:
    strong = mutual_information(maps(images=8, scale=1e6), T_THW, PRIOR_T)
    assert (strong > 1).all()
    assert (strong <= math.log(8) + 1e-9).all()


def one_place_each(strength: float) -> Tensor:
    """A map for every place, with one unit of that strength there."""
    n_P = N_SIDE**2
    return strength * torch.eye(n_P, dtype=torch.float64).view(n_P, 1, N_SIDE, N_SIDE)


def test_a_second_place_raises_the_spatial_entropy_and_firing_on_others_the_category_entropy() -> None:
    strong = 40 * 2 * N_SIDE**2  # tau times this is 40 nats: all but certain
    clean, silence = one_place_each(strong), torch.zeros(N_SIDE**2, 1, N_SIDE, N_SIDE, dtype=torch.float64)
    double = clean + clean.flip(2, 3)
    sharp, blurred, unsure = (
        information(torch.cat(both), T_THW, PRIOR_T) for both in ((clean, silence), (double, silence), (clean, clean))
    )
    assert blurred.spatial_F > sharp.spatial_F + 0.3
    assert unsure.category_F > sharp.category_F + 0.05
    assert sharp.mutual_F > max(blurred.mutual_F, unsure.mutual_F)
    torch.testing.assert_close(sharp.mutual_F, prior_entropy(PRIOR_T).view(1), rtol=0, atol=1e-6)


def test_a_layer_is_measured_alike_however_many_filters_are_taken_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x_NFHW = maps(filters=7)
    whole = information(x_NFHW, T_THW, PRIOR_T)
    monkeypatch.setattr(module, "CHUNK", 3)
    for expected, found in zip(whole, information(x_NFHW, T_THW, PRIOR_T), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4, 1e15])
def test_entropies_are_finite_however_weak_or_strong_the_maps(scale: float) -> None:
    found = information(maps(scale=scale).float(), T_THW.float(), PRIOR_T.float())
    bounds = (math.log(5), math.log(2), math.log(N_SIDE**2))  # of five images, two sides, sixteen places
    for values, most in zip(found, bounds, strict=True):
        assert values.isfinite().all()
        assert (values >= -1e-5).all()
        assert (values <= most + 1e-5).all()


def test_single_precision_is_enough() -> None:
    exact = information(maps(images=200, scale=400.0), T_THW, PRIOR_T)
    for expected, found in zip(
        exact, information(maps(images=200, scale=400.0).float(), T_THW.float(), PRIOR_T.float()), strict=True
    ):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
