"""The forward half of an interpretable layer: keep what surrounds each map's peak, drop the rest (Sec. 3).

Shape legend: templates.py.
"""

from __future__ import annotations

from torch import Tensor


def peak_index(x_NFHW: Tensor) -> Tensor:
    """mu-hat = argmax_ij x_ij as `row * n + column`; the first one where several are equal.

    Returns:
        (N, F), int64.
    """
    return x_NFHW.flatten(2).argmax(dim=2)


def apply_mask(x_NFHW: Tensor, bank_PHW: Tensor, peak_NF: Tensor) -> Tensor:
    """x_masked = max(x o T_mu-hat, 0), for maps after ReLU and the clipped bank of `mask_bank`.

    The peak is where it is: no gradient flows through its choice, so the mask is a constant for autograd.
    """
    # index_select, not bank[peak]: one copy of whole rows, and several times faster on a CPU.
    mask_NFHW = bank_PHW.flatten(1).index_select(0, peak_NF.flatten()).view_as(x_NFHW)
    return x_NFHW * mask_NFHW
