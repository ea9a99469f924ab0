"""Receptive fields against published values, and against the gradient of a real network."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from interp_model.backbones import BACKBONES, Layer, layers_of, map_sides
from interp_model.receptive_field import receptive_field
from schemas.job import BackboneName

NAMES: tuple[BackboneName, ...] = get_args(BackboneName)


@pytest.mark.parametrize(
    ("backbone", "layer", "size", "stride"),
    [
        ("alexnet", "conv5", 163, 16),
        ("alexnet", "pool5", 195, 32),
        ("vgg_m", "conv5", 139, 16),
        ("vgg16", "conv5_3", 196, 16),
        ("vgg16", "pool5", 212, 32),
    ],
)
def test_published_sizes_and_strides(backbone: BackboneName, layer: str, size: int, stride: int) -> None:
    field = receptive_field(BACKBONES[backbone], layer)
    assert (field.size, field.stride) == (size, stride)


@pytest.mark.parametrize("backbone", NAMES)
def test_a_padded_3_by_3_layer_widens_the_field_and_leaves_its_centre(backbone: BackboneName) -> None:
    layers = layers_of(backbone, "interpretable")
    below, above = receptive_field(layers, layers[-3].name), receptive_field(layers, "conv6")
    assert above == below._replace(size=below.size + 2 * below.stride)


def test_an_unknown_layer_lists_those_that_exist() -> None:
    with pytest.raises(KeyError, match=r"no layer 'conv9'; this network has conv1, pool1, conv2"):
        receptive_field(BACKBONES["alexnet"], "conv9")


@pytest.mark.parametrize("backbone", NAMES)
@pytest.mark.parametrize("layer", ["first", "top", "conv6"])
def test_the_gradient_of_a_unit_covers_the_field_and_is_centred_on_it(backbone: BackboneName, layer: str) -> None:
    layers = layers_of(backbone, "interpretable")
    name = {"first": layers[0].name, "top": layers[-3].name, "conv6": "conv6"}[layer]
    field = receptive_field(layers, name)
    input_size = 224 if layer == "first" else 2 * field.size + 64
    unit = dict(map_sides(layers, input_size))[name] // 2
    reached_S = _influence(layers, name, input_size, unit).nonzero().flatten().double()
    pixel_centres = reached_S + 0.5
    assert (reached_S[-1] - reached_S[0] + 1).item() == field.size
    assert pixel_centres.mean().item() == field.centre_of(unit)


def test_the_first_unit_of_a_padded_layer_is_centred_where_the_arithmetic_says() -> None:
    # 11x11 stride 4 pad 2: unit 0 sees pixels -2..8, whose middle is pixel 3, centred at 3.5; pixels 0..8 exist.
    assert receptive_field(BACKBONES["alexnet"], "conv1").centre_of(0) == 3.5
    reached = _influence(BACKBONES["alexnet"], "conv1", 64, unit=0).nonzero().flatten()
    assert reached.tolist() == list(range(9))


def _influence(layers: tuple[Layer, ...], upto: str, input_size: int, unit: int) -> Tensor:
    """Gradient of a unit with respect to a one-channel image along its own row; all weights 1, poolings averaged.

    A row is enough: the table's layers are the same along both axes, so one-dimensional layers do it.
    """
    image = torch.ones(1, 1, input_size, dtype=torch.float64, requires_grad=True)
    x: Tensor = image
    for layer in layers:
        window = nn.Conv1d(1, 1, layer.kernel, layer.stride, bias=False, dtype=torch.float64)
        nn.init.constant_(window.weight, 1 / layer.kernel)
        x = window(nn.functional.pad(x, layer.pads))
        if layer.name == upto:
            break
    (gradient_11S,) = torch.autograd.grad(x[0, 0, unit], image)
    return gradient_11S[0, 0]
