"""Turns arrays of foreign files into tensors of the same kind; whether they fit is decided later, with the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.errors import WeightsError


def kernel_tensor(array: Any, where: str) -> Tensor:
    """Return a kernel, transposed from (rows, columns, inputs, outputs) to (outputs, inputs, rows, columns).

    Missing trailing axes are added, because MATLAB drops those of length 1. A kernel of more axes stays as it is.

    Args:
        array: what the file holds for the kernel.
        where: file and layer, for messages.

    Raises:
        WeightsError: it is no array of numbers.
    """
    value = _tensor(array, where)
    if value.ndim > 4:
        return value
    return value.reshape(*value.shape, *(1,) * (4 - value.ndim)).permute(3, 2, 0, 1).contiguous()


def bias_tensor(array: Any, where: str) -> Tensor:
    """Return a bias as one axis; a row or a column is one, any other shape stays as it is.

    Args:
        array: what the file holds for the bias.
        where: file and layer, for messages.

    Raises:
        WeightsError: it is no array of numbers.
    """
    value = _tensor(array, where)
    return value.ravel() if max(value.shape, default=1) == value.numel() else value


def _tensor(array: Any, where: str) -> Tensor:
    if not isinstance(array, np.ndarray):
        raise WeightsError(f"{where} is a {type(array).__name__}, expected an array of numbers. Use another copy.")
    try:
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError as error:  # text, objects, or floats of 80 bits
        raise WeightsError(f"{where} is an array of {array.dtype}, expected numbers. Use another copy.") from error
