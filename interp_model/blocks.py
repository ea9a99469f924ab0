"""Building blocks of a network and their initialisation: one module per layer of the backbone table.

Shape legend: N images   F filters   H = W map side.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import reduce
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from interp_model.backbones import BACKBONES, FC_LAYERS, NEW_LAYER, Conv, Lrn, Pool, scaled_channels
from schemas.job import ModelSpec

NEW_LAYER_STD: Final = 0.01
"""Standard deviation of the weights of new layers in a network of the published size, as in the released code."""

PUBLISHED_FC_WIDTH: Final = 4096
"""Number of units of fc6 and of fc7 in the published networks."""

SCRATCH_GAIN: Final = 1.05
"""Gain on He initialisation in every layer of a backbone without trained weights.

The signal fades over VGG-16's thirteen layers, but not over AlexNet's five. Measured with gradient clipping at norm 1:
VGG-16 at width 0.125 and 64 px, trained for five epochs on 2,220 images of 37 generated animals, reached an accuracy
of 0.22 with a gain of 1.1 and of 0.13 with 1.0. AlexNet reached 0.69 with both 1.0 and 1.05.
"""

SCRATCH_OUTPUT_STD: Final = 0.05
"""Standard deviation of the last layer's weights in a network trained from scratch. Outputs start small, but large
enough for training to progress."""


class ResponseNorm(nn.Module):
    """MatConvNet's local response normalisation: y_i = x_i / (kappa + alpha sum_j x_j^2)^beta over an odd window.

    Replaces `torch.nn.LocalResponseNorm`, whose backward pass (a 3D pooling) is not deterministic on a GPU.
    """

    def __init__(self, lrn: Lrn) -> None:
        super().__init__()
        self.lrn = lrn

    def forward(self, x_NFHW: Tensor) -> Tensor:
        """Return the normalised maps: (N, F, H, W)."""
        lrn = self.lrn
        half_window = lrn.window // 2
        square_NFHW = functional.pad(x_NFHW.square(), (0, 0, 0, 0, half_window, half_window))
        window_NFHW = reduce(torch.add, (square_NFHW.narrow(1, i, x_NFHW.shape[1]) for i in range(lrn.window)))
        return x_NFHW / (lrn.kappa + lrn.alpha * window_NFHW) ** lrn.beta


def conv_block(layer: Conv, channels_in: int, width: float) -> tuple[nn.Sequential, int]:
    """Return convolution, ReLU and, where the layer has it, response normalisation; and the number of channels out.

    Args:
        layer: row of the backbone table.
        channels_in: number of channels of the input.
        width: multiplier of the layer's channel count.
    """
    channels = scaled_channels(layer, width)
    conv = nn.Conv2d(channels_in, channels, layer.kernel, layer.stride, layer.pad, groups=layer.groups)
    block = nn.Sequential(OrderedDict[str, nn.Module](conv=conv, relu=nn.ReLU()))
    if layer.lrn:
        block.add_module("lrn", ResponseNorm(layer.lrn))
    return block, channels


def pool_block(layer: Pool) -> nn.Module:
    """Return the max pooling of a row of the backbone table, with its padding."""
    pool = nn.MaxPool2d(layer.kernel, layer.stride)
    if not layer.pad_end:
        return pool
    # After ReLU, zero padding gives the same maxima as the -inf padding of MatConvNet's pooling.
    return nn.Sequential(nn.ZeroPad2d((0, layer.pad_end, 0, layer.pad_end)), pool)


def fc_blocks(features: int, n_outputs: int, model: ModelSpec) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return the fully connected layers fc6, fc7 and fc8.

    Args:
        features: number of features of the flattened map.
        n_outputs: number of logits.
        model: gives `fc_width` and `dropout`.
    """
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


def initialise(blocks: OrderedDict[str, nn.Module], model: ModelSpec, from_scratch: bool) -> None:
    """Set biases to 0 and draw weights from a Gaussian, with torch's global generator.

    Args:
        blocks: modules by layer name; changed in place. Those of another library's backbone are left out: they start as
            their library starts them.
        model: architecture.
        from_scratch: no layer will be loaded with trained weights, so new layers must learn as fast as the others.
    """
    # Local response normalisation scales a small signal by kappa^-beta.
    lrn_gain = {
        layer.name: layer.lrn.kappa**-layer.lrn.beta
        for layer in BACKBONES.get(model.backbone, ())
        if isinstance(layer, Conv) and layer.lrn
    }
    for name, block in blocks.items():
        gain = SCRATCH_GAIN / lrn_gain.get(name, 1.0)
        for parameter in block.parameters():
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            elif name == NEW_LAYER or name in FC_LAYERS:
                nn.init.normal_(parameter, std=_new_layer_std(name, parameter, model, from_scratch))
            else:
                nn.init.normal_(parameter, std=gain * _he_std(parameter))


def _new_layer_std(name: str, weight: Tensor, model: ModelSpec, from_scratch: bool) -> float:
    """Return the standard deviation of a new layer's weights.

    It is 0.01, as published, for the new convolution (unless `model.new_layer_std` says otherwise) and for all new
    layers of a network of the published size. Narrow fully connected layers on top of trained ones use torch's default
    scale, sqrt(1 / (3 fan-in)). With 0.01 they pass almost no signal. With He initialisation they learn in place of the
    filters below, and location instability of interpretable networks was a quarter higher (docs/filter-loss.md).
    """
    if name == NEW_LAYER and model.new_layer_std is not None:
        return _he_std(weight) if model.new_layer_std == "he" else model.new_layer_std
    is_published_size = model.width == 1 and model.fc_width == PUBLISHED_FC_WIDTH
    if is_published_size or name == NEW_LAYER:
        return NEW_LAYER_STD
    if not from_scratch:
        return float((1 / (3 * weight[0].numel())) ** 0.5)
    return SCRATCH_OUTPUT_STD if name == FC_LAYERS[-1] else _he_std(weight)


def _he_std(weight: Tensor) -> float:
    """Return He's standard deviation, which preserves the signal's variance through the layer and a ReLU."""
    return float((2 / weight[0].numel()) ** 0.5)
