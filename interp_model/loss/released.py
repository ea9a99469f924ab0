"""The filter term of the authors' released code, made independent of the activations' scale (`form: released`).

docs/filter-loss.md says what is taken from that code and what is added. Shape legend: templates.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from interp_model.loss.mutual_information import fitness


def released_loss(x_NFHW: Tensor, t_THW: Tensor, prior_T: Tensor, target_NF: Tensor, is_target_NF: Tensor) -> Tensor:
    """Return minus the weighted fitness of each filter's maps for their template T-hat.

        loss_f = -mean_x w_x tr(x T-hat),    w_x ~ max(0, e^tr(x T-hat) {tr(x T-hat) - log Z_T - log p(x)})

    The weights are the strengths of Eq. 4's second line. As in the released code they are constants, divided by their
    mean over the batch, images of the filter's category and others apart. A negative strength, which would push a map
    away from its template, is 0.

    Args:
        x_NFHW: maps, scaled by `scale_by_peak`: larger activations then change neither the weights nor the loss.
        t_THW: templates, see `make_templates`.
        prior_T: p(T), see `template_prior`.
        target_NF: index of T-hat for each map.
        is_target_NF: bool, whether the image is of the filter's category.

    Returns:
        (F,), in units of the mean peak's fitness for its template, times `logit_scale`.
    """
    fit_NFT = fitness(x_NFHW, t_THW)
    fit_NF = fit_NFT.gather(2, target_NF[:, :, None]).squeeze(2)
    weight_NF = _weights(fit_NFT.detach(), fit_NF.detach(), prior_T, target_NF, is_target_NF)
    return -(weight_NF * fit_NF).mean(dim=0)


def _weights(fit_NFT: Tensor, fit_NF: Tensor, prior_T: Tensor, target_NF: Tensor, is_target_NF: Tensor) -> Tensor:
    log_px_given_t_NFT = fit_NFT.log_softmax(dim=0)  # Eq. 2
    log_px_NF = (log_px_given_t_NFT + prior_T.log()).logsumexp(dim=2)
    excess_NF = log_px_given_t_NFT.gather(2, target_NF[:, :, None]).squeeze(2) - log_px_NF
    weight_NF = torch.zeros_like(fit_NF)
    for chosen_NF in (is_target_NF, ~is_target_NF):
        highest_F = fit_NF.masked_fill(~chosen_NF, -torch.inf).amax(dim=0)
        strength_NF = (fit_NF - highest_F).exp() * excess_NF.clamp_min(0)  # e^tr, without overflow
        strength_NF = torch.where(chosen_NF, strength_NF, 0.0)
        mean_F = strength_NF.sum(dim=0) / chosen_NF.sum(dim=0).clamp_min(1)
        weight_NF = weight_NF + torch.where(mean_F > 0, strength_NF / mean_F, 0.0)
    return weight_NF


def centre_of_mass_index(x_NFHW: Tensor) -> Tensor:
    """Return the rounded centre of mass of each map as `row * n + column`, the released code's peak.

    A silent map has its centre of mass in the middle.

    Args:
        x_NFHW: maps after ReLU.

    Returns:
        (N, F), int64.
    """
    n = x_NFHW.shape[-1]
    axis_H = torch.arange(n, dtype=x_NFHW.dtype, device=x_NFHW.device)
    highest_NF11 = x_NFHW.amax(dim=(2, 3), keepdim=True)
    share_NFHW = torch.where(highest_NF11 > 0, x_NFHW / highest_NF11, 1.0)  # sums of any activations stay finite
    mass_NF = share_NFHW.sum(dim=(2, 3))
    row_NF = (share_NFHW.sum(dim=3) @ axis_H / mass_NF).round()
    column_NF = (share_NFHW.sum(dim=2) @ axis_H / mass_NF).round()
    return (row_NF * n + column_NF).long()
