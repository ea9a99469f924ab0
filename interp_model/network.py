"""Ordinary and interpretable networks, built from the backbone table as an ordered dict of named blocks.

Shape legend: N images   S input side   F filters   H = W = n map side   P = n*n masks   D features   O outputs.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from torch import Tensor, nn

from interp_model.backbones import (
    FC_LAYERS,
    NEW_LAYER,
    Conv,
    check_input_size,
    first_trained,
    layers_of,
    map_sides,
    top_conv,
)
from interp_model.blocks import conv_block, fc_blocks, initialise, pool_block
from interp_model.mask import apply_mask, peak_index
from interp_model.receptive_field import ReceptiveField, receptive_field
from interp_model.templates import mask_bank
from schemas.job import ModelSpec

PIXEL_SCALE: Final = 57.375
"""Divisor that brings mean-subtracted pixels to about unit variance: 255 times the mean of torchvision's `std`."""


class Output(NamedTuple):
    """Output of a forward pass."""

    logits: Tensor
    """Logits before softmax or sigmoid: (N, O)."""
    maps: dict[str, Tensor]
    """Layer -> maps after ReLU and before masking, (N, F, H, W), with gradients: the top convolution and every
    interpretable layer."""


def to_input(pixels_NSS3: Tensor, mean_SS3: Tensor) -> Tensor:
    """Normalise RGB images for a network: subtract the mean image and scale to about unit variance.

    Args:
        pixels_NSS3: images, 0 to 255.
        mean_SS3: mean image of the training set, 0 to 255; its dtype is that of the result.

    Returns:
        (N, 3, S, S), float.
    """
    return ((pixels_NSS3.to(mean_SS3.dtype) - mean_SS3) / PIXEL_SCALE).permute(0, 3, 1, 2).contiguous()


class Network(nn.Module):
    """A classifier whose top convolutions may be interpretable layers (Sec. 3); see `build_network`.

    Args:
        model: architecture.
        blocks: one module per layer, input to output.
        side: n, map side of the interpretable layers.
    """

    model: ModelSpec
    """Architecture."""
    blocks: nn.ModuleDict
    """Layer name -> module: convolution with ReLU and normalisation, pooling, or fully connected layer; in order."""
    interpretable_layers: tuple[str, ...]
    """Names of the masked layers; empty for an ordinary network."""
    measured_layers: tuple[str, ...]
    """Names of the layers whose maps `forward` returns."""
    first_trained_layer: str | None
    """First layer that is not frozen; None if the whole network is trained."""
    bank_PHW: Tensor
    """Masks of all peak positions, see `mask_bank`. Both interpretable layers have maps of the same side."""

    def __init__(self, model: ModelSpec, blocks: OrderedDict[str, nn.Module], side: int) -> None:
        super().__init__()
        self.model = model
        self.blocks = nn.ModuleDict(blocks)
        self._layers = layers_of(model.backbone, model.variant)
        backbone_top = top_conv(model.backbone).name
        self.interpretable_layers = (backbone_top, NEW_LAYER) if model.variant == "interpretable" else ()
        self.measured_layers = self.interpretable_layers or (backbone_top,)
        self.first_trained_layer = None
        # Derived from the map side, so not part of the state dict.
        self.register_buffer("bank_PHW", mask_bank(side), persistent=False)

    @property
    def top_layer(self) -> str:
        """Name of the layer whose filters are measured."""
        return self.measured_layers[-1]

    def map_side(self, layer: str) -> int:
        """Return n, the map side of a convolution or pooling, in units."""
        return dict(map_sides(self._layers, self.model.input_size))[layer]

    def filters(self, layer: str) -> int:
        """Return the number of filters of a convolution."""
        return self.get_parameter(f"blocks.{layer}.conv.bias").numel()

    def receptive_field(self, layer: str) -> ReceptiveField:
        """Return size, stride and centres of the receptive fields of a layer's units, in pixels."""
        return receptive_field(self._layers, layer)

    def freeze_below(self, layer: str) -> None:
        """Freeze all layers before `layer`; they become the trunk of `forward_trunk`.

        Convolutions compute the same in training and evaluation mode, so the trunk's features can be cached.

        Args:
            layer: a convolution's name, or `top_conv`.

        Raises:
            SpecError: the backbone has no such convolution.
        """
        self.first_trained_layer = first_trained(self.model.backbone, layer)
        for name in self._trunk_layers():
            self.blocks[name].requires_grad_(False)

    def forward(self, images_N3SS: Tensor) -> Output:
        """Return logits and maps of normalised images (see `to_input`)."""
        output: Output = self.forward_head(self.forward_trunk(images_N3SS))
        return output

    def forward_trunk(self, images_N3SS: Tensor) -> Tensor:
        """Return the features after the frozen layers, or the images themselves if no layer is frozen."""
        x = images_N3SS
        for name in self._trunk_layers():
            x = self.blocks[name](x)
        return x

    def forward_head(self, x: Tensor) -> Output:
        """Return logits and maps, computed by the trained layers from the output of `forward_trunk`."""
        maps: dict[str, Tensor] = {}
        for name in list(self.blocks)[len(self._trunk_layers()) :]:
            x = self.blocks[name](x)
            if name in self.measured_layers:
                maps[name] = x
            if name in self.interpretable_layers and self.model.mask:
                x = apply_mask(x, self.bank_PHW, peak_index(x.detach()))
        return Output(x, maps)

    def forward_classifier(self, x_NFHW: Tensor) -> Tensor:
        """Return logits (N, O) from the output of the measured layer.

        Args:
            x_NFHW: maps after ReLU and, in an interpretable layer, after the mask.
        """
        names = list(self.blocks)
        for name in names[names.index(self.top_layer) + 1 :]:
            x_NFHW = self.blocks[name](x_NFHW)
        return x_NFHW

    def _trunk_layers(self) -> list[str]:
        names = list(self.blocks)
        return names[: names.index(self.first_trained_layer)] if self.first_trained_layer else []


def build_network(model: ModelSpec, n_outputs: int, *, from_scratch: bool = False) -> Network:
    """Build a freshly initialised network (Sec. 5). Uses torch's global generator, so seed it first.

    Args:
        model: architecture.
        n_outputs: number of logits.
        from_scratch: no layer will be loaded with trained weights, so new layers must learn as fast as the others.

    Raises:
        SpecError: the input is too small for the backbone.
    """
    check_input_size(model.backbone, model.input_size)
    layers = layers_of(model.backbone, model.variant)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for layer in layers:
        if isinstance(layer, Conv):
            blocks[layer.name], channels = conv_block(layer, channels, model.width)
        else:
            blocks[layer.name] = pool_block(layer)
    sides = dict(map_sides(layers, model.input_size))
    features = channels * sides[layers[-1].name] ** 2
    for name, block in zip(FC_LAYERS, fc_blocks(features, n_outputs, model), strict=True):
        blocks[name] = block
    initialise(blocks, model, from_scratch)
    return Network(model, blocks, sides[top_conv(model.backbone).name])
