"""The four backbones as one table of data, and the arithmetic on it: channels, map sides, which inputs are too small.

Without torch, so that the planner may ask. The table stops at the last pooling: fully connected layers are always new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

from schemas.base import did_you_mean
from schemas.errors import SpecError
from schemas.job import BackboneName, ModelSpec, Variant


class Lrn(NamedTuple):
    """Local response normalisation: y_i = x_i / (kappa + alpha sum_j x_j^2)^beta over `window` channels."""

    window: int
    kappa: float
    alpha: float
    """Of each square, as in MatConvNet's files; Caffe's and torch's is `window` times this."""
    beta: float


class Conv(NamedTuple):
    """A convolution followed by ReLU and, with `lrn`, local response normalisation."""

    name: str
    channels: int
    kernel: int
    stride: int = 1
    pad: int = 0
    lrn: Lrn | None = None
    groups: int = 1
    """Into so many parts inputs and outputs are divided, each output seeing the inputs of its own part."""
    multiple_of: int = 1
    """Of which the number of channels stays a multiple at every width, so that groups divide it."""

    @property
    def pads(self) -> tuple[int, int]:
        """(before, after), rows and columns alike."""
        return self.pad, self.pad


class Pool(NamedTuple):
    """A maximum pooling."""

    name: str
    kernel: int
    stride: int
    pad_end: int = 0
    """Rows and columns added at the bottom and the right only, as in MatConvNet's models."""

    @property
    def pads(self) -> tuple[int, int]:
        """(before, after), rows and columns alike."""
        return 0, self.pad_end


Layer = Conv | Pool

NEW_LAYER = "conv6"
"""The convolution that an interpretable network has above the backbone's top one (Sec. 5)."""

FC_LAYERS = ("fc6", "fc7", "fc8")


def _vgg16() -> tuple[Layer, ...]:
    blocks = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
    layers: list[Layer] = []
    for block, (repeats, channels) in enumerate(blocks, start=1):
        layers += [Conv(f"conv{block}_{i}", channels, 3, pad=1) for i in range(1, repeats + 1)]
        layers.append(Pool(f"pool{block}", 2, 2))
    return tuple(layers)


VGG_LRN = Lrn(5, 2.0, 1e-4, 0.75)
ALEXNET_LRN = Lrn(5, 1.0, 2e-5, 0.75)

# `alexnet` is torchvision's, so that torchvision's weights load; `alexnet_2012` is the original, on two GPUs' worth of
# groups, as Caffe and MatConvNet publish it. VGG-M and VGG-S are MatConvNet's imagenet-vgg-m and -s.
BACKBONES: dict[BackboneName, tuple[Layer, ...]] = {
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


def top_conv(backbone: BackboneName) -> Conv:
    """The backbone's last convolution, the one that becomes interpretable."""
    return next(layer for layer in reversed(BACKBONES[backbone]) if isinstance(layer, Conv))


def layers_of(backbone: BackboneName, variant: Variant) -> tuple[Layer, ...]:
    """Everything up to the last pooling; an interpretable network has one more convolution before that pooling."""
    layers = BACKBONES[backbone]
    if variant == "ordinary":
        return layers
    # M filters of 3 x 3 x M, padded, so that the map keeps its side.
    new = top_conv(backbone)._replace(name=NEW_LAYER, kernel=3, stride=1, pad=1, lrn=None, groups=1)
    return (*layers[:-1], new, layers[-1])


def scaled_channels(layer: Conv, width: float) -> int:
    """How many channels a layer keeps under the width multiplier."""
    return max(1, round(layer.channels * width / layer.multiple_of)) * layer.multiple_of


def map_sides(layers: Sequence[Layer], input_size: int) -> Iterator[tuple[str, int]]:
    """(layer name, side of its map) for a square input, input to output; a side below 1 means that nothing is left."""
    side = input_size
    for layer in layers:
        side = (side + sum(layer.pads) - layer.kernel) // layer.stride + 1
        yield layer.name, side


def map_side(backbone: BackboneName, layer: str, input_size: int) -> int:
    """Side n of the map of `layer`, which may be the new convolution of an interpretable network."""
    return dict(map_sides(layers_of(backbone, "interpretable"), input_size))[layer]


def smallest_input(backbone: BackboneName) -> int:
    """The smallest input of which something is left after the last pooling."""
    layers = BACKBONES[backbone]
    return next(size for size in count(1) if all(side > 0 for _, side in map_sides(layers, size)))


def check_input_size(backbone: BackboneName, input_size: int) -> None:
    """Raise SpecError when a map vanishes on the way."""
    for name, side in map_sides(BACKBONES[backbone], input_size):
        if side < 1:
            raise SpecError(
                f"`model.input_size` is {input_size}, but {backbone} has nothing left of such an image at {name}. "
                f"Use {smallest_input(backbone)} or more."
            )


def first_trained(backbone: BackboneName, freeze_below: str) -> str:
    """The layer at which training starts: a convolution's name, or `top_conv` for the backbone's last.

    `conv5` stands for `conv5_1` where a backbone numbers layers so. Every layer up to the backbone's top
    convolution may be named: the measured maps lie above it.
    """
    if freeze_below == "top_conv":
        return top_conv(backbone).name
    names = [layer.name for layer in BACKBONES[backbone] if isinstance(layer, Conv)]
    for name in names:
        if name == freeze_below or name.startswith(f"{freeze_below}_"):
            return name
    raise SpecError(
        f"`train.freeze_below` is {freeze_below!r}, which is no convolution of {backbone}. "
        f"{did_you_mean(freeze_below, ['top_conv', *names])}"
    )


def check_model(model: ModelSpec, freeze_below: str | None) -> None:
    """Raise SpecError for a network that cannot be built as asked."""
    check_input_size(model.backbone, model.input_size)
    if freeze_below is not None:
        first_trained(model.backbone, freeze_below)
