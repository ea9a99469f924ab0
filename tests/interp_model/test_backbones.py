"""The backbone table and its arithmetic, against sizes that are published or drawn on paper."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from interp_model.backbones import (
    BACKBONES,
    Conv,
    check_input_size,
    check_model,
    first_trained,
    layers_of,
    map_side,
    map_sides,
    scaled_channels,
    smallest_input,
    top_conv,
)
from schemas.errors import SpecError
from schemas.job import BackboneName, ModelSpec

NAMES: tuple[BackboneName, ...] = get_args(BackboneName)


def test_the_table_and_the_spec_name_the_same_backbones() -> None:
    assert set(BACKBONES) == set(NAMES)


@pytest.mark.parametrize(
    ("backbone", "top", "last_pool"), [("alexnet", 13, 6), ("vgg_m", 13, 6), ("vgg_s", 17, 6), ("vgg16", 14, 7)]
)
def test_maps_at_224_have_the_published_sides(backbone: BackboneName, top: int, last_pool: int) -> None:
    assert map_side(backbone, top_conv(backbone).name, 224) == top
    assert map_side(backbone, "conv6", 224) == top
    assert map_side(backbone, "pool5", 224) == last_pool


def test_the_original_alexnet_has_its_13_by_13_maps_at_227() -> None:
    assert [map_side("alexnet_2012", layer, 227) for layer in ("conv1", "conv2", "conv5", "pool5")] == [55, 27, 13, 6]


@pytest.mark.parametrize("width", [0.01, 0.05, 0.3, 1.0])
def test_groups_divide_the_channels_at_every_width(width: float) -> None:
    channels = 3
    for layer in BACKBONES["alexnet_2012"]:
        if isinstance(layer, Conv):
            assert channels % layer.groups == scaled_channels(layer, width) % layer.groups == 0
            channels = scaled_channels(layer, width)


@pytest.mark.parametrize("backbone", NAMES)
def test_the_new_layer_sits_between_the_top_convolution_and_the_last_pooling(backbone: BackboneName) -> None:
    names = [layer.name for layer in layers_of(backbone, "interpretable")]
    assert names[-3:] == [top_conv(backbone).name, "conv6", "pool5"]
    assert [name for name in names if name != "conv6"] == [layer.name for layer in layers_of(backbone, "ordinary")]


def test_vgg16_has_the_usual_thirteen_convolutions() -> None:
    convs = [layer for layer in BACKBONES["vgg16"] if isinstance(layer, Conv)]
    assert [conv.channels for conv in convs] == [64, 64, 128, 128, 256, 256, 256] + [512] * 6


@pytest.mark.parametrize("backbone", NAMES)
def test_the_smallest_input_named_works_and_one_pixel_less_does_not(backbone: BackboneName) -> None:
    smallest = smallest_input(backbone)
    check_input_size(backbone, smallest)
    assert min(side for _, side in map_sides(BACKBONES[backbone], smallest)) == 1
    with pytest.raises(SpecError, match=f"Use {smallest} or more"):
        check_input_size(backbone, smallest - 1)


def test_a_vanishing_map_is_named_with_the_size_that_works() -> None:
    with pytest.raises(SpecError, match=r"input_size` is 48, .* too small for alexnet: .* at pool5\. Use 63 or more"):
        check_model(ModelSpec(backbone="alexnet", variant="ordinary", input_size=48), None)


@pytest.mark.parametrize(
    ("backbone", "asked", "first"),
    [("alexnet", "conv5", "conv5"), ("vgg16", "conv5", "conv5_1"), ("vgg16", "conv5_2", "conv5_2")],
)
def test_a_block_of_layers_may_be_named_by_its_number(backbone: BackboneName, asked: str, first: str) -> None:
    assert first_trained(backbone, asked) == first


@pytest.mark.parametrize("asked", ["conv6", "fc6", "pool5", "cnov5"])
def test_freezing_below_anything_but_a_backbone_convolution_is_refused(asked: str) -> None:
    model = ModelSpec(backbone="alexnet", variant="interpretable")
    with pytest.raises(SpecError, match=rf"freeze_below` is '{asked}'.*conv1, conv2, conv3, conv4, conv5"):
        check_model(model, asked)


def test_the_planner_may_ask_without_loading_torch() -> None:
    code = "import sys, interp_model.backbones, interp_model.receptive_field; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
