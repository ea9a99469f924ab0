"""Part templates of an interpretable layer: the ideal activation patterns of a filter (Sec. 3, Fig. 3).

Shape legend, this file, mask.py and filter_loss.py:
  N images   F filters   H = W = n map side   P = n*n positive templates   T = P + 1 (the last is negative)
"""

from __future__ import annotations

import torch
from torch import Tensor

BETA = 4.0
"""Decay of a template with the distance from its peak; the paper's value (Sec. 3)."""


def template_strength(n: int) -> float:
    """Return tau = 0.5 / n^2 (Sec. 3), for maps of n x n units."""
    return 0.5 / n**2


def make_templates(n: int, *, beta: float = BETA) -> Tensor:
    """Return all templates of an n x n map (Sec. 3).

        t+_ij = tau * max(1 - beta * ||[i, j] - mu||_1 / n, -1)      one per mu
        t-_ij = -tau

    Args:
        n: map side, units.
        beta: decay with distance.

    Returns:
        (T, H, W). Row `mu_row * n + mu_col` peaks at (mu_row, mu_col); the last row is negative.
    """
    tau = template_strength(n)
    return torch.cat([tau * _shapes(n, beta), torch.full((1, n, n), -tau)])


def template_prior(n: int) -> Tensor:
    """Return p(T): alpha / n^2 for each positive template, 1 - alpha for the negative one (Sec. 3).

    With the paper's alpha = n^2 / (1 + n^2) (Sec. 5) the prior is uniform.

    Args:
        n: map side, units.

    Returns:
        (T,), sums to 1.
    """
    return torch.full((n * n + 1,), 1 / (n * n + 1))


def mask_bank(n: int, *, beta: float = BETA) -> Tensor:
    """Return the positive templates as masks: T_mu / tau clipped at 0, so that the peak keeps its activation exactly.

    Multiplying by T_mu itself would shrink every activation by 2 n^2. For maps after ReLU, which are not negative,
    clipping the template equals the paper's max(x o T_mu, 0) (Sec. 3).

    Args:
        n: map side, units.
        beta: decay with distance.

    Returns:
        (P, H, W); the maximum of each mask is 1.
    """
    return _shapes(n, beta).clamp_min(0)


def _shapes(n: int, beta: float) -> Tensor:
    """Return T_mu / tau for every mu: (P, H, W)."""
    axis = torch.arange(n, dtype=torch.get_default_dtype())
    offset_HH = (axis[:, None] - axis[None, :]).abs()
    distance_PHW = (offset_HH[:, None, :, None] + offset_HH[None, :, None, :]).reshape(n * n, n, n)
    return (1 - beta * distance_PHW / n).clamp_min(-1)
