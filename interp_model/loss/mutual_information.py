"""Mutual information of a filter's maps and the templates (Eq. 1), and its decomposition into entropies (Eq. 5).

Shape legend (see templates.py): N images   F filters   H = W = n map side
P = n*n positive templates   T = P + 1 templates, the last negative.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 16
"""Number of filters that are computed at once: 256 maps of 17 x 17 take 5 MB per tensor."""

LEAST_FITNESS = -60.0
"""Fitness below that of the fittest image, in nats, from which an image has no part in the sums: exp(-60) is 1e-26, and
float32 resolves 1e-7. A CPU takes 45 times as long for exponentials that leave the range of float32."""


class Entropies(NamedTuple):
    """The two terms of Eq. 5 that depend on the maps, in nats: MI = H(T) - category - spatial."""

    category_F: Tensor
    """H(T' = {T-, T+} | X), inter-category entropy (Eq. 6): (F,)."""
    spatial_F: Tensor
    """sum_x p(T+, x) H(T+ | X = x), spatial entropy (Eq. 7): (F,)."""


class Information(NamedTuple):
    """Terms of Eq. 5 for every filter of a layer, in nats: mutual = H(T) - category - spatial."""

    mutual_F: Tensor
    """MI(X; T) (Eq. 1): (F,)."""
    category_F: Tensor
    """Inter-category entropy (Eq. 6): (F,)."""
    spatial_F: Tensor
    """Spatial entropy (Eq. 7): (F,)."""


def fitness(x_NFHW: Tensor, t_THW: Tensor) -> Tensor:
    """Return tr(x T) = sum_ij x_ij t_ij for every map and template (Eq. 2): (N, F, T)."""
    return x_NFHW.flatten(2) @ t_THW.flatten(1).T


def mutual_information(x_NFHW: Tensor, t_THW: Tensor, prior_T: Tensor) -> Tensor:
    """Return MI(X; T) of each filter over a batch (Eq. 1), with gradients through Z_T.

    Args:
        x_NFHW: maps after ReLU.
        t_THW: templates, see `make_templates`.
        prior_T: p(T), see `template_prior`.

    Returns:
        (F,), in nats.
    """
    log_px_given_t_NFT = fitness(x_NFHW, t_THW).log_softmax(dim=0)  # Eq. 2
    log_joint_NFT = log_px_given_t_NFT + prior_T.log()
    log_px_NF1 = log_joint_NFT.logsumexp(dim=2, keepdim=True)
    return (log_joint_NFT.exp() * (log_px_given_t_NFT - log_px_NF1)).sum(dim=(0, 2))  # -Eq. 1


def entropies(x_NFHW: Tensor, t_THW: Tensor, prior_T: Tensor) -> Entropies:
    """Return the second and third term of Eq. 5. Eq. 7 is printed without the minus sign of an entropy.

    It computes one exponential per image, filter and template, because it runs after every epoch.

    Args:
        x_NFHW: maps after ReLU.
        t_THW: templates, see `make_templates`.
        prior_T: p(T), see `template_prior`.
    """
    fit_NFT = fitness(x_NFHW, t_THW)
    fit_NFT = (fit_NFT - fit_NFT.amax(dim=0)).clamp_min(LEAST_FITNESS)
    strength_NFT = fit_NFT.exp()  # at most 1, and 1 for one image, so that no sum over images is 0
    share_FT = prior_T / strength_NFT.sum(dim=0)
    joint_NFT = strength_NFT * share_FT  # p(x, T) = p(T) p(x|T), Eq. 2
    place_NF = (joint_NFT * (fit_NFT + share_FT.log()))[..., :-1].sum(dim=2)  # sum_mu p(x, T_mu) log p(x, T_mu)
    positive_NF, negative_NF = joint_NFT[..., :-1].sum(dim=2), joint_NFT[..., -1]
    either_NF = torch.xlogy(positive_NF, positive_NF)
    side_NF = either_NF + torch.xlogy(negative_NF, negative_NF)
    image_NF = positive_NF + negative_NF  # p(x)
    return Entropies(
        (torch.xlogy(image_NF, image_NF) - side_NF).sum(dim=0),  # Eq. 6
        (either_NF - place_NF).sum(dim=0),  # sum_x p(T+, x) times Eq. 7
    )


def prior_entropy(prior_T: Tensor) -> Tensor:
    """Return H(T), the constant of Eq. 5, in nats: a scalar. It is log(n^2 + 1) with the paper's alpha."""
    return -(prior_T * prior_T.log()).sum()


@torch.no_grad()
def information(x_NFHW: Tensor, t_THW: Tensor, prior_T: Tensor) -> Information:
    """Return the terms of Eq. 5 for every filter, computed `CHUNK` filters at a time and without gradients.

    Args:
        x_NFHW: maps after ReLU.
        t_THW: templates, see `make_templates`.
        prior_T: p(T), see `template_prior`.
    """
    chunks = [entropies(x_NcHW, t_THW, prior_T) for x_NcHW in torch.split(x_NFHW, CHUNK, dim=1)]
    category_F, spatial_F = (torch.cat(column) for column in zip(*chunks, strict=True))
    return Information(prior_entropy(prior_T) - category_F - spatial_F, category_F, spatial_F)
