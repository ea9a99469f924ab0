"""The filter loss is Eq. 1, its paper gradient is Eq. 4 with Z_T held constant, and no map breaks either."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from interp_model.loss.filter_loss import (
    FilterLoss,
    batch_log_z,
    labelled_entropy,
    lambda_at,
    paper_loss,
    scale_by_peak,
)
from interp_model.loss.mutual_information import fitness, mutual_information
from interp_model.mask import peak_index
from interp_model.templates import make_templates, template_prior
from schemas.job import FilterLossSpec

N_SIDE = 4
T_THW = make_templates(N_SIDE).double()
PRIOR_T = template_prior(N_SIDE).double()


def maps(*, images: int = 5, filters: int = 3, scale: float = 50.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.rand(images, filters, N_SIDE, N_SIDE, dtype=torch.float64, generator=generator)


def eq_1_with_z_fixed(x_NFHW: Tensor) -> Tensor:
    """Per template, image and filter: the summands of Eq. 1, by autograd alone, with Z_T a constant."""
    fit_FTN = torch.einsum("nfhw,thw->ftn", x_NFHW, T_THW)
    log_q_FTN = fit_FTN - fit_FTN.logsumexp(-1, keepdim=True).detach()
    log_px_F1N = (log_q_FTN + PRIOR_T.log()[:, None]).logsumexp(1, keepdim=True)
    return -(PRIOR_T[:, None] * log_q_FTN.exp() * (log_q_FTN - log_px_F1N))


def gradient(loss: Tensor, x: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(loss.sum(), x)
    return grad


@pytest.mark.parametrize("scale", [1.0, 50.0, 500.0])
def test_the_full_backward_is_the_gradient_of_eq_1_with_z_fixed(scale: float) -> None:
    x = maps(scale=scale).requires_grad_()
    ours = gradient(paper_loss(x, T_THW, PRIOR_T, batch_log_z(x.detach(), T_THW)), x)
    torch.testing.assert_close(ours, gradient(eq_1_with_z_fixed(x), x))


def test_the_full_backward_is_not_the_gradient_of_eq_1() -> None:
    x = maps().requires_grad_()
    ours = gradient(paper_loss(x, T_THW, PRIOR_T, batch_log_z(x.detach(), T_THW)), x)
    true = gradient(-mutual_information(x, T_THW, PRIOR_T), x)
    assert (ours - true).norm() > 0.1 * true.norm()


def test_both_forms_have_the_value_of_their_sum() -> None:
    x = maps()
    log_z_FT, target_NF = batch_log_z(x, T_THW), peak_index(x)
    full = paper_loss(x, T_THW, PRIOR_T, log_z_FT)
    torch.testing.assert_close(full, -mutual_information(x, T_THW, PRIOR_T))
    one = paper_loss(x, T_THW, PRIOR_T, log_z_FT, target_NF)
    chosen_FTN = torch.zeros_like(eq_1_with_z_fixed(x)).scatter_(1, target_NF.T[:, None], 1)
    torch.testing.assert_close(one, (eq_1_with_z_fixed(x) * chosen_FTN).sum((1, 2)))


def test_the_approximation_is_the_target_s_share_of_the_full_gradient() -> None:
    x = maps(images=1, filters=1).requires_grad_()
    log_z_FT = batch_log_z(torch.cat([x.detach(), maps(images=3, filters=1, seed=1)]), T_THW)
    shares = [gradient(paper_loss(x, T_THW, PRIOR_T, log_z_FT, torch.full((1, 1), t)), x) for t in range(len(T_THW))]
    torch.testing.assert_close(sum(shares, torch.zeros_like(x)), gradient(paper_loss(x, T_THW, PRIOR_T, log_z_FT), x))


def test_the_approximation_sharpens_a_peak_and_silences_a_negative() -> None:
    x = torch.full((2, 1, N_SIDE, N_SIDE), 4.0, dtype=torch.float64)
    x[:, :, 1, 2] = 200.0
    x.requires_grad_()
    log_z_FT = batch_log_z(torch.cat([x.detach(), maps(filters=1, scale=1.0)]), T_THW)
    peak, negative = 1 * N_SIDE + 2, N_SIDE**2
    downhill = -gradient(paper_loss(x, T_THW, PRIOR_T, log_z_FT, torch.tensor([[peak], [negative]])), x)
    assert downhill[0, 0, 1, 2] > 0
    assert downhill[0, 0, 3, 0] < 0


IS_TARGET_N1 = torch.tensor([True, True, True, False, False])[:, None]


def labelled(x: Tensor) -> Tensor:
    """Of five images, the last two not of the category."""
    is_target_NF = IS_TARGET_N1.expand(x.shape[:2])
    return labelled_entropy(scale_by_peak(x, is_target_NF, 4.0), T_THW, PRIOR_T, is_target_NF)


def test_scaled_by_its_peak_a_lone_unit_fits_its_template_by_the_logit_scale() -> None:
    x = torch.zeros(3, 1, N_SIDE, N_SIDE, dtype=torch.float64)
    x[:, 0, 1, 2] = torch.tensor([2.0, 6.0, 100.0])
    selected_NF = torch.tensor([[True], [True], [False]])
    fit_N = fitness(scale_by_peak(x, selected_NF, 4.0), T_THW)[:, 0, 1 * N_SIDE + 2]
    torch.testing.assert_close(fit_N[:2], torch.tensor([2.0, 6.0], dtype=torch.float64))  # 4 nats at their mean of 4


def test_without_a_wanted_image_the_unit_is_the_mean_peak_of_all() -> None:
    x = maps()
    none_NF = torch.zeros(x.shape[:2], dtype=torch.bool)
    torch.testing.assert_close(scale_by_peak(x, none_NF, 4.0), scale_by_peak(x, ~none_NF, 4.0))


def test_the_labelled_entropy_is_eq_5_with_known_categories_summed_by_hand() -> None:
    x = scale_by_peak(maps(filters=1), IS_TARGET_N1, 1.0)
    strength_NT = fitness(x, T_THW)[:, 0].exp()
    post_NT = strength_NT / strength_NT.sum(0)
    post_NT = post_NT / post_NT.sum(1, keepdim=True)
    losses = []
    for *where, negative in post_NT.tolist():
        share = [p / sum(where) for p in where]
        losses.append((-math.log(sum(where)) - sum(p * math.log(p) for p in share), -math.log(negative)))
    expected = (sum(of_target for of_target, _ in losses[:3]) / 3 + sum(other for _, other in losses[3:]) / 2) / 2
    assert labelled_entropy(x, T_THW, PRIOR_T, IS_TARGET_N1).item() == pytest.approx(expected)


def test_the_labelled_entropy_does_not_depend_on_how_strong_a_filter_is() -> None:
    torch.testing.assert_close(labelled(maps()), labelled(1000 * maps()))


def test_no_filter_gains_by_growing() -> None:
    x = maps().requires_grad_()
    along_itself_F = (gradient(labelled(x), x) * x).sum((0, 2, 3))
    torch.testing.assert_close(along_itself_F, torch.zeros(3, dtype=torch.float64))


def test_the_labelled_gradient_agrees_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(labelled, maps(filters=2).requires_grad_())


def test_silence_on_other_images_and_one_place_on_the_category_s_own_cost_least() -> None:
    n_P = N_SIDE**2
    at_one_place = torch.eye(n_P, dtype=torch.float64).view(n_P, 1, N_SIDE, N_SIDE)
    silence = torch.zeros_like(at_one_place)
    is_target_NF = (torch.arange(2 * n_P) < n_P)[:, None]

    def loss(positive: Tensor, negative: Tensor) -> float:
        x = scale_by_peak(torch.cat([positive, negative]), is_target_NF, 4.0)
        return labelled_entropy(x, T_THW, PRIOR_T, is_target_NF).item()

    least = loss(at_one_place, silence)
    assert loss(at_one_place + at_one_place.flip(2, 3), silence) > least + 0.1
    assert loss(torch.ones_like(at_one_place), silence) > least + 0.1
    assert loss(at_one_place, at_one_place) > least + 0.1


def test_a_filter_that_peaks_at_one_place_of_every_picture_does_worse_than_one_that_moves() -> None:
    where_it_is = torch.tensor([[1, 1], [2, 2], [1, 2], [0, 0], [0, 0]])
    moving, still = torch.zeros(2, 5, 1, N_SIDE, N_SIDE, dtype=torch.float64)
    for n in range(3):
        moving[n, 0, where_it_is[n, 0], where_it_is[n, 1]] = 1
        still[n, 0, 1, 1] = 1
    assert labelled(moving).item() < labelled(still).item()


@pytest.mark.parametrize("form", get_args(FilterLossSpec.model_fields["form"].annotation))
class TestFilterLoss:
    def build(self, form: str, **options: Any) -> FilterLoss:
        return FilterLoss(FilterLossSpec(form=form, **options), N_SIDE, 3, 1)

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e4, 1e15])
    def test_stays_finite_however_weak_or_strong_the_maps(self, form: str, scale: float) -> None:
        loss = self.build(form)
        for seed in range(3):
            x = maps(images=6, scale=scale, seed=seed).float().requires_grad_()
            value = loss(x, torch.tensor([1, 0, 1, 0, 1, 0]))
            assert value.isfinite()
            assert gradient(value, x).isfinite().all()

    def test_a_filter_that_died_gets_a_finite_gradient_beside_one_that_lives(self, form: str) -> None:
        x = maps(scale=10.0).float()
        x[:, 1] *= 1e-20
        x[:, 2] = 0
        x.requires_grad_()
        grad = gradient(self.build(form)(x, torch.tensor([1, 1, 0, 0, 1])), x)
        assert grad.isfinite().all()
        assert grad[:, 1].abs().max() <= 200 * grad[:, 0].abs().max()

    @pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0]])
    def test_a_batch_of_one_kind_is_no_accident(self, form: str, labels: list[int]) -> None:
        x = maps(images=3).float().requires_grad_()
        assert gradient(self.build(form)(x, torch.tensor(labels)), x).isfinite().all()

    def test_goes_on_from_a_checkpoint_as_if_never_stopped(self, form: str) -> None:
        first, second = self.build(form), self.build(form)
        label_N = torch.tensor([1, 0, 1, 0, 1])
        first(maps(seed=1).float(), label_N)
        second.load_state_dict(first.state_dict())
        later = maps(seed=2).float()
        assert first(later, label_N).item() == second(later, label_N).item()

    def test_evaluation_leaves_the_running_state_alone(self, form: str) -> None:
        loss = self.build(form)
        loss(maps().float(), torch.tensor([1, 0, 1, 0, 1]))
        before = {name: value.clone() for name, value in loss.state_dict().items()}
        loss.eval()(maps(seed=5).float(), torch.tensor([0, 0, 1, 1, 1]))
        for name, value in loss.state_dict().items():
            torch.testing.assert_close(value, before[name])


def test_the_running_z_is_the_mean_strength_times_the_images() -> None:
    loss = FilterLoss(FilterLossSpec(form="full"), N_SIDE, 3, 1).double()
    label_N = torch.tensor([1, 0, 1, 0, 1])
    batches = [maps(seed=seed) for seed in (0, 1)]
    strengths = [fitness(x, loss.t_THW).exp().mean(0) for x in batches]
    for x in batches:
        loss(x, label_N)
    torch.testing.assert_close(loss.log_mean_FT.exp(), 0.9 * strengths[0] + 0.1 * strengths[1])


def test_a_stale_z_never_makes_a_probability_larger_than_one() -> None:
    x = maps(scale=500.0).requires_grad_()
    stale_FT = batch_log_z(maps(scale=1.0), T_THW)
    bound = PRIOR_T[0] * T_THW.abs().max() * math.log(len(PRIOR_T)) * len(T_THW)
    assert gradient(paper_loss(x, T_THW, PRIOR_T, stale_FT), x).abs().max() <= bound


def test_targets_name_the_peak_for_the_category_and_the_negative_template_elsewhere() -> None:
    loss = FilterLoss(FilterLossSpec(), N_SIDE, 1, 1)
    x = torch.zeros(2, 1, N_SIDE, N_SIDE)
    x[:, :, 3, 1] = 1
    assert loss.target(x, torch.tensor([1, 0])).tolist() == [[13], [16]]


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", 6.0), ("inverse_epoch", 2.0), ("activation", 2.0 * 0.5)]
)
def test_lambda_follows_its_schedule(schedule: str, expected: float) -> None:
    spec = FilterLossSpec.model_validate({"weight": 6.0, "schedule": schedule})
    assert lambda_at(spec, epoch=3, mean_peak=torch.tensor(0.5)).item() == pytest.approx(expected)
