"""The released code's term pulls each map to its template with strengths of mean 1, whatever the activations' scale."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from interp_model.loss.filter_loss import FilterLoss, scale_by_peak
from interp_model.loss.mutual_information import fitness
from interp_model.loss.released import centre_of_mass_index, released_loss
from interp_model.mask import peak_index
from interp_model.templates import make_templates, template_prior
from schemas.job import FilterLossSpec

SIDE = 4
T_THW = make_templates(SIDE).double()
PRIOR_T = template_prior(SIDE).double()
NEGATIVE = SIDE**2
IS_TARGET_N1 = torch.tensor([1, 1, 1, 0, 0], dtype=torch.bool)[:, None]


def maps(*, images: int = 5, filters: int = 2, scale: float = 5.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.rand(images, filters, SIDE, SIDE, dtype=torch.float64, generator=generator)


def loss_of(x_NFHW: Tensor, is_target_N1: Tensor = IS_TARGET_N1, logit_scale: float = 4.0) -> Tensor:
    is_target_NF = is_target_N1.expand(x_NFHW.shape[:2])
    target_NF = torch.where(is_target_NF, peak_index(x_NFHW.detach()), NEGATIVE)
    return released_loss(scale_by_peak(x_NFHW, is_target_NF, logit_scale), T_THW, PRIOR_T, target_NF, is_target_NF)


def strengths_by_hand(x_NHW: Tensor) -> list[float]:
    """Return e^tr {tr - log Z - log p(x)} for each image's own template, by plain sums."""
    fit = fitness(x_NHW[:, None], T_THW)[:, 0].tolist()
    z = [sum(math.exp(row[t]) for row in fit) for t in range(NEGATIVE + 1)]
    found = []
    for n, row in enumerate(fit):
        px = sum(math.exp(row[t]) / z[t] for t in range(NEGATIVE + 1)) / (NEGATIVE + 1)
        own = int(x_NHW[n].argmax()) if n < 3 else NEGATIVE
        found.append(math.exp(row[own]) * (row[own] - math.log(z[own]) - math.log(px)))
    return found


def test_its_value_is_the_mean_fitness_weighted_by_strengths_of_mean_1_by_hand() -> None:
    x = maps(filters=1)
    scaled = scale_by_peak(x, IS_TARGET_N1, 4.0)
    strength = [max(0.0, value) for value in strengths_by_hand(scaled[:, 0])]
    assert min(strengths_by_hand(scaled[:, 0])) < 0  # one is clipped
    groups = [strength[:3], strength[3:]]
    weight = [value * len(group) / sum(group) if sum(group) else 0.0 for group in groups for value in group]
    fit = fitness(scaled, T_THW)[:, 0]
    own = [int(x[n].argmax()) if n < 3 else NEGATIVE for n in range(5)]
    expected = -sum(w * fit[n, t].item() for n, (w, t) in enumerate(zip(weight, own, strict=True))) / 5
    assert loss_of(x).item() == pytest.approx(expected)


def test_its_gradient_is_that_of_the_fitness_with_constant_weights() -> None:
    x = maps().requires_grad_()
    (ours,) = torch.autograd.grad(loss_of(x).sum(), x)
    step = 1e-6 * torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    is_target_NF = IS_TARGET_N1.expand(x.shape[:2])
    target_NF = torch.where(is_target_NF, peak_index(x.detach()), NEGATIVE)[:, :, None]

    def fit_NF(at: Tensor) -> Tensor:
        return fitness(scale_by_peak(at, is_target_NF, 4.0), T_THW).gather(2, target_NF).squeeze(2)

    base_NF = fit_NF(x.detach())
    weight_NF = torch.zeros_like(base_NF)
    for f in range(x.shape[1]):
        strength = torch.tensor(
            strengths_by_hand(scale_by_peak(x.detach(), is_target_NF, 4.0)[:, f]), dtype=torch.float64
        ).clamp_min(0)
        for chosen in (slice(0, 3), slice(3, 5)):
            if strength[chosen].sum() > 0:
                weight_NF[chosen, f] = strength[chosen] / strength[chosen].mean()
    expected = -(weight_NF * (fit_NF(x.detach() + step) - base_NF)).mean(0).sum()
    assert (ours * step).sum().item() == pytest.approx(expected.item(), rel=1e-4)


def test_neither_value_nor_gradient_rewards_larger_activations() -> None:
    x = maps().requires_grad_()
    torch.testing.assert_close(loss_of(x), loss_of(1000 * x))
    (grad,) = torch.autograd.grad(loss_of(x).sum(), x)
    torch.testing.assert_close((grad * x).sum((0, 2, 3)), torch.zeros(2, dtype=torch.float64))


def test_a_step_moves_activation_towards_the_peak_and_off_other_images() -> None:
    x = torch.full((4, 1, SIDE, SIDE), 0.5, dtype=torch.float64)
    for n, (row, column) in enumerate([(0, 0), (3, 3)]):
        x[n, 0, row, column] = 1.0
    x.requires_grad_()
    is_target_N1 = torch.tensor([1, 1, 0, 0], dtype=torch.bool)[:, None]
    (grad,) = torch.autograd.grad(loss_of(x, is_target_N1).sum(), x)
    assert grad[0, 0, 0, 0] < grad[0, 0, 3, 3]
    assert grad[1, 0, 3, 3] < grad[1, 0, 0, 0]
    assert (grad[2:] > 0).all()


def test_the_centre_of_mass_lies_between_two_equal_units_and_in_the_middle_of_a_silent_map() -> None:
    x = torch.zeros(3, 1, 5, 5)
    x[0, 0, 1, 0] = x[0, 0, 1, 4] = 2.0
    x[1, 0, 4, 3] = 1e-30
    assert centre_of_mass_index(x).tolist() == [[1 * 5 + 2], [4 * 5 + 3], [2 * 5 + 2]]


def test_the_centre_of_mass_survives_any_activation() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 1:3] = 3e38
    assert centre_of_mass_index(x).tolist() == [[2 * 5 + 2]]


def test_the_template_of_a_filter_loss_peaks_at_the_chosen_unit() -> None:
    x = torch.zeros(1, 1, SIDE, SIDE)
    x[0, 0, 0, 0], x[0, 0, 0, 2] = 1.1, 1.0
    label_N = torch.tensor([1])
    highest, centre = (
        FilterLoss(FilterLossSpec.model_validate({"form": "released", "peak": peak}), SIDE, 1, 1).target(x, label_N)
        for peak in ("highest", "centre_of_mass")
    )
    assert (highest.item(), centre.item()) == (0, 1)
