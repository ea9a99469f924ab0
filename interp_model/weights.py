"""Which weights of a foreign network go into which layer: the backbone's convolutions and nothing above them."""

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

TORCHVISION_STD = (0.229, 0.224, 0.225)
"""By which torchvision's networks divide red, green and blue, pixels being in 0..1."""

KINDS = ("weight", "bias")


class LayerFit(NamedTuple):
    """What a layer needs and what the file has."""

    layer: str
    kind: str
    """`weight`, in the order (outputs, inputs, rows, columns), or `bias`; or what else a file says of its layers, such
    as `stride` and `pad`."""
    expected: tuple[float | str, ...]
    found: tuple[float | str, ...] | None
    is_finite: bool = True

    @property
    def fits(self) -> bool:
        return self.found is not None and _equal(self.expected, self.found) and self.is_finite


def _equal(expected: tuple[float | str, ...], found: tuple[float | str, ...]) -> bool:
    """Files hold some numbers in single precision."""
    return len(expected) == len(found) and all(
        math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float | int) and isinstance(b, float | int) else a == b
        for a, b in zip(expected, found, strict=True)
    )


def state_key(layer: str, kind: str) -> str:
    """Under which a network's state keeps a convolution's weight or bias."""
    return f"blocks.{layer}.conv.{kind}"


def expected_shapes(backbone: BackboneName, width: float) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(layer, kind, shape) of everything that a weights file has to give, input to output."""
    channels = 3
    for layer in BACKBONES[backbone]:
        if isinstance(layer, Conv):
            outputs = scaled_channels(layer, width)
            yield layer.name, "weight", (outputs, channels // layer.groups, layer.kernel, layer.kernel)
            yield layer.name, "bias", (outputs,)
            channels = outputs


def compare_layers(backbone: BackboneName, width: float, state: Mapping[str, Tensor]) -> list[LayerFit]:
    """Every layer's need against a state dict, ours or torchvision's."""
    ours = to_our_names(backbone, state)
    return [
        LayerFit(layer, kind, shape, None)
        if (found := ours.get(state_key(layer, kind))) is None
        else LayerFit(layer, kind, shape, tuple(found.shape), bool(found.isfinite().all()))
        for layer, kind, shape in expected_shapes(backbone, width)
    ]


def check_layers(backbone: BackboneName, fits: Iterable[LayerFit]) -> None:
    """Raise WeightsError for the first layer that does not fit."""
    for fit in fits:
        what = f"the {fit.kind} for {fit.layer} of {backbone}"
        if fit.found is None:
            raise WeightsError(
                f"the weights have no {fit.kind} for {fit.layer} of {backbone}. Use weights of a whole {backbone}."
            )
        if not fit.is_finite:
            raise WeightsError(f"{what} holds numbers that are not finite. The file is broken: take another copy.")
        if not fit.fits:
            raise WeightsError(
                f"{what} should be {fit.expected} and is {fit.found}. "
                "Use weights of the same backbone and the same `model.width` (published weights have width 1)."
            )


def load_state_into(network: Network, state: Mapping[str, Tensor]) -> None:
    """Start from the convolutions in `state`, ours or torchvision's; new and fully connected layers stay as they are.

    Raises:
        WeightsError: a convolution is missing or of another shape; the network is then unchanged.
    """
    backbone = network.model.backbone
    check_layers(backbone, compare_layers(backbone, network.model.width, state))
    ours, own = to_our_names(backbone, state), network.state_dict()
    with torch.no_grad():
        for layer, kind, _ in expected_shapes(backbone, network.model.width):
            own[state_key(layer, kind)].copy_(ours[state_key(layer, kind)])


def to_our_names(backbone: BackboneName, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state dict under our names and for our input: as it is, or translated from torchvision's.

    torchvision counts modules: a convolution and its ReLU take two numbers of `features`, a pooling takes one.

    Raises:
        WeightsError: the names are torchvision's, and torchvision has no such backbone.
    """
    if not any(key.startswith("features.") for key in state):
        return state
    if backbone not in TORCHVISION_BACKBONES:
        raise WeightsError(
            f"the weights are named as torchvision names them, and torchvision has no {backbone}. "
            f"Use weights of {backbone}, or a backbone that it has: {', '.join(TORCHVISION_BACKBONES)}."
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
    """The first kernel of a network that takes bytes minus a mean, for our input: RGB, and divided by PIXEL_SCALE.

    The bias stays. Which mean is subtracted cannot be folded into it: a padded convolution sees zeros beyond the
    border, whatever the mean, so that the difference of two means is no constant there.
    """
    rgb = kernel_OIHW.flip(1) if is_bgr else kernel_OIHW
    return rgb * PIXEL_SCALE
