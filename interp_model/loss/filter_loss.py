"""The filter loss: minus the mutual information of each filter's maps and the part templates (Eqs. 1-5).

Everything is computed in log space: e^tr is never evaluated by itself, p(x) is a logsumexp and the running Z_T a
logaddexp, so strong activations do not overflow.
docs/filter-loss.md explains the forms and the choice of the default.

Shape legend (see templates.py): N images   F filters   H = W = n map side   T = n*n + 1 templates, the last negative.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from interp_model.loss.assignment import FilterCategories, SteadyCategories
from interp_model.loss.mutual_information import fitness, mutual_information
from interp_model.loss.released import centre_of_mass_index, released_loss
from interp_model.mask import peak_index
from interp_model.templates import make_templates, template_prior, template_strength
from schemas.job import FilterLossSpec

DECAY = 0.9
"""Decay of the running mean of e^tr per batch."""
MIN_RELATIVE_PEAK = 0.01
"""Lower bound of a filter's mean peak, relative to the mean over the layer's filters."""
MIN_PEAK = 1e-6
"""Absolute lower bound of a filter's mean peak, for layers whose filters are all silent."""


def batch_log_z(x_NFHW: Tensor, t_THW: Tensor) -> Tensor:
    """Return log Z_T = log sum_x exp tr(x T) over the images of a batch (Eq. 2): (F, T)."""
    return fitness(x_NFHW, t_THW).logsumexp(dim=0)


class _PaperGradient(torch.autograd.Function):
    """Loss_f of Eq. 1 over a batch, with the paper's Eq. 4 as its backward pass:

        dLoss_f/dx_ij = -sum_T p(T) t_ij p(x|T) { tr(x T) - log Z_T - log p(x) }                 (Eq. 4)

    Eq. 4 holds Z_T constant, so it is not the full gradient of Eq. 1 with respect to x. The sign is that of
    Loss_f = -MI; Eq. 4 is printed with the opposite sign. With a target, only the term of T-hat remains (second line
    of Eq. 4).
    """

    @staticmethod
    def forward(
        ctx: Any, x_NFHW: Tensor, t_THW: Tensor, prior_T: Tensor, log_z_FT: Tensor, target_NF: Tensor | None
    ) -> Tensor:
        # A probability is at most 1. A running Z_T lags behind growing maps and could exceed it.
        log_px_given_t_NFT = (fitness(x_NFHW, t_THW) - log_z_FT).clamp_max(0)  # Eq. 2
        log_joint_NFT = log_px_given_t_NFT + prior_T.log()
        log_px_NF1 = log_joint_NFT.logsumexp(dim=2, keepdim=True)
        weight_NFT = log_joint_NFT.exp() * (log_px_given_t_NFT - log_px_NF1)
        if target_NF is None:
            ctx.save_for_backward(weight_NFT, t_THW)
            return -weight_NFT.sum(dim=(0, 2))  # Eq. 1
        weight_NF1 = weight_NFT.gather(2, target_NF[:, :, None])
        ctx.save_for_backward(weight_NF1, t_THW, target_NF)
        return -weight_NF1.sum(dim=(0, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad_F,) = grads
        weight_NFT, t_THW, *target = ctx.saved_tensors
        n = t_THW.shape[-1]
        t_TP = t_THW.flatten(1)
        grad_NFP = weight_NFT * t_TP[target[0]] if target else weight_NFT @ t_TP  # Eq. 4: second line, first line
        grad_x_NFHW = -grad_F[:, None, None] * grad_NFP.unflatten(2, (n, n))
        return grad_x_NFHW, None, None, None, None


def paper_loss(
    x_NFHW: Tensor, t_THW: Tensor, prior_T: Tensor, log_z_FT: Tensor, target_NF: Tensor | None = None
) -> Tensor:
    """Return Loss_f = -MI(X; T) of each filter (Eq. 1), with Eq. 4 as its gradient.

    Args:
        x_NFHW: maps after ReLU.
        t_THW: templates, see `make_templates`.
        prior_T: p(T), see `template_prior`.
        log_z_FT: log Z_T, held constant.
        target_NF: index of T-hat for each map. If given, the sum over templates keeps only T-hat (second line of
            Eq. 4).

    Returns:
        (F,), in nats.
    """
    loss_F: Tensor = _PaperGradient.apply(x_NFHW, t_THW, prior_T, log_z_FT, target_NF)
    return loss_F


def scale_by_peak(x_NFHW: Tensor, selected_NF: Tensor, logit_scale: float) -> Tensor:
    """Divide each filter's maps by its mean peak activation, so that template scores do not depend on its scale.

    The mean peak is part of the graph, so larger activations do not lower the loss. It is bounded below by a fraction
    of the layer's mean, which limits the gradient of filters that are almost silent.

    Args:
        x_NFHW: maps after ReLU.
        selected_NF: bool, images over which a filter's mean peak is taken; all images if none is selected.
        logit_scale: score tr(x T) for its template, in nats, of a map whose only active unit has the mean peak.

    Returns:
        (N, F, H, W).
    """
    peak_NF = x_NFHW.flatten(2).amax(dim=2)
    selected_NF = selected_NF | ~selected_NF.any(dim=0)
    peak_F = _mean_where(peak_NF, selected_NF)
    floor = (peak_F.detach().mean() * MIN_RELATIVE_PEAK).clamp_min(MIN_PEAK)
    scale_F = logit_scale / template_strength(x_NFHW.shape[-1]) / peak_F.clamp_min(floor)
    return x_NFHW * scale_F[:, None, None]


def labelled_entropy(x_NFHW: Tensor, t_THW: Tensor, prior_T: Tensor, is_target_NF: Tensor) -> Tensor:
    """Return H(T'|X) + sum_x p(T+, x) H(T+|X = x) of each filter, with T' = {T-, T+} known from the labels.

    These are the two terms of Loss_f that depend on the maps (Eq. 5). Because T' is known for every image, the entropy
    of Eq. 6 becomes the cross-entropy with the label, and only images of the filter's category enter Eq. 7. Positive
    and negative images weigh one half each. Z_T is computed from the batch and differentiated: templates then compete
    for images, which prevents a filter from peaking at the same position on every image.

    Args:
        x_NFHW: maps, scaled by `scale_by_peak`.
        t_THW: templates, see `make_templates`.
        prior_T: p(T), see `template_prior`.
        is_target_NF: bool, whether the image is of the filter's category.

    Returns:
        (F,), in nats.
    """
    fit_NFT = fitness(x_NFHW, t_THW)
    log_post_NFT = (fit_NFT.log_softmax(dim=0) + prior_T.log()).log_softmax(dim=2)  # Eq. 2, then p(T|x)
    log_where_NFP = log_post_NFT[..., :-1]
    log_positive_NF = log_where_NFP.logsumexp(dim=2)  # log p(T+|x)
    log_where_NFP = log_where_NFP - log_positive_NF[..., None]
    spread_NF = -(log_where_NFP.exp() * log_where_NFP).sum(dim=2)  # Eq. 7, with the minus sign of an entropy
    positive_F = _mean_where(spread_NF - log_positive_NF, is_target_NF)
    return (positive_F + _mean_where(-log_post_NFT[..., -1], ~is_target_NF)) / 2


def _mean_where(value_NF: Tensor, selected_NF: Tensor) -> Tensor:
    """Return the mean over the selected images, 0 if none is selected: (F,)."""
    return (value_NF * selected_NF).sum(dim=0) / selected_NF.sum(dim=0).clamp_min(1)


def mean_peak(x_NFHW: Tensor) -> Tensor:
    """Return mean_x max_ij x_ij of each filter (Sec. 5): (F,)."""
    return x_NFHW.flatten(2).amax(dim=2).mean(dim=0)


def lambda_at(spec: FilterLossSpec, epoch: int, mean_peak: Tensor) -> Tensor:
    """Return lambda, the weight of the filter loss in an epoch (Sec. 5), as a float64 scalar on the device of the peak.

    Args:
        spec: gives schedule and weight.
        epoch: counted from 1.
        mean_peak: mean_x max_ij x_ij of the layer, a scalar, used by the schedule `activation`.
    """
    peak = mean_peak.double()
    match spec.schedule:
        case "constant":
            return torch.full_like(peak, spec.weight)
        case "inverse_epoch":
            return torch.full_like(peak, spec.weight / epoch)
        case "activation":
            return spec.weight / epoch * peak


class FilterLoss(nn.Module):
    """Filter loss of one interpretable layer. All state is in buffers, so it is part of the state dict.

    Args:
        spec: form of the loss and assignment of filters to categories.
        side: n, side of the layer's maps.
        filters: F, number of the layer's filters.
        categories: number of categories of the network; 1 means labels 1 (the category) and 0 (negative images).
    """

    categories: FilterCategories
    """Assignment of filters to categories."""
    t_THW: Tensor
    """Templates, see `make_templates`."""
    prior_T: Tensor
    """p(T), see `template_prior`."""
    log_mean_FT: Tensor
    """Logarithm of the running mean of exp tr(x T) over images."""
    batches: Tensor
    """Number of batches seen."""

    def __init__(self, spec: FilterLossSpec, side: int, filters: int, categories: int) -> None:
        super().__init__()
        self.spec = spec
        kind = SteadyCategories if spec.assignment == "steady" else FilterCategories
        self.categories = kind(categories, filters)
        templates = side * side + 1
        self.register_buffer("t_THW", make_templates(side), persistent=False)
        self.register_buffer("prior_T", template_prior(side), persistent=False)
        self.register_buffer("log_mean_FT", torch.zeros(filters, templates))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x_NFHW: Tensor, label_N: Tensor) -> Tensor:
        """Return the sum over filters of Loss_f on a batch: a scalar, in nats.

        Multiply it by `lambda_at` and add it to a task loss averaged over the batch (Eq. 3). In training mode it also
        updates the running statistics.

        Args:
            x_NFHW: maps after ReLU and before masking.
            label_N: labels of the images.
        """
        if self.training:
            self._update(x_NFHW.detach(), label_N)
        match self.spec.form:
            case "labelled":
                is_target_NF = self.categories.is_target(label_N)
                x_NFHW = scale_by_peak(x_NFHW, is_target_NF, self.spec.logit_scale)
                loss_F = labelled_entropy(x_NFHW, self.t_THW, self.prior_T, is_target_NF)
            case "exact":
                all_NF = x_NFHW.new_ones(x_NFHW.shape[:2], dtype=torch.bool)
                x_NFHW = scale_by_peak(x_NFHW, all_NF, self.spec.logit_scale)
                loss_F = -mutual_information(x_NFHW, self.t_THW, self.prior_T)
            case "full":
                loss_F = paper_loss(x_NFHW, self.t_THW, self.prior_T, self._log_z_FT(len(x_NFHW)))
            case "approximate":
                target_NF = self.target(x_NFHW, label_N)
                loss_F = paper_loss(x_NFHW, self.t_THW, self.prior_T, self._log_z_FT(len(x_NFHW)), target_NF)
            case "released":
                target_NF, is_target_NF = self.target(x_NFHW, label_N), self.categories.is_target(label_N)
                x_NFHW = scale_by_peak(x_NFHW, is_target_NF, self.spec.logit_scale)
                loss_F = released_loss(x_NFHW, self.t_THW, self.prior_T, target_NF, is_target_NF)
        return loss_F.sum()

    def target(self, x_NFHW: Tensor, label_N: Tensor) -> Tensor:
        """Return T-hat as an index of `t_THW` (Sec. 3.1, Eq. 4): (N, F), int64.

        T-hat is T_mu-hat for images of the filter's category, and T^- for other images.
        """
        negative = len(self.t_THW) - 1
        peak = peak_index if self.spec.peak == "highest" else centre_of_mass_index
        return torch.where(self.categories.is_target(label_N), peak(x_NFHW.detach()), negative)

    def _log_z_FT(self, images: int) -> Tensor:
        """Return log Z_T for as many images as the batch has, so that Loss_f does not depend on the batch size."""
        return self.log_mean_FT + math.log(images)

    @torch.no_grad()
    def _update(self, x_NFHW: Tensor, label_N: Tensor) -> None:
        self.categories.update(x_NFHW, label_N)
        if self.spec.form in ("full", "approximate"):
            log_mean_FT = batch_log_z(x_NFHW, self.t_THW) - math.log(len(x_NFHW))
            updated_FT = torch.logaddexp(self.log_mean_FT + math.log(DECAY), log_mean_FT + math.log(1 - DECAY))
            self.log_mean_FT.copy_(torch.where(self.batches > 0, updated_FT, log_mean_FT))
        self.batches += 1
