"""Ordinary and interpretable networks, built from the backbone table as ordered, named blocks.

Shape legend: N images   S input side   F filters   H = W = n map side   P = n*n masks   D features   O outputs.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import reduce
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from interp_model.backbones import (
    BACKBONES,
    FC_LAYERS,
    NEW_LAYER,
    Conv,
    Lrn,
    Pool,
    check_input_size,
    first_trained,
    layers_of,
    map_sides,
    scaled_channels,
    top_conv,
)
from interp_model.mask import apply_mask, peak_index
from interp_model.receptive_field import ReceptiveField, receptive_field
from interp_model.templates import mask_bank
from schemas.job import ModelSpec, TrainSpec

PIXEL_SCALE: Final = 57.375
"""255 times torchvision's mean standard deviation: what brings mean-subtracted pixels to about unit variance."""

NEW_LAYER_STD: Final = 0.01
"""Of the gaussian from which new layers start in a network of the published size."""

PUBLISHED_FC_WIDTH: Final = 4096

SCRATCH_GAIN: Final = 1.05
"""Beside He's scale in every layer of a backbone without weights.

Thirteen layers lose a signal that five keep. With the gradient clipped at norm 1, VGG-16 at width 0.125 and 64 px told
37 generated animals apart with an accuracy of 0.22 after five epochs of 2,220 pictures from a gain of 1.1, and of 0.13
from 1.0; AlexNet reached the same 0.69 from 1.0 and from 1.05.
"""

SCRATCH_OUTPUT_STD: Final = 0.05
"""Of the last layer of a network that learns from scratch: outputs start small, but not so small that all stalls."""


class Output(NamedTuple):
    logits: Tensor
    """(N, O)."""
    maps: dict[str, Tensor]
    """(N, F, H, W) after ReLU and before masking, in the graph: the top convolution and every interpretable layer."""


def to_input(pixels_NSS3: Tensor, mean_SS3: Tensor) -> Tensor:
    """What a network takes: RGB bytes minus the mean image of the training set, at about unit variance.

    Returns:
        (N, 3, S, S), float.
    """
    return ((pixels_NSS3.to(mean_SS3.dtype) - mean_SS3) / PIXEL_SCALE).permute(0, 3, 1, 2).contiguous()


class ResponseNorm(nn.Module):
    """MatConvNet's local response normalisation: y_i = x_i / (kappa + alpha sum_j x_j^2)^beta over an odd window.

    Not torch's, whose backward step has no deterministic form on a GPU (it is that of a three-dimensional pooling).
    """

    def __init__(self, lrn: Lrn) -> None:
        super().__init__()
        self.lrn = lrn

    def forward(self, x_NFHW: Tensor) -> Tensor:
        lrn = self.lrn
        reach = lrn.window // 2
        square_NFHW = functional.pad(x_NFHW.square(), (0, 0, 0, 0, reach, reach))
        window_NFHW = reduce(torch.add, (square_NFHW.narrow(1, i, x_NFHW.shape[1]) for i in range(lrn.window)))
        return x_NFHW / (lrn.kappa + lrn.alpha * window_NFHW) ** lrn.beta


class Network(nn.Module):
    """A classifier whose top convolutions may be interpretable; `build_network` makes one from a spec."""

    bank_PHW: Tensor

    def __init__(self, model: ModelSpec, blocks: OrderedDict[str, nn.Module], side: int) -> None:
        super().__init__()
        self.model = model
        self.blocks = nn.ModuleDict(blocks)
        self.layers = layers_of(model.backbone, model.variant)
        backbone_top = top_conv(model.backbone).name
        self.interpretable_layers = (backbone_top, NEW_LAYER) if model.variant == "interpretable" else ()
        self.measured_layers = self.interpretable_layers or (backbone_top,)
        self.trunk_end: str | None = None
        # Both interpretable layers have maps of one side, so one bank serves both. It is derived: not in the state.
        self.register_buffer("bank_PHW", mask_bank(side), persistent=False)

    @property
    def top_layer(self) -> str:
        """The layer whose filters are measured."""
        return self.measured_layers[-1]

    def map_side(self, layer: str) -> int:
        """n of a convolution or pooling."""
        return dict(map_sides(self.layers, self.model.input_size))[layer]

    def filters(self, layer: str) -> int:
        """How many filters a convolution has."""
        return self.get_parameter(f"blocks.{layer}.conv.bias").numel()

    def receptive_field(self, layer: str) -> ReceptiveField:
        """Where on the image the units of `layer` look."""
        return receptive_field(self.layers, layer)

    def freeze_below(self, layer: str) -> None:
        """Keep the weights of every layer before `layer`; `forward_trunk` then ends there.

        Convolutions behave alike in training and evaluation, so the trunk's features may be computed once.
        """
        self.trunk_end = first_trained(self.model.backbone, layer)
        for name in self._lower():
            self.blocks[name].requires_grad_(False)

    def forward(self, images_N3SS: Tensor) -> Output:
        """Logits and maps of images as `to_input` makes them."""
        output: Output = self.forward_head(self.forward_trunk(images_N3SS))
        return output

    def forward_trunk(self, images_N3SS: Tensor) -> Tensor:
        """The frozen layers; the images themselves where nothing is frozen."""
        x = images_N3SS
        for name in self._lower():
            x = self.blocks[name](x)
        return x

    def forward_head(self, x: Tensor) -> Output:
        """The trained layers, from what `forward_trunk` gave."""
        maps: dict[str, Tensor] = {}
        for name in list(self.blocks)[len(self._lower()) :]:
            x = self.blocks[name](x)
            if name in self.measured_layers:
                maps[name] = x
            if name in self.interpretable_layers and self.model.mask:
                x = apply_mask(x, self.bank_PHW, peak_index(x.detach()))
        return Output(x, maps)

    def forward_classifier(self, x_NFHW: Tensor) -> Tensor:
        """Logits from what the measured layer hands on: its maps after ReLU and, where it has one, the mask."""
        names = list(self.blocks)
        for name in names[names.index(self.top_layer) + 1 :]:
            x_NFHW = self.blocks[name](x_NFHW)
        return x_NFHW

    def _lower(self) -> list[str]:
        names = list(self.blocks)
        return names[: names.index(self.trunk_end)] if self.trunk_end else []


def build_network(model: ModelSpec, n_outputs: int, *, from_scratch: bool = False) -> Network:
    """A freshly initialised network; raises SpecError when nothing is left of the image on the way.

    Draws from torch's global generator: seed it first.

    Args:
        from_scratch: no layer will be loaded with trained weights, so the new layers have to learn as fast as the rest.
    """
    check_input_size(model.backbone, model.input_size)
    layers = layers_of(model.backbone, model.variant)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for layer in layers:
        if isinstance(layer, Conv):
            blocks[layer.name], channels = _conv_block(layer, channels, model.width)
        else:
            blocks[layer.name] = _pool_block(layer)
    sides = dict(map_sides(layers, model.input_size))
    features = channels * sides[layers[-1].name] ** 2
    for name, block in zip(FC_LAYERS, _fc_blocks(features, n_outputs, model), strict=True):
        blocks[name] = block
    _initialise(blocks, model, from_scratch)
    return Network(model, blocks, sides[top_conv(model.backbone).name])


def parameter_groups(network: Network, train: TrainSpec) -> list[dict[str, Any]]:
    """What an optimiser trains: no frozen layer, and biases do not decay.

    Returns:
        Groups of torch's optimisers; `rate` is the factor of the learning rate, which is the trainer's to set.
    """
    weights: list[nn.Parameter] = []
    biases: dict[float, list[nn.Parameter]] = {}
    for name, block in network.blocks.items():
        for parameter in block.parameters():
            if not parameter.requires_grad:
                continue
            if parameter.ndim > 1:
                weights.append(parameter)
            else:
                biases.setdefault(_bias_rate(name, network.model, train), []).append(parameter)
    return [
        {"params": weights, "weight_decay": train.weight_decay, "rate": 1.0},
        *({"params": group, "weight_decay": 0.0, "rate": rate} for rate, group in biases.items()),
    ]


def _bias_rate(block: str, model: ModelSpec, train: TrainSpec) -> float:
    if block == top_conv(model.backbone).name:
        return train.bias_lr_multiplier
    return train.new_bias_lr_multiplier if block == NEW_LAYER or block in FC_LAYERS else 1.0


def _conv_block(layer: Conv, channels_in: int, width: float) -> tuple[nn.Sequential, int]:
    channels = scaled_channels(layer, width)
    conv = nn.Conv2d(channels_in, channels, layer.kernel, layer.stride, layer.pad, groups=layer.groups)
    block = nn.Sequential(OrderedDict[str, nn.Module](conv=conv, relu=nn.ReLU()))
    if layer.lrn:
        block.add_module("lrn", ResponseNorm(layer.lrn))
    return block, channels


def _pool_block(layer: Pool) -> nn.Module:
    pool = nn.MaxPool2d(layer.kernel, layer.stride)
    if not layer.pad_end:
        return pool
    # Zeros never win over what ReLU lets through, so zero padding is the -inf padding of MatConvNet's pooling.
    return nn.Sequential(nn.ZeroPad2d((0, layer.pad_end, 0, layer.pad_end)), pool)


def _fc_blocks(features: int, n_outputs: int, model: ModelSpec) -> tuple[nn.Module, nn.Module, nn.Module]:
    first = nn.Sequential(
        OrderedDict[str, nn.Module](
            flatten=nn.Flatten(),
            linear=nn.Linear(features, model.fc_width),
            relu=nn.ReLU(),
            dropout=nn.Dropout(model.dropout),
        )
    )
    second = nn.Sequential(
        OrderedDict[str, nn.Module](
            linear=nn.Linear(model.fc_width, model.fc_width), relu=nn.ReLU(), dropout=nn.Dropout(model.dropout)
        )
    )
    return first, second, nn.Sequential(OrderedDict[str, nn.Module](linear=nn.Linear(model.fc_width, n_outputs)))


def _initialise(blocks: OrderedDict[str, nn.Module], model: ModelSpec, from_scratch: bool) -> None:
    """Biases 0, weights gaussian: where the paper starts new layers, and where small networks train from scratch."""
    # kappa^-beta is what local response normalisation leaves of a small signal.
    through_lrn = {
        layer.name: layer.lrn.kappa**-layer.lrn.beta
        for layer in BACKBONES[model.backbone]
        if isinstance(layer, Conv) and layer.lrn
    }
    for name, block in blocks.items():
        gain = SCRATCH_GAIN / through_lrn.get(name, 1.0)
        for parameter in block.parameters():
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            elif name == NEW_LAYER or name in FC_LAYERS:
                nn.init.normal_(parameter, std=_new_layer_std(name, parameter, model, from_scratch))
            else:
                nn.init.normal_(parameter, std=gain * _he_std(parameter))


def _new_layer_std(name: str, weight: Tensor, model: ModelSpec, from_scratch: bool) -> float:
    """0.01 as published for the new convolution, and for all new layers of a network of the published size.

    Narrow fully-connected layers on top of trained ones start at torch's own scale, sqrt(1 / 3 fan-in). At 0.01 nothing
    passes through them; at He's scale they do the work that the filters below should learn, and location instability of
    interpretable networks was a quarter higher (docs/filter-loss.md).
    """
    is_published_size = model.width == 1 and model.fc_width == PUBLISHED_FC_WIDTH
    if is_published_size or name == NEW_LAYER:
        return NEW_LAYER_STD
    if not from_scratch:
        return float((1 / (3 * weight[0].numel())) ** 0.5)
    return SCRATCH_OUTPUT_STD if name == FC_LAYERS[-1] else _he_std(weight)


def _he_std(weight: Tensor) -> float:
    """Keeps the variance of what passes through the layer and a ReLU."""
    return float((2 / weight[0].numel()) ** 0.5)
