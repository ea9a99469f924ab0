"""Networks: which blocks, which maps, what a mask does, what is frozen, how new layers start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from interp_model.backbones import VGG_LRN, top_conv
from interp_model.blocks import ResponseNorm
from interp_model.mask import peak_index
from interp_model.network import Network, build_network, to_input
from interp_model.parameter_groups import parameter_groups
from schemas.errors import SpecError
from schemas.job import BackboneName, ModelSpec, TrainSpec, Variant

NAMES: tuple[BackboneName, ...] = get_args(BackboneName)
VARIANTS: tuple[Variant, ...] = get_args(Variant)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def small(backbone: BackboneName = "alexnet", variant: Variant = "interpretable", **changes: Any) -> ModelSpec:
    sizes: dict[str, Any] = {"width": 0.05, "input_size": 80, "fc_width": 16, "dropout": 0.0}
    return ModelSpec(backbone=backbone, variant=variant, **(sizes | changes))


def images(size: int = 80, n: int = 2) -> Tensor:
    return torch.randn(n, 3, size, size)


@pytest.mark.parametrize("backbone", NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_network_answers_and_every_parameter_gets_a_gradient(backbone: BackboneName, variant: Variant) -> None:
    network = build_network(small(backbone, variant, width=0.2), n_outputs=3)
    output = network(images(n=4))
    assert output.logits.shape == (4, 3)
    output.logits.square().sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_blocks_are_named_in_order() -> None:
    names = list(build_network(small("alexnet", "interpretable"), 1).blocks)
    assert " ".join(names) == "conv1 pool1 conv2 pool2 conv3 conv4 conv5 conv6 pool5 fc6 fc7 fc8"
    assert "conv6" not in build_network(small("alexnet", "ordinary"), 1).blocks


@pytest.mark.parametrize("backbone", NAMES)
def test_an_ordinary_network_is_measured_on_its_top_convolution(backbone: BackboneName) -> None:
    network = build_network(small(backbone, "ordinary"), 1)
    assert (network.interpretable_layers, network.top_layer) == ((), top_conv(backbone).name)
    assert list(network(images()).maps) == [top_conv(backbone).name]


@pytest.mark.parametrize("backbone", NAMES)
def test_an_interpretable_network_is_measured_on_the_new_layer(backbone: BackboneName) -> None:
    network = build_network(small(backbone, "interpretable"), 1)
    assert network.interpretable_layers == (top_conv(backbone).name, "conv6")
    assert network.top_layer == "conv6"
    maps = network(images()).maps
    n = network.map_side("conv6")
    shape = (2, network.filters("conv6"), n, n)
    assert {name: tuple(x.shape) for name, x in maps.items()} == dict.fromkeys(network.interpretable_layers, shape)


@pytest.mark.parametrize("backbone", NAMES)
def test_shapes_of_the_published_size(backbone: BackboneName) -> None:
    with torch.device("meta"):
        network = build_network(ModelSpec(backbone=backbone, variant="interpretable"), 1)
    published = {"alexnet": (256, 6), "alexnet_2012": (256, 5), "vgg_m": (512, 6), "vgg_s": (512, 6), "vgg16": (512, 7)}
    channels, side = published[backbone]
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert shapes["blocks.conv6.conv.weight"] == (channels, channels, 3, 3)
    assert shapes["blocks.fc6.linear.weight"] == (4096, channels * side**2)
    assert shapes["blocks.fc7.linear.weight"] == (4096, 4096)
    assert shapes["blocks.fc8.linear.weight"] == (1, 4096)


@pytest.mark.parametrize("size", [63, 64, 97, 100, 224])
def test_any_input_size_fits_its_fully_connected_layer(size: int) -> None:
    network = build_network(small(input_size=size), 1)
    assert network(images(size)).logits.shape == (2, 1)


def test_an_input_of_which_nothing_is_left_is_refused_with_the_size_that_works() -> None:
    with pytest.raises(SpecError, match="Use 63 or more"):
        build_network(small(input_size=62), 1)


def test_maps_are_before_masking_and_the_mask_takes_away_what_is_far_from_the_peak() -> None:
    network = build_network(small(input_size=224), 1)
    seen: list[Tensor] = []
    network.blocks["conv6"].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    before = network(images(224)).maps["conv5"]
    (after,) = seen
    n = network.map_side("conv5")
    peak = peak_index(before)
    torch.testing.assert_close(after.flatten(2).amax(2), before.flatten(2).amax(2))  # the peak keeps its activation
    row, column = peak // n, peak % n
    axis = torch.arange(n)
    away = (axis[:, None] - row[..., None, None]).abs() + (axis - column[..., None, None]).abs()
    assert (after[away > n / 4] == 0).all()
    assert (before[away > n / 4] > 0).any()


def test_without_masks_the_network_is_a_plain_stack() -> None:
    masked = build_network(small(), 1)
    plain = build_network(small(mask=False), 1)
    plain.load_state_dict(masked.state_dict())
    x = images()
    torch.testing.assert_close(plain(x).logits, nn.Sequential(*masked.blocks.values())(x))
    assert not torch.equal(plain(x).logits, masked(x).logits)
    assert list(plain(x).maps) == ["conv5", "conv6"]


def test_maps_belong_to_the_graph() -> None:
    network = build_network(small(), 1)
    network(images()).maps["conv5"].sum().backward()
    weight = network.get_parameter("blocks.conv1.conv.weight")
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    assert network.get_parameter("blocks.conv6.conv.weight").grad is None  # conv5's map is taken below conv6


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("backbone", "layer"), [("alexnet", "conv5"), ("vgg16", "conv5"), ("vgg_m", "conv1")])
def test_lower_then_upper_is_the_whole_network(backbone: BackboneName, layer: str, variant: Variant) -> None:
    network = build_network(small(backbone, variant), 1)
    whole = network(images_ := images())
    network.freeze_below(layer)
    features = network.forward_trunk(images_)
    assert not features.requires_grad
    split = network.forward_head(features)
    torch.testing.assert_close(split.logits, whole.logits)
    assert list(split.maps) == list(whole.maps)


def test_freezing_keeps_lower_layers_and_trains_the_rest() -> None:
    network = build_network(small(), 1)
    network.freeze_below("conv5")
    before = {name: p.clone() for name, p in network.named_parameters()}
    optimiser = torch.optim.SGD(parameter_groups(network, TrainSpec()), lr=0.1)
    network(images()).logits.sum().backward()
    optimiser.step()
    moved = {name.split(".")[1] for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"conv5", "conv6", "fc6", "fc7", "fc8"}


def test_biases_do_not_decay_and_every_trained_parameter_is_in_one_group() -> None:
    network = build_network(small(), 1)
    decaying, free = parameter_groups(network, TrainSpec(weight_decay=5e-4))
    assert (decaying["weight_decay"], free["weight_decay"]) == (5e-4, 0)
    biases = {id(p) for name, p in network.named_parameters() if name.endswith(".bias")}
    assert {id(p) for p in free["params"]} == biases
    assert {id(p) for p in decaying["params"]} == {id(p) for p in network.parameters()} - biases


@pytest.mark.parametrize(("backbone", "top"), [("alexnet", "conv5"), ("vgg16", "conv5_3")])
def test_biases_may_learn_at_the_released_codes_rates(backbone: BackboneName, top: str) -> None:
    network = build_network(small(backbone), 1)
    groups = parameter_groups(network, TrainSpec(bias_lr_multiplier=5, new_bias_lr_multiplier=2))
    rate = {id(parameter): group["lr_multiplier"] for group in groups for parameter in group["params"]}
    found = {name.split(".", 1)[1]: rate[id(parameter)] for name, parameter in network.named_parameters()}
    not_one = {name: factor for name, factor in found.items() if factor != 1}
    new = ("conv6.conv", "fc6.linear", "fc7.linear", "fc8.linear")
    assert not_one == {f"{top}.conv.bias": 5} | {f"{name}.bias": 2 for name in new}
    assert len(found) == len(list(network.parameters()))
    assert {group["weight_decay"] for group in groups[1:]} == {0}


def test_new_layers_of_the_published_size_start_as_published() -> None:
    network = build_network(ModelSpec(backbone="alexnet", variant="interpretable", input_size=64), 1)
    for name in ("conv6.conv", "fc6.linear", "fc7.linear", "fc8.linear"):
        assert network.get_parameter(f"blocks.{name}.weight").std().item() == pytest.approx(0.01, rel=0.05)
        assert network.get_parameter(f"blocks.{name}.bias").abs().sum() == 0


@pytest.mark.parametrize(("std", "expected"), [(None, 0.01), (0.2, 0.2), ("he", (2 / (9 * 64)) ** 0.5)])
def test_the_new_layer_starts_as_the_spec_says(std: Any, expected: float) -> None:
    network = build_network(small(width=0.25, new_layer_std=std), 1)
    assert network.get_parameter("blocks.conv6.conv.weight").std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_narrow_network_passes_its_signal_on(variant: Variant) -> None:
    network = build_network(small("alexnet", variant, width=0.25, fc_width=64), 1)
    output = network(images(n=8))
    # 0.01 throughout gives maps of 1e-3 and less, and logits that are all one number.
    assert output.maps[network.top_layer].std() > 0.02
    assert output.logits.std() > 1e-3


def test_the_same_seed_gives_the_same_network() -> None:
    def fresh(seed: int) -> Network:
        torch.manual_seed(seed)
        return build_network(small(), 1)

    x = images()
    assert torch.equal(fresh(3)(x).logits, fresh(3)(x).logits)
    assert not torch.equal(fresh(3)(x).logits, fresh(4)(x).logits)


@pytest.mark.parametrize("backbone", NAMES)
def test_a_unit_looks_where_the_receptive_field_says(backbone: BackboneName) -> None:
    network = build_network(small(backbone, "ordinary", input_size=224, width=0.02), 1).double()
    layer = network.top_layer
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.1 * (parameter.ndim > 1))
    unit = network.map_side(layer) // 2
    image = torch.rand(1, 3, 224, 224, dtype=torch.float64, requires_grad=True)
    x: Tensor = image
    for name, block in network.blocks.items():
        x = _averaging(block)(x)
        if name == layer:
            break
    (gradient_13SS,) = torch.autograd.grad(x[0, 0, unit, unit], image)
    field = network.receptive_field(layer)
    for axis in gradient_13SS[0, 0].nonzero().T.double():
        assert axis.max() - axis.min() + 1 == field.size
        assert (axis + 0.5).mean().item() == pytest.approx(field.centre_of(unit), abs=1e-9)


def _averaging(block: nn.Module) -> nn.Module:
    """A maximum pooling passes a gradient to one unit only; its average passes it to all that it sees."""
    parts = [block] if isinstance(block, nn.MaxPool2d) else list(block.children())
    return nn.Sequential(
        *(nn.AvgPool2d(part.kernel_size, part.stride) if isinstance(part, nn.MaxPool2d) else part for part in parts)
    )


def test_padded_pooling_is_minus_infinity_padding() -> None:
    network = build_network(small("vgg_s", "ordinary"), 1)
    x = torch.rand(1, 2, 8, 8)
    unbounded = nn.functional.pad(x, (0, 2, 0, 2), value=-torch.inf)
    assert torch.equal(network.blocks["pool1"](x), nn.functional.max_pool2d(unbounded, 3, 3))


def test_local_response_normalisation_is_matconvnets() -> None:
    # y_i = x_i / (kappa + alpha * sum_{j in window of 5} x_j^2) ^ beta, alpha per element of the window
    network = build_network(small("vgg_m", "ordinary", width=0.1), 1)
    x = 30 * torch.rand(7, dtype=torch.float64)
    norm = network.blocks["conv1"].get_submodule("lrn")
    window_of_3 = x[1:6].square().sum()
    assert norm(x.view(1, 7, 1, 1))[0, 3].item() == pytest.approx((x[3] / (2 + 1e-4 * window_of_3) ** 0.75).item())


def test_input_is_centred_scaled_and_channels_first() -> None:
    pixels = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    pixels[0, 0, 1] = torch.tensor([255, 10, 0], dtype=torch.uint8)
    x = to_input(pixels, torch.full((2, 2, 3), 10.0))
    assert x.shape == (1, 3, 2, 2)
    torch.testing.assert_close(x[0, :, 0, 1] * 57.375, torch.tensor([245.0, 0.0, -10.0]))


REFUSED_ON_A_GPU = ("AvgPool3D", "AdaptiveAvgPool", "AdaptiveMaxPool", "FractionalMaxPool", "Upsample", "ReflectionPad")
"""Backward steps for which torch has no deterministic form on a GPU, where training would end in an error."""


@pytest.mark.parametrize("backbone", NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_backward_step_can_be_deterministic_on_a_gpu(backbone: BackboneName, variant: Variant) -> None:
    nodes, seen = [build_network(small(backbone, variant), 1)(images()).logits.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [below for below, _ in node.next_functions]
    steps = {node.name() for node in seen}
    assert any("MaxPool2D" in step for step in steps)
    assert [step for step in steps if step.startswith(REFUSED_ON_A_GPU)] == []


def test_local_response_normalisation_is_torch_s_with_alpha_per_element() -> None:
    x = (30 * torch.randn(2, 9, 4, 5, dtype=torch.float64)).requires_grad_()
    ours, torchs = ResponseNorm(VGG_LRN)(x), nn.LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0)(x)
    torch.testing.assert_close(ours, torchs)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, torchs)]
    torch.testing.assert_close(*gradients)
