"""Loading pre-trained weights: which arrays of a state dict go into which convolution of the backbone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from interp_model.backbones import BACKBONES, Conv, Pool, scaled_channels
from interp_model.network import PIXEL_SCALE, Network
from schemas.errors import WeightsError
from schemas.job import BackboneName

TORCHVISION_BACKBONES: tuple[BackboneName, ...] = ("alexnet", "vgg16")
"""Backbones whose weights torchvision publishes."""

TORCHVISION_STD = (0.229, 0.224, 0.225)
"""Standard deviations (R, G, B) by which torchvision normalises pixels in 0..1."""

KINDS = ("weight", "bias")
"""Parameters of a convolution."""


class LayerFit(NamedTuple):
    """Comparison of one parameter or attribute of a layer with a weights file."""

    layer: str
    """Name of the layer."""
    kind: str
    """`weight` with shape (outputs, inputs, rows, columns), `bias`, or another attribute that a file has for its
    layers, such as `stride` or `pad`."""
    expected: tuple[float | str, ...]
    """Shape or value that the network needs."""
    found: tuple[float | str, ...] | None
    """Shape or value in the file; None if it is missing."""
    is_finite: bool = True
    """Whether all numbers are finite."""

    @property
    def fits(self) -> bool:
        """Whether the file has the expected, finite values."""
        return self.found is not None and _equal(self.expected, self.found) and self.is_finite


def _equal(expected: tuple[float | str, ...], found: tuple[float | str, ...]) -> bool:
    """Compare numbers up to single precision, in which some files store them."""
    return len(expected) == len(found) and all(
        math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float | int) and isinstance(b, float | int) else a == b
        for a, b in zip(expected, found, strict=True)
    )


def state_key(layer: str, kind: str) -> str:
    """Return the key of a convolution's `weight` or `bias` in the state dict of a `Network`."""
    return f"blocks.{layer}.conv.{kind}"


def expected_shapes(backbone: BackboneName, width: float) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield (layer, kind, shape) of every parameter that a weights file must have, input to output.

    Args:
        backbone: name of the backbone.
        width: multiplier of every channel count.
    """
    channels = 3
    for layer in BACKBONES[backbone]:
        if isinstance(layer, Conv):
            outputs = scaled_channels(layer, width)
            yield layer.name, "weight", (outputs, channels // layer.groups, layer.kernel, layer.kernel)
            yield layer.name, "bias", (outputs,)
            channels = outputs


def compare_layers(backbone: BackboneName, width: float, state: Mapping[str, Tensor]) -> list[LayerFit]:
    """Compare every parameter of a backbone with a state dict under our names or torchvision's.

    Args:
        backbone: name of the backbone.
        width: multiplier of every channel count.
        state: the state dict.

    Raises:
        WeightsError: the names are torchvision's, and torchvision has no such backbone.
    """
    ours = to_our_names(backbone, state)
    return [
        LayerFit(layer, kind, shape, None)
        if (found := ours.get(state_key(layer, kind))) is None
        else LayerFit(layer, kind, shape, tuple(found.shape), bool(found.isfinite().all()))
        for layer, kind, shape in expected_shapes(backbone, width)
    ]


def check_layers(backbone: BackboneName, fits: Iterable[LayerFit]) -> None:
    """Check that all layers fit.

    Raises:
        WeightsError: a layer does not fit; the message describes the first one.
    """
    for fit in fits:
        what = f"the {fit.kind} for {fit.layer} of {backbone}"
        if fit.found is None:
            raise WeightsError(
                f"the weights have no {fit.kind} for {fit.layer} of {backbone}. Use weights of a whole {backbone}."
            )
        if not fit.is_finite:
            raise WeightsError(f"{what} holds numbers that are not finite. The file is corrupt: use another copy.")
        if not fit.fits:
            raise WeightsError(
                f"{what} should be {fit.expected} and is {fit.found}. "
                "Use weights of the same backbone and the same `model.width` (published weights have width 1)."
            )


def load_state_into(network: Network, state: Mapping[str, Tensor]) -> None:
    """Copy the backbone's convolutions from a state dict into a network. New and fully connected layers stay unchanged.

    Args:
        network: changed in place.
        state: state dict under our names or torchvision's.

    Raises:
        WeightsError: a convolution is missing or has another shape; the network is then unchanged.
    """
    backbone = network.model.backbone
    check_layers(backbone, compare_layers(backbone, network.model.width, state))
    source, target = to_our_names(backbone, state), network.state_dict()
    with torch.no_grad():
        for layer, kind, _ in expected_shapes(backbone, network.model.width):
            target[state_key(layer, kind)].copy_(source[state_key(layer, kind)])


def to_our_names(backbone: BackboneName, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Convert a state dict from torchvision to our names and input scale; return one with our names unchanged.

    torchvision numbers modules in `features`: a convolution with its ReLU takes two numbers, a pooling one. The first
    kernel is rescaled, because torchvision divides pixels by `TORCHVISION_STD` and we divide them by `PIXEL_SCALE`.

    Args:
        backbone: name of the backbone.
        state: the state dict.

    Raises:
        WeightsError: the names are torchvision's, and torchvision has no such backbone.
    """
    if not any(key.startswith("features.") for key in state):
        return state
    if backbone not in TORCHVISION_BACKBONES:
        raise WeightsError(
            f"the weights have torchvision's names, but torchvision has no {backbone}. "
            f"Use weights of {backbone}, or one of torchvision's backbones: {', '.join(TORCHVISION_BACKBONES)}."
        )
    renamed: dict[str, Tensor] = {}
    index = 0
    for layer in BACKBONES[backbone]:
        if isinstance(layer, Pool):
            index += 1
            continue
        for kind in KINDS:
            if (found := state.get(f"features.{index}.{kind}")) is not None:
                renamed[state_key(layer.name, kind)] = found
        index += 2
    first = state_key(BACKBONES[backbone][0].name, "weight")
    if first in renamed:
        ratio_3 = PIXEL_SCALE / (255 * torch.tensor(TORCHVISION_STD, dtype=renamed[first].dtype))
        renamed[first] = renamed[first] * ratio_3[:, None, None]
    return renamed


def kernel_for_our_input(kernel_OIHW: Tensor, *, is_bgr: bool) -> Tensor:
    """Convert the first kernel of a network whose input is 0..255 minus a mean to our input: RGB over `PIXEL_SCALE`.

    The bias stays the same. A different mean cannot be folded into it, because zero padding makes the difference of two
    means non-constant at the border.

    Args:
        kernel_OIHW: weights of the first convolution, (outputs, 3, rows, columns).
        is_bgr: whether the network takes BGR instead of RGB.

    Returns:
        (outputs, 3, rows, columns).
    """
    rgb = kernel_OIHW.flip(1) if is_bgr else kernel_OIHW
    return rgb * PIXEL_SCALE
