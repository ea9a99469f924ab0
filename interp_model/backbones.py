"""The backbones as one table (Sec. 5), with channel counts, map sides and the smallest input computed from it.

This file does not import torch, so that the planner can use it. The table ends with the last pooling, because fully
connected layers are always new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

from schemas.base import did_you_mean
from schemas.errors import SpecError
from schemas.job import ModelSpec, Variant
from schemas.model_spec import foreign_name

TORCHVISION_BACKBONES: tuple[str, ...] = ("alexnet", "vgg16")
"""Backbones of the table whose weights torchvision publishes."""


class Lrn(NamedTuple):
    """Local response normalisation: y_i = x_i / (kappa + alpha sum_j x_j^2)^beta over `window` channels."""

    window: int
    """Number of channels in the sum."""
    kappa: float
    """Additive constant."""
    alpha: float
    """Factor of each square, as in MatConvNet; the alpha of Caffe and torch is `window` times this."""
    beta: float
    """Exponent."""


class Conv(NamedTuple):
    """A convolution followed by ReLU and, with `lrn`, local response normalisation."""

    name: str
    """Name of the layer."""
    channels: int
    """Number of filters at width 1."""
    kernel: int
    """Side of the kernel."""
    stride: int = 1
    """Stride."""
    pad: int = 0
    """Zero padding at every side."""
    lrn: Lrn | None = None
    """Local response normalisation after ReLU, if any."""
    groups: int = 1
    """Number of groups, as in torch's `groups`."""
    multiple_of: int = 1
    """Number that must divide the channel count at every width, so that the groups are equal."""

    @property
    def pads(self) -> tuple[int, int]:
        """Padding (before, after), equal for rows and columns."""
        return self.pad, self.pad


class Pool(NamedTuple):
    """A max pooling."""

    name: str
    """Name of the layer."""
    kernel: int
    """Side of the window."""
    stride: int
    """Stride."""
    pad_end: int = 0
    """Padding at the bottom and the right only, as in MatConvNet's models."""

    @property
    def pads(self) -> tuple[int, int]:
        """Padding (before, after), equal for rows and columns."""
        return 0, self.pad_end


Layer = Conv | Pool
"""A row of the backbone table."""

NEW_LAYER = "conv6"
"""Name of the convolution that an interpretable network adds on top of the backbone (Sec. 5)."""

FC_LAYERS = ("fc6", "fc7", "fc8")
"""Names of the fully connected layers."""


def _vgg16() -> tuple[Layer, ...]:
    blocks = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
    layers: list[Layer] = []
    for block, (repeats, channels) in enumerate(blocks, start=1):
        layers += [Conv(f"conv{block}_{i}", channels, 3, pad=1) for i in range(1, repeats + 1)]
        layers.append(Pool(f"pool{block}", 2, 2))
    return tuple(layers)


VGG_LRN = Lrn(5, 2.0, 1e-4, 0.75)
"""Normalisation of MatConvNet's VGG-M and VGG-S."""
ALEXNET_LRN = Lrn(5, 1.0, 2e-5, 0.75)
"""Normalisation of the original AlexNet."""

# `alexnet` is torchvision's, so that torchvision's weights load. `alexnet_2012` is the original one with two groups, as
# published for Caffe and MatConvNet. VGG-M and VGG-S are MatConvNet's imagenet-vgg-m and imagenet-vgg-s.
BACKBONES: dict[str, tuple[Layer, ...]] = {
    "alexnet": (
        Conv("conv1", 64, 11, 4, pad=2), Pool("pool1", 3, 2),
        Conv("conv2", 192, 5, pad=2), Pool("pool2", 3, 2),
        Conv("conv3", 384, 3, pad=1), Conv("conv4", 256, 3, pad=1),
        Conv("conv5", 256, 3, pad=1), Pool("pool5", 3, 2),
    ),
    "alexnet_2012": (
        Conv("conv1", 96, 11, 4, lrn=ALEXNET_LRN, multiple_of=2), Pool("pool1", 3, 2),
        Conv("conv2", 256, 5, pad=2, lrn=ALEXNET_LRN, groups=2, multiple_of=2), Pool("pool2", 3, 2),
        Conv("conv3", 384, 3, pad=1, multiple_of=2), Conv("conv4", 384, 3, pad=1, groups=2, multiple_of=2),
        Conv("conv5", 256, 3, pad=1, groups=2, multiple_of=2), Pool("pool5", 3, 2),
    ),
    "vgg_m": (
        Conv("conv1", 96, 7, 2, lrn=VGG_LRN), Pool("pool1", 3, 2, pad_end=1),
        Conv("conv2", 256, 5, 2, pad=1, lrn=VGG_LRN), Pool("pool2", 3, 2, pad_end=1),
        Conv("conv3", 512, 3, pad=1), Conv("conv4", 512, 3, pad=1),
        Conv("conv5", 512, 3, pad=1), Pool("pool5", 3, 2),
    ),
    "vgg_s": (
        Conv("conv1", 96, 7, 2, lrn=VGG_LRN), Pool("pool1", 3, 3, pad_end=2),
        Conv("conv2", 256, 5), Pool("pool2", 2, 2, pad_end=1),
        Conv("conv3", 512, 3, pad=1), Conv("conv4", 512, 3, pad=1),
        Conv("conv5", 512, 3, pad=1), Pool("pool5", 3, 3, pad_end=1),
    ),
    "vgg16": _vgg16(),
}  # fmt: skip
"""Name -> layers up to the last pooling, input to output."""


def top_conv(backbone: str) -> Conv:
    """Return the backbone's last convolution, which becomes an interpretable layer (Sec. 5)."""
    return next(layer for layer in reversed(BACKBONES[backbone]) if isinstance(layer, Conv))


def layers_of(backbone: str, variant: Variant) -> tuple[Layer, ...]:
    """Return the layers up to the last pooling; interpretable networks have one more convolution before it (Sec. 5)."""
    layers = BACKBONES[backbone]
    if variant == "ordinary":
        return layers
    # M filters of 3 x 3 x M, padded so that the map keeps its side.
    new = top_conv(backbone)._replace(name=NEW_LAYER, kernel=3, stride=1, pad=1, lrn=None, groups=1)
    return (*layers[:-1], new, layers[-1])


def scaled_channels(layer: Conv, width: float) -> int:
    """Return the channel count of a layer under the width multiplier: at least 1, and a multiple of `multiple_of`."""
    return max(1, round(layer.channels * width / layer.multiple_of)) * layer.multiple_of


def map_sides(layers: Sequence[Layer], input_size: int) -> Iterator[tuple[str, int]]:
    """Yield (layer name, map side) for a square input, input to output.

    Args:
        layers: rows of the backbone table.
        input_size: side of the input, pixels.

    Yields:
        Sides in units; below 1 if the input is too small.
    """
    side = input_size
    for layer in layers:
        side = (side + sum(layer.pads) - layer.kernel) // layer.stride + 1
        yield layer.name, side


def map_side(backbone: str, layer: str, input_size: int) -> int:
    """Return the map side n of `layer`, which may be the new convolution of an interpretable network."""
    return dict(map_sides(layers_of(backbone, "interpretable"), input_size))[layer]


def smallest_input(backbone: str) -> int:
    """Return the side of the smallest input for which every map has at least one unit, pixels."""
    layers = BACKBONES[backbone]
    return next(size for size in count(1) if all(side > 0 for _, side in map_sides(layers, size)))


def check_input_size(backbone: str, input_size: int) -> None:
    """Check that every map of a backbone has at least one unit.

    Raises:
        SpecError: the input is too small; the message names the smallest valid size.
    """
    for name, side in map_sides(BACKBONES[backbone], input_size):
        if side < 1:
            raise SpecError(
                f"`model.input_size` is {input_size}, which is too small for {backbone}: the map is empty at {name}. "
                f"Use {smallest_input(backbone)} or more."
            )


def first_trained(backbone: str, freeze_below: str) -> str:
    """Resolve `train.freeze_below` to the name of the first trained convolution of a backbone; see `find_trained`."""
    names = [layer.name for layer in BACKBONES[backbone] if isinstance(layer, Conv)]
    return find_trained(names, freeze_below, backbone)


def find_trained(names: Sequence[str], freeze_below: str, backbone: str) -> str:
    """Resolve `train.freeze_below` to the name of the first trained block.

    Args:
        names: the backbone's blocks that have weights, input to output.
        freeze_below: one of them, or `top_conv` for the last one. `conv5` means `conv5_1` in VGG-16. Dots of a module's
            name, as in `layer4.1`, stand for the underscores of its block.
        backbone: name of the backbone, for messages.

    Raises:
        SpecError: the backbone has no such block; the message suggests a valid name.
    """
    if freeze_below == "top_conv":
        return names[-1]
    wanted = freeze_below.replace(".", "_")
    for name in names:
        if name == wanted or name.startswith(f"{wanted}_"):
            return name
    raise SpecError(
        f"`train.freeze_below` is {freeze_below!r}, which is not a convolution of {backbone}. "
        f"{did_you_mean(wanted, ['top_conv', *names])}"
    )


def check_model(model: ModelSpec, freeze_below: str | None) -> None:
    """Check that a network can be built from `model` and frozen below a layer.

    For a backbone of another library this builds it without values, which needs torch.

    Raises:
        SpecError: the input is too small, the backbone has no such layer, or cannot be built or cut.
    """
    if foreign_name(model.backbone):
        from interp_model.foreign.network import check_foreign

        check_foreign(model.backbone, model.input_size, freeze_below)
        return
    check_input_size(model.backbone, model.input_size)
    if freeze_below is not None:
        first_trained(model.backbone, freeze_below)
