"""The filter loss: how well each filter's maps tell which template, hence which part position, they show (Eqs. 1-5).

Everything is computed in log space: a strength e^tr never leaves its exponent, p(x) is a logsumexp and the running
Z_T a logaddexp, so no map, however strong, turns into an infinity that would need patching.
docs/filter-loss.md says what each form computes and why the default is the default.

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
from interp_model.mask import peak_index
from interp_model.templates import make_templates, template_prior, template_strength
from schemas.job import FilterLossSpec

KEPT = 0.9
"""Share of a running statistic that one more batch leaves in place."""
WEAKEST = 0.01
"""A filter's mean peak counts as at least this share of its layer's."""
SILENT = 1e-6
"""And as at least this much where the whole layer is silent."""


def batch_log_z(x_NFHW: Tensor, t_THW: Tensor) -> Tensor:
    """log Z_T = log sum_x exp tr(x T) over the images of a batch: (F, T)."""
    return fitness(x_NFHW, t_THW).logsumexp(dim=0)


class _PaperGradient(torch.autograd.Function):
    """Loss_f of Eq. 1 over a batch, with the backward that the paper writes down instead of differentiating:

        dLoss_f/dx_ij = -sum_T p(T) t_ij p(x|T) { tr(x T) - log Z_T - log p(x) }                 (Eq. 4)

    Z_T is a constant in it, so it is not the gradient of Eq. 1 as a function of x alone. The sign is that of
    Loss_f = -MI; Eq. 4 as printed has the other one. With a target the sum keeps T-hat alone, its second line.
    """

    @staticmethod
    def forward(
        ctx: Any, x_NFHW: Tensor, t_THW: Tensor, prior_T: Tensor, log_z_FT: Tensor, target_NF: Tensor | None
    ) -> Tensor:
        # A probability is at most 1. A running Z_T lags behind maps that grow and would allow more.
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
        pull_NFP = weight_NFT * t_TP[target[0]] if target else weight_NFT @ t_TP  # Eq. 4: second line, first line
        grad_x_NFHW = -grad_F[:, None, None] * pull_NFP.unflatten(2, (n, n))
        return grad_x_NFHW, None, None, None, None


def paper_loss(
    x_NFHW: Tensor, t_THW: Tensor, prior_T: Tensor, log_z_FT: Tensor, target_NF: Tensor | None = None
) -> Tensor:
    """-MI(X; T) of each filter given Z_T, with Eq. 4 as its gradient; the T-hat approximation if targets are given."""
    loss_F: Tensor = _PaperGradient.apply(x_NFHW, t_THW, prior_T, log_z_FT, target_NF)
    return loss_F


def in_units_of_peak(x_NFHW: Tensor, wanted_NF: Tensor, logit_scale: float) -> Tensor:
    """Maps whose fitness is independent of how strong a filter is: `logit_scale` nats for a lone unit at the mean peak.

    The mean is over the wanted images, or over all where there are none. It is part of the graph, so a filter gains
    nothing by growing. It is kept above a small share of the layer's own mean, because a filter that has nearly
    died would otherwise get a gradient as large as it is weak.
    """
    peak_NF = x_NFHW.flatten(2).amax(dim=2)
    wanted_NF = wanted_NF | ~wanted_NF.any(dim=0)
    peak_F = _mean_where(peak_NF, wanted_NF)
    floor = (peak_F.detach().mean() * WEAKEST).clamp_min(SILENT)
    scale_F = logit_scale / template_strength(x_NFHW.shape[-1]) / peak_F.clamp_min(floor)
    return x_NFHW * scale_F[:, None, None]


def labelled_entropy(x_NFHW: Tensor, t_THW: Tensor, prior_T: Tensor, is_target_NF: Tensor) -> Tensor:
    """H(T'|X) + sum_x p(T+, x) H(T+|X = x) of each filter where the labels tell T': (F,), in nats.

    These are the two terms of Loss_f that are not constant (Eq. 5). What T' = {T-, T+} should be is known for every
    image, so the entropy that Eq. 6 estimates becomes the cross-entropy with the label, and images of the category
    alone enter Eq. 7. Both kinds of images weigh one half. Z_T is the batch's own and differentiated: it is what
    makes templates compete for images, and so keeps a filter from peaking at one place of every picture.
    """
    fit_NFT = fitness(x_NFHW, t_THW)
    log_post_NFT = (fit_NFT.log_softmax(dim=0) + prior_T.log()).log_softmax(dim=2)  # Eq. 2, then p(T|x)
    log_where_NFP = log_post_NFT[..., :-1]
    log_positive_NF = log_where_NFP.logsumexp(dim=2)  # log p(T+|x)
    log_where_NFP = log_where_NFP - log_positive_NF[..., None]
    spread_NF = -(log_where_NFP.exp() * log_where_NFP).sum(dim=2)  # Eq. 7, with the minus sign of an entropy
    positive_F = _mean_where(spread_NF - log_positive_NF, is_target_NF)
    return (positive_F + _mean_where(-log_post_NFT[..., -1], ~is_target_NF)) / 2


def _mean_where(value_NF: Tensor, wanted_NF: Tensor) -> Tensor:
    """Mean over the wanted images; 0 where there are none."""
    return (value_NF * wanted_NF).sum(dim=0) / wanted_NF.sum(dim=0).clamp_min(1)


def mean_peak(x_NFHW: Tensor) -> Tensor:
    """mean_x max_ij x_ij of each filter: (F,)."""
    return x_NFHW.flatten(2).amax(dim=2).mean(dim=0)


def lambda_at(spec: FilterLossSpec, epoch: int, mean_peak: float) -> float:
    """The filter loss's weight in an epoch, counted from 1. `mean_peak` is the layer's mean_x max_ij x_ij."""
    match spec.schedule:
        case "constant":
            return spec.weight
        case "inverse_epoch":
            return spec.weight / epoch
        case "activation":
            return spec.weight / epoch * mean_peak


class FilterLoss(nn.Module):
    """The loss of one interpretable layer; all that it remembers is in buffers, so a checkpoint carries it."""

    t_THW: Tensor
    prior_T: Tensor
    log_mean_FT: Tensor
    batches: Tensor

    def __init__(self, spec: FilterLossSpec, side: int, filters: int, categories: int) -> None:
        """
        Args:
            side: n, of the layer's maps.
            categories: how many the network tells apart; 1 against other images means labels 1 and 0.
        """
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
        """The sum over filters of Loss_f on a batch of maps after ReLU and before the mask.

        `lambda_at` times it is what joins a task loss averaged over the batch. In training mode the batch also
        moves the running statistics.
        """
        if self.training:
            self._update(x_NFHW.detach(), label_N)
        match self.spec.form:
            case "labelled":
                is_target_NF = self.categories.is_target(label_N)
                x_NFHW = in_units_of_peak(x_NFHW, is_target_NF, self.spec.logit_scale)
                loss_F = labelled_entropy(x_NFHW, self.t_THW, self.prior_T, is_target_NF)
            case "exact":
                every_NF = x_NFHW.new_ones(x_NFHW.shape[:2], dtype=torch.bool)
                x_NFHW = in_units_of_peak(x_NFHW, every_NF, self.spec.logit_scale)
                loss_F = -mutual_information(x_NFHW, self.t_THW, self.prior_T)
            case "full":
                loss_F = paper_loss(x_NFHW, self.t_THW, self.prior_T, self._log_z_FT(len(x_NFHW)))
            case "approximate":
                target_NF = self.target(x_NFHW, label_N)
                loss_F = paper_loss(x_NFHW, self.t_THW, self.prior_T, self._log_z_FT(len(x_NFHW)), target_NF)
        return loss_F.sum()

    def target(self, x_NFHW: Tensor, label_N: Tensor) -> Tensor:
        """T-hat: T_mu-hat where the image shows the filter's category, T^- elsewhere; an index of t_THW, (N, F)."""
        negative = len(self.t_THW) - 1
        return torch.where(self.categories.is_target(label_N), peak_index(x_NFHW.detach()), negative)

    def _log_z_FT(self, images: int) -> Tensor:
        """log Z_T over as many images as the batch has, so that Loss_f weighs the same whatever the batch size."""
        return self.log_mean_FT + math.log(images)

    @torch.no_grad()
    def _update(self, x_NFHW: Tensor, label_N: Tensor) -> None:
        self.categories.update(x_NFHW, label_N)
        if self.spec.form in ("full", "approximate"):
            log_mean_FT = batch_log_z(x_NFHW, self.t_THW) - math.log(len(x_NFHW))
            moved_FT = torch.logaddexp(self.log_mean_FT + math.log(KEPT), log_mean_FT + math.log(1 - KEPT))
            self.log_mean_FT.copy_(moved_FT if self.batches > 0 else log_mean_FT)
        self.batches += 1
