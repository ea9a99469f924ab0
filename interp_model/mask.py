"""Forward pass of an interpretable layer: mask each map around its peak (Sec. 3).

Shape legend: templates.py.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Peak(NamedTuple):
    """Peaks of maps, without gradients."""

    index_NF: Tensor
    """int64: place as `row * n + column`, see `peak_index`."""
    height_NF: Tensor
    """Activation there."""


def find_peak(x_NFHW: Tensor) -> Peak:
    """Return place and height of each map's peak, found in one pass."""
    # On a CPU `max` takes half the time of `argmax`, and it too gives the first of equal values.
    height_NF, index_NF = x_NFHW.detach().flatten(2).max(dim=2)
    return Peak(index_NF, height_NF)


def peak_index(x_NFHW: Tensor) -> Tensor:
    """Return the peak mu-hat = argmax_ij x_ij as `row * n + column`, the first one if there are ties (Sec. 3).

    Returns:
        (N, F), int64.
    """
    return find_peak(x_NFHW).index_NF


def apply_mask(x_NFHW: Tensor, bank_PHW: Tensor, peak_NF: Tensor) -> Tensor:
    """Return x_masked = max(x o T_mu-hat, 0) (Sec. 3). The mask is a constant for autograd.

    Args:
        x_NFHW: maps after ReLU.
        bank_PHW: masks, see `mask_bank`.
        peak_NF: peaks, see `peak_index`.

    Returns:
        (N, F, H, W).
    """
    # index_select copies whole rows and is several times faster on a CPU than bank[peak].
    mask_NFHW = bank_PHW.flatten(1).index_select(0, peak_NF.flatten()).view_as(x_NFHW)
    return x_NFHW * mask_NFHW
