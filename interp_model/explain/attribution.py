"""Contributions of the filters of a layer to a logit, by Captum's integrated gradients (not in the paper).

Shape legend: F filters   H = W map side   O outputs   A steps of the path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from captum.attr import IntegratedGradients
from torch import Tensor

STEPS = 256
"""Number of steps of the path. The layers above are piecewise linear, so the error falls with its square."""

_CHUNK = 32
"""Number of steps that are computed at once."""

Head = Callable[[Tensor], Tensor]
"""Function from the output of the layer, (A, F, H, W), to logits (A, O)."""


class Contributions(NamedTuple):
    """Decomposition of a logit: `base + per_filter_F.sum() + residual == logit`."""

    per_filter_F: Tensor
    """Contribution of each filter to the logit: (F,)."""
    alone_F: Tensor
    """Drop of the logit when only this filter is set to 0: (F,). These values do not sum to the logit, because filters
    are redundant."""
    base: float
    """Logit with all filters set to 0, which depends on the biases only."""
    logit: float
    """Logit of the unmodified maps."""

    @property
    def residual(self) -> float:
        """Discretisation error of the path integral."""
        return self.logit - self.base - float(self.per_filter_F.sum())


def contributions(head: Head, x_FHW: Tensor, output: int, *, steps: int = STEPS) -> Contributions:
    """Return the integrated gradients (Sundararajan et al. 2017) of one logit with respect to a layer's maps.

        c_f = sum_ij x_ij * integral_0^1 dlogit(a x)/dx_ij da

    The straight path leads from all-zero maps (a = 0) to the unmodified maps (a = 1). The contributions sum to
    logit - base, up to the error of the midpoint rule.

    Args:
        head: computes logits from the layer's output, such as `Network.forward_classifier`.
        x_FHW: output of the layer, after the mask if it has one.
        output: index of the logit.
        steps: number of steps of the path.
    """
    gradients_FHW = IntegratedGradients(head).attribute(
        x_FHW[None], target=output, n_steps=steps, method="riemann_middle", internal_batch_size=_CHUNK
    )[0]
    with torch.no_grad():
        base, logit_of_x = head(torch.stack([torch.zeros_like(x_FHW), x_FHW]))[:, output].tolist()
    alone_F = _alone(head, x_FHW, output, logit_of_x)
    return Contributions(gradients_FHW.sum(dim=(1, 2)), alone_F, base, logit_of_x)


@torch.no_grad()
def _alone(head: Head, x_FHW: Tensor, output: int, logit: float) -> Tensor:
    """Return the drop of the logit when each filter alone is set to 0: (F,)."""
    remaining = []
    for start in range(0, len(x_FHW), _CHUNK):
        x_AFHW = x_FHW.repeat(min(_CHUNK, len(x_FHW) - start), 1, 1, 1)
        x_AFHW[:, start:].diagonal(dim1=0, dim2=1).zero_()
        remaining.append(head(x_AFHW)[:, output])
    return logit - torch.cat(remaining)
