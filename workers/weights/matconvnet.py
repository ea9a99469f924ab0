"""Reads the convolutions of a MatConvNet SimpleNN file, and compares its layers with a backbone's.

A file has a cell `layers` of structs with `type`, `name`, `pad` [top bottom left right], `stride`, `pool`, and for a
normalisation `param` [N kappa alpha beta]. A convolution has its kernel, (rows, columns, inputs of a group, outputs),
and its bias as `weights` {kernel, bias}, or in older files as `filters` and `biases`. The input is RGB bytes minus
`meta.normalization.averageImage` (older: `normalization.averageImage`), an image or three numbers. The file is MATLAB
v5 or v7.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp_model.backbones import BACKBONES, Conv, Pool
from interp_model.weights import LayerFit, kernel_for_our_input, state_key
from schemas.errors import WeightsError
from schemas.job import BackboneName
from workers.data.readers.matlab import read_mat

IMAGENET_CLASSES = 1000

_Numbers = tuple[float, ...]

_LRN_TYPES = ("normalize", "lrn")
_DEFAULT_LRN = (5.0, 1.0, 0.0001 / 5, 0.75)
"""MatConvNet's default for `param`."""


@dataclass(frozen=True)
class MatConvNetFile:
    """The converted content of a SimpleNN file."""

    state: dict[str, Tensor]
    """Weights with our layer names, for our input."""
    structure: list[LayerFit]
    """Comparison of strides, pads, windows and normalisations, from input to output."""
    mean_rgb: tuple[float, float, float] | None
    """Mean that is subtracted from the input; None if the file has none."""
    is_imagenet: bool
    """Whether the file lists ImageNet's 1000 classes."""


def read_matconvnet(path: Path, backbone: BackboneName) -> MatConvNetFile:
    """Read what a backbone needs of a file; mismatches are in `structure` and in the shapes of `state`.

    Raises:
        WeightsError: the file is not a MAT file of a SimpleNN, is truncated, or its input is not bytes.
    """
    try:
        content = read_mat(path)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is a damaged MATLAB file, or of another version ({error}). Download or copy it again; in MATLAB, "
            "`save -v7` and `-v7.3` write supported files."
        ) from error
    layers = content.get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, Mapping) and "type" in layer for layer in layers):
        kind = "a DagNN" if "params" in content or "vars" in content else "no network"
        raise WeightsError(f"{path} holds {kind}; a MatConvNet SimpleNN has a cell `layers`. Use the SimpleNN file.")
    meta = content.get("meta", content)
    normalization = meta.get("normalization", {})
    mean_rgb = _mean(path, normalization)
    size = np.ravel(normalization.get("imageSize", ()))
    state: dict[str, Tensor] = {}
    structure = list(_compare(layers, backbone, int(size[0]) if size.size else None, state))
    first = state_key(BACKBONES[backbone][0].name, "weight")
    if first in state:
        state[first] = kernel_for_our_input(state[first], is_bgr=False)
    classes = meta.get("classes", content.get("classes", {}))
    names = classes.get("description", ()) if isinstance(classes, Mapping) else ()
    return MatConvNetFile(state, structure, mean_rgb, len(names) == IMAGENET_CLASSES)


def _mean(path: Path, normalization: Mapping[str, Any]) -> tuple[float, float, float] | None:
    image = np.asarray(normalization.get("averageImage", ()), dtype=np.float64)
    if image.size == 0:
        return None
    if image.size == 3:
        mean = image.ravel()
    elif image.ndim == 3 and image.shape[2] == 3:
        mean = image.mean(axis=(0, 1))
    else:
        raise WeightsError(
            f"{path}: `averageImage` is {' x '.join(map(str, image.shape))}, but an RGB image or three numbers are "
            "expected. Networks for grey images do not fit."
        )
    if not 1 < mean.max() < 256:
        raise WeightsError(
            f"{path}: `averageImage` has a mean of {', '.join(f'{m:.3g}' for m in mean)}, so that its network does not "
            "take pixels of 0 to 255. Only networks for such pixels can be imported."
        )
    return float(mean[0]), float(mean[1]), float(mean[2])


class _Unit(NamedTuple):
    """A convolution or pooling of the file, with the layers between it and the next one."""

    kinds: tuple[str, ...]
    head: Mapping[str, Any]
    lrn: Mapping[str, Any]


def _units(layers: list[Mapping[str, Any]]) -> list[_Unit]:
    units: list[_Unit] = []
    for layer in layers:
        kind = "lrn" if layer["type"] in _LRN_TYPES else str(layer["type"])
        if kind in ("conv", "pool"):
            units.append(_Unit((kind,), layer, {}))
        elif units and kind != "dropout":
            last = units[-1]
            units[-1] = _Unit((*last.kinds, kind), last.head, layer if kind == "lrn" else last.lrn)
    return units


def _compare(
    layers: list[Mapping[str, Any]], backbone: BackboneName, side: int | None, state: dict[str, Tensor]
) -> Iterator[LayerFit]:
    """Compare layer by layer, up to the last pooling or the first mismatch of layer types; fill `state`.

    Args:
        layers: layers of the file.
        backbone: the backbone to compare with.
        side: side of the file's input in pixels; if given, padding that no window reaches is ignored.
        state: filled with the convolutions' weights.
    """
    for expected, unit in zip_longest(BACKBONES[backbone], _units(layers)[: len(BACKBONES[backbone])]):
        is_last = expected is BACKBONES[backbone][-1]
        if unit is None and is_last:
            return  # the released code cuts networks off there too
        kinds = ("pool",) if isinstance(expected, Pool) else ("conv", "relu", *(["lrn"] if expected.lrn else []))
        if unit is None or unit.kinds != kinds:
            yield LayerFit(expected.name, "layers", kinds, unit.kinds if unit else None)
            return
        if isinstance(expected, Pool):
            yield from _compare_pool(expected, unit.head, side)
        else:
            yield from _compare_conv(expected, unit)
            _take(expected, unit.head, state)
        if side is not None:
            side = (side + sum(expected.pads) - expected.kernel) // expected.stride + 1


def _compare_conv(expected: Conv, unit: _Unit) -> Iterator[LayerFit]:
    yield LayerFit(expected.name, "stride", (expected.stride,) * 2, _numbers(unit.head, "stride", 1, 2))
    yield LayerFit(expected.name, "pad", (expected.pad,) * 4, _numbers(unit.head, "pad", 0, 4))
    if (dilation := _numbers(unit.head, "dilate", 1, 2)) != (1, 1):
        yield LayerFit(expected.name, "dilation", (1, 1), dilation)
    if expected.lrn:
        yield LayerFit(expected.name, "lrn", tuple(expected.lrn), _numbers(unit.lrn, "param", _DEFAULT_LRN, 4))


def _compare_pool(expected: Pool, layer: Mapping[str, Any], side: int | None) -> Iterator[LayerFit]:
    kernel, stride = (expected.kernel,) * 2, (expected.stride,) * 2
    yield LayerFit(expected.name, "window", kernel, _numbers(layer, "pool", 1, 2))
    yield LayerFit(expected.name, "stride", stride, _numbers(layer, "stride", 1, 2))
    wanted: _Numbers = (0, expected.pad_end, 0, expected.pad_end)
    found = _numbers(layer, "pad", 0, 4)
    if side is not None:
        wanted, found = _reached(wanted, expected, side), _reached(found, expected, side)
    yield LayerFit(expected.name, "pad", wanted, found)
    if (method := str(layer.get("method", "max"))) != "max":
        yield LayerFit(expected.name, "method", ("max",), (method,))


def _reached(pads: _Numbers, pool: Pool, side: int) -> _Numbers:
    """Return [top bottom left right] without the rows and columns at the end that no window reaches."""
    reached: list[float] = []
    for before, after in (pads[:2], pads[2:]):
        windows = int((side + before + after - pool.kernel) // pool.stride) + 1
        used = (windows - 1) * pool.stride + pool.kernel - side - before
        reached += [before, max(0, min(after, used))]
    return tuple(reached)


def _take(expected: Conv, layer: Mapping[str, Any], state: dict[str, Tensor]) -> None:
    """Add a kernel, transposed from (rows, columns, inputs, outputs), and a bias with our layer names."""
    weights = layer.get("weights")
    kernel, bias = weights if isinstance(weights, list) and len(weights) == 2 else (None, None)
    if weights is None:
        kernel, bias = layer.get("filters"), layer.get("biases")
    if kernel is not None:
        kernel_HWIO = np.asarray(kernel, dtype=np.float32)
        kernel_HWIO = kernel_HWIO.reshape(
            kernel_HWIO.shape + (1,) * (4 - kernel_HWIO.ndim)
        )  # MATLAB drops trailing ones
        kernel_OIHW = torch.from_numpy(np.ascontiguousarray(kernel_HWIO.transpose(3, 2, 0, 1)))
        state[state_key(expected.name, "weight")] = kernel_OIHW
    if bias is not None:
        state[state_key(expected.name, "bias")] = torch.from_numpy(np.array(bias, dtype=np.float32).ravel())


def _numbers(layer: Mapping[str, Any], field: str, default: float | _Numbers, length: int) -> _Numbers:
    """Return a field as `length` numbers; a single number is repeated, as in MatConvNet."""
    values = np.asarray(layer.get(field, default), dtype=np.float64).ravel()
    filled = np.repeat(values, length) if values.size == 1 else values
    return tuple(int(value) if value.is_integer() else float(value) for value in filled)
