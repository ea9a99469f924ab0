"""Reads the convolutions of a MatConvNet SimpleNN file, and compares its layers with a backbone's.

A file has a cell `layers` of structs with `type`, `name`, `pad` [top bottom left right], `stride`, `pool`, and for a
normalisation `param` [N kappa alpha beta]. A convolution has its kernel, (rows, columns, inputs of a group, outputs),
and its bias as `weights` {kernel, bias}, or in older files as `filters` and `biases`. Files of a training hold the same
in a variable `net`, beside `state` and `stats`. The input is RGB bytes minus `meta.normalization.averageImage` (older:
`normalization.averageImage`), an image or three numbers. The file is MATLAB v5 or v7.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from interp_model.backbones import BACKBONES, Conv, Pool
from interp_model.state_dicts import state_key
from interp_model.weights import LayerFit
from schemas.errors import WeightsError
from schemas.weights import ChannelOrder, InputConvention
from workers.data.readers.matlab import read_mat
from workers.training.confined import call_confined
from workers.weights.arrays import bias_tensor, kernel_tensor

IMAGENET_CLASSES = 1000

_Numbers = tuple[float, ...]

_LRN_TYPES = ("normalize", "lrn")
_DEFAULT_LRN = (5.0, 1.0, 0.0001 / 5, 0.75)
"""MatConvNet's default for `param`."""


_BGR_MARGIN = 10.0
"""By how much blue must exceed red in a mean to contradict RGB. Photographs have the opposite (ImageNet: -20)."""
_LONGEST = 30
"""Letters of a text of the file that messages show."""
_SHOWN = 8
"""Values of a field and layers of a unit that are kept, for messages; the expected ones are fewer."""
_VARIABLES = ("layers", "net", "meta", "normalization", "classes", "params", "vars")
"""Variables that are read; others, such as `state` and `stats` of a training, may be of any size."""


@dataclass(frozen=True)
class MatConvNetFile:
    """The content of a SimpleNN file."""

    state: dict[str, Tensor]
    """Weights with our layer names, with the values of the file."""
    structure: list[LayerFit]
    """Comparison of strides, pads, windows and normalisations, from input to output."""
    input: InputConvention
    """Input of the network."""
    mean_rgb: tuple[float, float, float] | None
    """Mean that is subtracted from the input; None if the file has none."""
    is_imagenet: bool
    """Whether the file lists ImageNet's 1000 classes."""
    unwrapped: tuple[str, ...]
    """Variable that holds the layers, if it is not the file itself."""
    caveats: tuple[str, ...]
    """Findings that do not prevent an import."""


def read_matconvnet(path: Path, backbone: str, order: ChannelOrder | None = None) -> MatConvNetFile:
    """Read what a backbone needs of a file; mismatches are in `structure` and in the shapes of `state`.

    Args:
        path: the file.
        backbone: the backbone that the weights are for.
        order: order of the channels, if the user states it.

    Raises:
        WeightsError: the file is not a MAT file of a SimpleNN, is truncated, or its input is not bytes.
    """
    try:
        content = call_confined(partial(read_mat, only=_VARIABLES), path)
    except ValueError as error:
        raise WeightsError(
            f"{path} is a damaged MATLAB file, or of another version ({error}). Download or copy it again; in MATLAB, "
            "`save -v7` and `-v7.3` write supported files."
        ) from error
    inner = _struct(content.get("net"))
    found = [
        _convert(path, layers, {**content, **network}, backbone, order, unwrapped)
        for network, unwrapped in ((content, ()), (inner, ("variable 'net'",)))
        if (layers := _layers(network)) is not None
    ]
    if len(found) > 1:
        fitting = [file for file in found if all(row.fits for row in file.structure)]
        if len(fitting) != 1:
            raise WeightsError(
                f"{path} holds two networks, `layers` and `net.layers`, and {len(fitting)} of them fit {backbone}. "
                "Save the one to use alone, with `save('other.mat', '-struct', 'net')`."
            )
        found = fitting
    if not found:
        raise _no_network(path, content, inner)
    return found[0]


def _no_network(path: Path, content: Mapping[str, Any], inner: Mapping[str, Any]) -> WeightsError:
    if any(name in network for network in (content, inner) for name in ("params", "vars")):
        kind = "a DagNN"
    elif "net" in content:
        kind = "a variable `net` without layers" if not _is_empty(inner.get("layers")) else "a `net` with empty layers"
    else:
        kind = "no network"
    return WeightsError(
        f"{path} holds {kind}; a MatConvNet SimpleNN has a cell `layers`, or a struct `net` with one. "
        "Use the SimpleNN file."
    )


def _is_empty(value: Any) -> bool:
    return value is not None and np.size(np.asarray(value, dtype=object)) == 0


def _struct(value: Any) -> Mapping[str, Any]:
    """Return a struct, also from a cell or struct array of one; an empty one for anything else."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, Mapping) else {}


def _layers(network: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Return the layers of a network, from a cell of structs, a struct array, or a single struct."""
    value = network.get("layers")
    layers = [_struct(layer) for layer in (value if isinstance(value, list) else [value])]
    return layers if layers and all(isinstance(layer.get("type"), str) for layer in layers) else None


def _convert(
    path: Path,
    layers: list[Mapping[str, Any]],
    network: Mapping[str, Any],
    backbone: str,
    order: ChannelOrder | None,
    unwrapped: tuple[str, ...],
) -> MatConvNetFile:
    meta = _struct(network.get("meta"))
    normalization = _struct(meta.get("normalization")) or _struct(network.get("normalization"))
    mean_rgb = _mean(path, normalization, order)
    state: dict[str, Tensor] = {}
    structure = list(_compare(path, layers, backbone, _side(normalization), state))
    classes = _struct(meta.get("classes")) or _struct(network.get("classes"))
    names = classes.get("description")
    is_imagenet = isinstance(names, list) and len(names) == IMAGENET_CLASSES
    known_by = "the format" if order is None else "the format and the options of the import"
    convention = InputConvention(scale="255", order=order or "rgb", known_by=known_by)
    caveats = () if mean_rgb else ("the file states no mean of its input; RGB of 0 to 255 is assumed",)
    return MatConvNetFile(state, structure, convention, mean_rgb, is_imagenet, unwrapped, caveats)


def _side(normalization: Mapping[str, Any]) -> int | None:
    """Return the side of the input in pixels; None if the file states none."""
    size = _array(normalization.get("imageSize"))
    is_side = size is not None and size.size > 0 and 1 <= size.flat[0] <= 10_000
    return int(size.flat[0]) if size is not None and is_side else None


def _array(value: Any) -> NDArray[np.float64] | None:
    """Return numbers of the file as doubles; None for text, cells, structs and complex numbers."""
    is_real = isinstance(value, np.ndarray | float | int) and np.asarray(value).dtype.kind in "fiub"
    return np.asarray(value, dtype=np.float64) if is_real else None


def _mean(
    path: Path, normalization: Mapping[str, Any], order: ChannelOrder | None
) -> tuple[float, float, float] | None:
    if "averageImage" not in normalization or _is_empty(normalization["averageImage"]):
        return None
    image = _array(normalization["averageImage"])
    if image is None:
        raise WeightsError(f"{path}: `averageImage` is not an array of numbers. Use another copy of the file.")
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
    if order is None and mean[2] - mean[0] > _BGR_MARGIN:
        raise WeightsError(
            f"{path}: `averageImage` has a mean of {', '.join(f'{m:.3g}' for m in mean)}. More blue than red suggests "
            "BGR, while MatConvNet's networks take RGB. State the order with `--channel-order bgr` or `rgb`."
        )
    red, green, blue = mean[::-1] if order == "bgr" else mean
    return float(red), float(green), float(blue)


class _Unit(NamedTuple):
    """A convolution or pooling of the file, with the layers between it and the next one."""

    kinds: tuple[str, ...]
    head: Mapping[str, Any]
    lrn: Mapping[str, Any]


def _units(layers: list[Mapping[str, Any]]) -> list[_Unit]:
    units: list[_Unit] = []
    for layer in layers:
        kind = "lrn" if layer["type"] in _LRN_TYPES else str(layer["type"])[:_LONGEST]
        if kind in ("conv", "pool"):
            units.append(_Unit((kind,), layer, {}))
        elif units and kind != "dropout" and len(units[-1].kinds) < _SHOWN:
            last = units[-1]
            units[-1] = _Unit((*last.kinds, kind), last.head, layer if kind == "lrn" else last.lrn)
    return units


def _compare(
    path: Path, layers: list[Mapping[str, Any]], backbone: str, side: int | None, state: dict[str, Tensor]
) -> Iterator[LayerFit]:
    """Compare layer by layer, up to the last pooling or the first mismatch of layer types; fill `state`.

    Args:
        path: the file, for messages.
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
            _take(path, expected, unit.head, state)
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
    pads = tuple(pad for pad in found if isinstance(pad, int) and 0 <= pad < expected.kernel)
    if side is not None and len(pads) == len(found) == 4:
        wanted, found = _reached(wanted, expected, side), _reached(pads, expected, side)
    yield LayerFit(expected.name, "pad", wanted, found)
    if (method := str(layer.get("method", "max"))[:_LONGEST]) != "max":
        yield LayerFit(expected.name, "method", ("max",), (method,))


def _reached(pads: _Numbers, pool: Pool, side: int) -> _Numbers:
    """Return [top bottom left right] without the rows and columns at the end that no window reaches."""
    reached: list[float] = []
    for before, after in (pads[:2], pads[2:]):
        windows = int((side + before + after - pool.kernel) // pool.stride) + 1
        used = (windows - 1) * pool.stride + pool.kernel - side - before
        reached += [before, max(0, min(after, used))]
    return tuple(reached)


def _take(path: Path, expected: Conv, layer: Mapping[str, Any], state: dict[str, Tensor]) -> None:
    """Add a kernel and a bias with our layer names and axes."""
    weights = layer.get("weights")
    kernel, bias = weights if isinstance(weights, list) and len(weights) == 2 else (None, None)
    if weights is None or _is_empty(weights):  # in a struct array, a field that a layer lacks is empty
        kernel, bias = layer.get("filters"), layer.get("biases")
    if kernel is not None:
        kernel_OIHW = kernel_tensor(kernel, f"{path}: the weight of {expected.name}")
        state[state_key(expected.name, "weight")] = kernel_OIHW
    if bias is not None:
        state[state_key(expected.name, "bias")] = bias_tensor(bias, f"{path}: the bias of {expected.name}")


def _numbers(layer: Mapping[str, Any], field: str, default: float | _Numbers, length: int) -> tuple[float | str, ...]:
    """Return a field as `length` numbers; a single number is repeated, as in MatConvNet."""
    value = layer.get(field)
    values = _array(np.asarray(default) if value is None or _is_empty(value) else value)
    if values is None:
        return ("not numbers",)
    if values.size > _SHOWN:
        return (f"{values.size} numbers",)
    filled = np.repeat(values.ravel(), length) if values.size == 1 else values.ravel()
    return tuple(int(value) if value.is_integer() else float(value) for value in filled)
