"""Ordinary and interpretable networks as an ordered dict of named blocks, whatever their backbone is.

Shape legend: N images   S input side   F filters   H = W = n map side   P = n*n masks   D features   O outputs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from interp_model.backbones import (
    FC_LAYERS,
    NEW_LAYER,
    Conv,
    check_input_size,
    find_trained,
    layers_of,
    map_sides,
    scaled_channels,
)
from interp_model.blocks import conv_block, fc_blocks, initialise, pool_block
from interp_model.mask import apply_mask, peak_index
from interp_model.receptive_field import ReceptiveField, receptive_field
from interp_model.templates import mask_bank
from schemas.job import ModelSpec
from schemas.model_spec import foreign_name
from schemas.training_spec import LossKind

PIXEL_SCALE: Final = 57.375
"""Divisor that brings mean-subtracted pixels to about unit variance: 255 times the mean of torchvision's `std`."""


class Output(NamedTuple):
    """Output of a forward pass."""

    logits: Tensor
    """Logits before softmax or sigmoid: (N, O)."""
    maps: dict[str, Tensor]
    """Layer -> maps after ReLU and before masking, (N, F, H, W), with gradients: the top convolution and every
    interpretable layer."""


def to_input(pixels_NSS3: Tensor, mean_SS3: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Normalise RGB images for a network: subtract the mean image and scale to about unit variance.

    Args:
        pixels_NSS3: images, 0 to 255.
        mean_SS3: mean image of the training set, 0 to 255; its dtype is that of the result.
        layout: how the result lies in memory; with channels last nothing is copied.

    Returns:
        (N, 3, S, S), float.
    """
    centred_NSS3 = pixels_NSS3.to(mean_SS3.dtype) - mean_SS3
    return centred_NSS3.div_(PIXEL_SCALE).permute(0, 3, 1, 2).contiguous(memory_format=layout)


def output_probabilities(logits: Tensor, loss: LossKind) -> Tensor:
    """Return the softmax of logits over their last dimension, or the sigmoid of each (Sec. 5.1): same shape."""
    return logits.softmax(dim=-1) if loss == "softmax" else logits.sigmoid()


@dataclass(frozen=True)
class Facts:
    """What is known of a network beside its modules."""

    backbone: str
    """Name of the backbone, for messages."""
    input_size: int
    """Side of the square input, pixels."""
    blocks: tuple[str, ...]
    """Names of the backbone's blocks that have weights, input to output. The last one is the top convolution."""
    sides: Mapping[str, int]
    """Layer -> n, side of its map in units."""
    fields: Mapping[str, ReceptiveField]
    """Layer -> receptive fields of its units."""
    filters: Mapping[str, int]
    """Layer -> number of filters, of the layers that can be measured."""
    is_interpretable: bool
    """Whether the top convolution is an interpretable layer, with a second one on it."""
    mask: bool = True
    """Whether interpretable layers mask their maps."""
    width: float = 1.0
    """Multiplier of the channel counts of a backbone of the table."""
    trains_statistics: bool = False
    """Whether batch normalisation uses and learns the statistics of batches. Otherwise it keeps those it has."""

    @property
    def top(self) -> str:
        """Name of the backbone's top convolution."""
        return self.blocks[-1]


class Network(nn.Module):
    """A classifier whose top convolutions may be interpretable layers (Sec. 3).

    `build_network` makes one from a spec, `interp_model.make_interpretable` from any module.

    Args:
        facts: what is known beside the modules.
        blocks: one module per layer, input to output.
    """

    facts: Facts
    """What is known beside the modules."""
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

    def __init__(self, facts: Facts, blocks: OrderedDict[str, nn.Module]) -> None:
        super().__init__()
        self.facts = facts
        self.blocks = nn.ModuleDict(blocks)
        self.interpretable_layers = (facts.top, NEW_LAYER) if facts.is_interpretable else ()
        self.measured_layers = self.interpretable_layers or (facts.top,)
        self.first_trained_layer = None
        # Derived from the map side, so not part of the state dict.
        self.register_buffer("bank_PHW", mask_bank(facts.sides[facts.top]), persistent=False)

    @property
    def top_layer(self) -> str:
        """Name of the layer whose filters are measured."""
        return self.measured_layers[-1]

    @property
    def input_size(self) -> int:
        """Side of the square input, pixels."""
        return self.facts.input_size

    @property
    def masks(self) -> bool:
        """Whether interpretable layers mask their maps; False without such layers."""
        return bool(self.interpretable_layers) and self.facts.mask

    def map_side(self, layer: str) -> int:
        """Return n, the map side of a convolution or pooling, in units."""
        return self.facts.sides[layer]

    def filters(self, layer: str) -> int:
        """Return the number of filters of a measured layer."""
        return self.facts.filters[layer]

    def receptive_field(self, layer: str) -> ReceptiveField:
        """Return size, stride and centres of the receptive fields of a layer's units, in pixels.

        Raises:
            KeyError: no layer has that name; the message lists the valid names.
        """
        if layer not in self.facts.fields:
            raise KeyError(f"no layer {layer!r}; this network has {', '.join(self.facts.fields)}")
        return self.facts.fields[layer]

    def freeze_below(self, layer: str) -> None:
        """Freeze all layers before `layer`; they become the trunk of `forward_trunk`.

        Convolutions compute the same in training and evaluation mode, and frozen batch normalisation keeps its
        statistics, so the trunk's features can be cached.

        Args:
            layer: a convolution's name, or `top_conv`.

        Raises:
            SpecError: the backbone has no such convolution.
        """
        self.first_trained_layer = find_trained(self.facts.blocks, layer, self.facts.backbone)
        for name in self._trunk_layers():
            self.blocks[name].requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode. Batch normalisation that keeps its statistics stays in evaluation mode."""
        super().train(mode)
        frozen = self._trunk_layers()
        for name, block in self.blocks.items():
            if name in frozen or not self.facts.trains_statistics:
                for module in block.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

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
            x = self._masked(name, x)
        return Output(x, maps)

    def forward_measured(self, x: Tensor) -> Tensor:
        """Return the measured layer's output from the output of `forward_trunk`, without computing the layers above.

        Returns:
            (N, F, H, W), after ReLU and the mask if the layer has one (Sec. 5.2.1).
        """
        return self._masked(self.top_layer, self.forward_unmasked(x))

    def forward_unmasked(self, x: Tensor) -> Tensor:
        """Return what `forward_measured` returns, before the mask of the measured layer."""
        names = list(self.blocks)
        for name in names[len(self._trunk_layers()) : names.index(self.top_layer)]:
            x = self._masked(name, self.blocks[name](x))
        unmasked: Tensor = self.blocks[self.top_layer](x)
        return unmasked

    def forward_classifier(self, x_NFHW: Tensor) -> Tensor:
        """Return logits (N, O) from the output of the measured layer.

        Args:
            x_NFHW: maps after ReLU and, in an interpretable layer, after the mask.
        """
        names = list(self.blocks)
        for name in names[names.index(self.top_layer) + 1 :]:
            x_NFHW = self.blocks[name](x_NFHW)
        return x_NFHW

    def trunk(self) -> dict[str, nn.Module]:
        """Return the frozen layers, input to output; empty if the whole network is trained."""
        return {name: self.blocks[name] for name in self._trunk_layers()}

    def head(self) -> dict[str, nn.Module]:
        """Return the trained layers, input to output."""
        frozen = self._trunk_layers()
        return {name: block for name, block in self.blocks.items() if name not in frozen}

    def _masked(self, layer: str, x: Tensor) -> Tensor:
        """Return the output of a layer after its mask, if it has one."""
        if layer in self.interpretable_layers and self.facts.mask:
            return apply_mask(x, self.bank_PHW, peak_index(x))
        return x

    def _trunk_layers(self) -> list[str]:
        names = list(self.blocks)
        return names[: names.index(self.first_trained_layer)] if self.first_trained_layer else []


def build_network(model: ModelSpec, n_outputs: int, *, from_scratch: bool = False) -> Network:
    """Build a freshly initialised network (Sec. 5). Uses torch's global generator, so seed it first.

    Args:
        model: architecture.
        n_outputs: number of logits.
        from_scratch: no layer will be loaded with trained weights, so new layers must learn as fast as the others, and
            batch normalisation must learn its statistics.

    Raises:
        SpecError: the input is too small for the backbone, or another library's backbone cannot be built or cut.
    """
    if name := foreign_name(model.backbone):
        from interp_model.foreign.network import build_foreign

        return build_foreign(model, name, n_outputs, from_scratch=from_scratch)
    check_input_size(model.backbone, model.input_size)
    layers = layers_of(model.backbone, model.variant)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for layer in layers:
        if isinstance(layer, Conv):
            blocks[layer.name], channels = conv_block(layer, channels, model.width)
        else:
            blocks[layer.name] = pool_block(layer)
    facts = _facts(model)
    features = channels * facts.sides[layers[-1].name] ** 2
    for name_, block in zip(FC_LAYERS, fc_blocks(features, n_outputs, model), strict=True):
        blocks[name_] = block
    initialise(blocks, model, from_scratch)
    return Network(facts, blocks)


def _facts(model: ModelSpec) -> Facts:
    """Compute what is known of a network of the table."""
    layers = layers_of(model.backbone, model.variant)
    convolutions = [layer for layer in layers if isinstance(layer, Conv)]
    return Facts(
        backbone=model.backbone,
        input_size=model.input_size,
        blocks=tuple(layer.name for layer in convolutions if layer.name != NEW_LAYER),
        sides=dict(map_sides(layers, model.input_size)),
        fields={layer.name: receptive_field(layers, layer.name) for layer in layers},
        filters={layer.name: scaled_channels(layer, model.width) for layer in convolutions},
        is_interpretable=model.variant == "interpretable",
        mask=model.mask,
        width=model.width,
    )
