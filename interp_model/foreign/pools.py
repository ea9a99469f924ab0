"""Poolings that torch lacks: dilated ones that keep the side of a map.

Shape legend: N images   F filters   H = W = n map side   K kernel side.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[int, int]
"""A number for rows, and one for columns."""


def pair(number: Any) -> Pair:
    """Return both numbers of a pair, or one number twice."""
    rows, columns = number if isinstance(number, tuple | list) else (number, number)
    return int(rows), int(columns)


class DenseAvgPool2d(nn.Module):
    """Average pooling with stride 1 that keeps the side of a map: windows that leave it at the end are cut.

    Of its units every s-th is one of `nn.AvgPool2d(kernel_size, s, ceil_mode=True)`. With dilation d, the same holds on
    a map that has d units in place of one.
    """

    def __init__(self, kernel_size: int | Pair) -> None:
        super().__init__()
        self.kernel_size = pair(kernel_size)
        self.dilation = (1, 1)

    def forward(self, x_NFHW: Tensor) -> Tensor:
        """Return the mean of each unit's window, (N, F, H, W)."""
        on_map_11HW = torch.ones_like(x_NFHW[:1, :1])
        return self._sum(x_NFHW) / self._sum(on_map_11HW)

    def _sum(self, x_NFHW: Tensor) -> Tensor:
        x_M1HW = _padded(x_NFHW, self.kernel_size, self.dilation, 0.0).flatten(0, 1)[:, None]
        sum_M1HW = functional.conv2d(x_M1HW, x_M1HW.new_ones(1, 1, *self.kernel_size), dilation=self.dilation)
        return sum_M1HW.reshape(*x_NFHW.shape[:2], *sum_M1HW.shape[2:])


class DenseMaxPool2d(nn.Module):
    """The same for the highest unit of a window."""

    def __init__(self, kernel_size: int | Pair) -> None:
        super().__init__()
        self.kernel_size = pair(kernel_size)
        self.dilation = (1, 1)

    def forward(self, x_NFHW: Tensor) -> Tensor:
        """Return the highest value of each unit's window, (N, F, H, W)."""
        padded_NFHW = _padded(x_NFHW, self.kernel_size, self.dilation, -math.inf)
        return functional.max_pool2d(padded_NFHW, self.kernel_size, stride=1, dilation=self.dilation)


def _padded(x_NFHW: Tensor, kernel_size: Pair, dilation: Pair, value: float) -> Tensor:
    """Pad a map at the end, so that it has as many windows as units."""
    rows, columns = (d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True))
    return functional.pad(x_NFHW, (0, columns, 0, rows), value=value)


DENSE_POOLS = (DenseAvgPool2d, DenseMaxPool2d)


def dense(pool: nn.Module) -> DenseAvgPool2d | DenseMaxPool2d | None:
    """Return a pooling with stride 1 that keeps a map's side; None unless a pooling's windows tile the map.

    Such a pooling has as many units as a padded convolution of the same stride. With stride 1 in its place, it would
    have fewer.
    """
    if not isinstance(pool, nn.AvgPool2d | nn.MaxPool2d) or pair(pool.padding) != (0, 0):
        return None
    if pair(pool.kernel_size) != pair(pool.stride) or getattr(pool, "divisor_override", None):
        return None
    return (DenseAvgPool2d if isinstance(pool, nn.AvgPool2d) else DenseMaxPool2d)(pool.kernel_size)
