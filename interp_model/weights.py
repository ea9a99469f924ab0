"""Which weights of a foreign state dict go into which layer: the backbone's convolutions and nothing above them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from interp_model.backbones import BACKBONES, Conv, Pool
from interp_model.network import PIXEL_SCALE, Network
from schemas.errors import WeightsError
from schemas.job import BackboneName

TORCHVISION_BACKBONES: tuple[BackboneName, ...] = ("alexnet", "vgg16")

TORCHVISION_STD = (0.229, 0.224, 0.225)
"""By which torchvision's networks divide red, green and blue, pixels being in 0..1."""


def load_state_into(network: Network, state: Mapping[str, Tensor]) -> None:
    """Start from the convolutions in `state`, ours or torchvision's; new and fully connected layers stay as they are.

    Raises:
        WeightsError: a convolution is missing or of another shape; the network is then unchanged.
    """
    backbone = network.model.backbone
    ours = _from_torchvision(backbone, state) if any(key.startswith("features.") for key in state) else state
    own = network.state_dict()
    keys = [f"blocks.{name}.conv.{kind}" for name in _conv_names(backbone) for kind in ("weight", "bias")]
    for key in keys:
        _check_fit(backbone, key, own[key], ours.get(key))
    with torch.no_grad():
        for key in keys:
            own[key].copy_(ours[key])


def _from_torchvision(backbone: BackboneName, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under our names, and with the first layer rescaled from torchvision's input to ours.

    torchvision counts modules: a convolution and its ReLU take two numbers of `features`, a pooling takes one.
    """
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
        for kind in ("weight", "bias"):
            if (found := state.get(f"features.{index}.{kind}")) is not None:
                renamed[f"blocks.{layer.name}.conv.{kind}"] = found
        index += 2
    first = f"blocks.{_conv_names(backbone)[0]}.conv.weight"
    if first in renamed:
        ratio_3 = PIXEL_SCALE / (255 * torch.tensor(TORCHVISION_STD, dtype=renamed[first].dtype))
        renamed[first] = renamed[first] * ratio_3[:, None, None]
    return renamed


def _conv_names(backbone: BackboneName) -> list[str]:
    return [layer.name for layer in BACKBONES[backbone] if isinstance(layer, Conv)]


def _check_fit(backbone: BackboneName, key: str, expected: Tensor, found: Tensor | None) -> None:
    _, layer, _, kind = key.split(".")
    if found is None:
        raise WeightsError(f"the weights have no {kind} for {layer} of {backbone}. Use weights of a whole {backbone}.")
    if found.shape != expected.shape:
        raise WeightsError(
            f"the {kind} for {layer} of {backbone} should be {tuple(expected.shape)} and is {tuple(found.shape)}. "
            "Use weights of the same backbone and the same `model.width` (published weights have width 1)."
        )
