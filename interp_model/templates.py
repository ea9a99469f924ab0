"""Part templates of an interpretable layer: where on a map a filter may, and may not, fire (Sec. 3, Fig. 3).

Shape legend, this file, mask.py and filter_loss.py:
  N images   F filters   H = W = n map side   P = n*n positive templates   T = P + 1 (the last is negative)
"""

from __future__ import annotations

import torch
from torch import Tensor

BETA = 4.0
"""How fast a template falls off with distance; the paper's value."""


def template_strength(n: int) -> float:
    """tau = 0.5 / n^2."""
    return 0.5 / n**2


def make_templates(n: int, *, beta: float = BETA) -> Tensor:
    """All templates of an n-by-n map.

        t+_ij = tau * max(1 - beta * ||[i, j] - mu||_1 / n, -1)      one per mu
        t-_ij = -tau

    Returns:
        (T, H, W). Row `mu_row * n + mu_col` peaks at (mu_row, mu_col); the last row is negative.
    """
    tau = template_strength(n)
    return torch.cat([tau * _shapes(n, beta), torch.full((1, n, n), -tau)])


def template_prior(n: int) -> Tensor:
    """p(T): alpha / n^2 for each positive template, 1 - alpha for the negative; alpha = n^2 / (1 + n^2).

    Returns:
        (T,), sums to 1. With this alpha the prior is uniform.
    """
    return torch.full((n * n + 1,), 1 / (n * n + 1))


def mask_bank(n: int, *, beta: float = BETA) -> Tensor:
    """The positive templates as masks: T_mu / tau clipped at 0, so that the peak keeps its activation exactly.

    The tau-sized template would shrink every activation by 2 n^2. Clipping here equals max(x o T_mu, 0) on a map
    after ReLU, where no x is negative.

    Returns:
        (P, H, W), every row's peak is 1.
    """
    return _shapes(n, beta).clamp_min(0)


def _shapes(n: int, beta: float) -> Tensor:
    """T_mu / tau of every mu: (P, H, W)."""
    axis = torch.arange(n, dtype=torch.get_default_dtype())
    apart_HH = (axis[:, None] - axis[None, :]).abs()
    distance_PHW = (apart_HH[:, None, :, None] + apart_HH[None, :, None, :]).reshape(n * n, n, n)
    return (1 - beta * distance_PHW / n).clamp_min(-1)
