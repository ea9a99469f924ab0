"""How much every filter of a layer adds to a decision, so that the parts add up to the whole.

Shape legend: F filters   H = W map side   O outputs   A steps of the path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 256
"""Of the path. The layers above are piecewise linear along it, so the error falls with the square of this."""

_TOGETHER = 32
"""Steps computed at once."""

Head = Callable[[Tensor], Tensor]
"""From maps (A, F, H, W), as the layer hands them on, to logits (A, O)."""


class Contributions(NamedTuple):
    """`base + per_filter_F.sum() + residual == logit`, and `residual` is the error of the sum over the path's steps."""

    per_filter_F: Tensor
    """What the filter adds to the logit, with a share of what it does together with others."""
    alone_F: Tensor
    """What the logit loses when this filter alone is silenced. These do not add up: filters stand in for each other."""
    base: float
    """The logit with every filter silent: what the biases say."""
    logit: float

    @property
    def residual(self) -> float:
        return self.logit - self.base - float(self.per_filter_F.sum())


def contributions(head: Head, x_FHW: Tensor, output: int, *, steps: int = STEPS) -> Contributions:
    """Integrated gradients (Sundararajan et al. 2017) of one logit with respect to a layer's maps.

        c_f = sum_ij x_ij * integral_0^1 dlogit(a x)/dx_ij da

    The path leads from silence, a = 0, to the maps as they are, a = 1, all filters rising together. It is the one
    attribution along a straight path, so that what filters do jointly is shared among them by how much they rise, and
    the contributions sum to logit - base but for the error of the midpoint rule.

    Args:
        x_FHW: what the layer hands on, after the mask where it has one.
    """
    weight_A = (torch.arange(steps, dtype=x_FHW.dtype, device=x_FHW.device) + 0.5) / steps
    total_FHW = torch.zeros_like(x_FHW)
    for start in range(0, steps, _TOGETHER):
        x_AFHW = (weight_A[start : start + _TOGETHER, None, None, None] * x_FHW).requires_grad_()
        logit = head(x_AFHW)[:, output].sum()
        total_FHW += torch.autograd.grad(logit, x_AFHW)[0].sum(dim=0)
    with torch.no_grad():
        base, whole = head(torch.stack([torch.zeros_like(x_FHW), x_FHW]))[:, output].tolist()
    return Contributions((x_FHW * total_FHW / steps).sum(dim=(1, 2)), _alone(head, x_FHW, output, whole), base, whole)


@torch.no_grad()
def _alone(head: Head, x_FHW: Tensor, output: int, logit: float) -> Tensor:
    left = []
    for start in range(0, len(x_FHW), _TOGETHER):
        x_AFHW = x_FHW.repeat(min(_TOGETHER, len(x_FHW) - start), 1, 1, 1)
        x_AFHW[:, start:].diagonal(dim1=0, dim2=1).zero_()
        left.append(head(x_AFHW)[:, output])
    return logit - torch.cat(left)
