"""Any module, cut at a named layer, becomes ordinary or interpretable: one contract for eight families."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import convnext, densenet, efficientnet, mobilenetv3, resnet, squeezenet, vgg
from torchvision.models.convnext import CNBlockConfig
from torchvision.ops.misc import SqueezeExcitation

from interp_model import filter_losses, make_interpretable
from interp_model.backbones import NEW_LAYER
from interp_model.foreign.cut import cut
from interp_model.foreign.network import check_foreign
from interp_model.foreign.pools import DenseAvgPool2d, DenseMaxPool2d
from interp_model.network import Network
from interp_model.parameter_groups import parameter_groups
from schemas.errors import SpecError
from schemas.job import TrainSpec

SIDE = 96


def _resnet_d(pool: Callable[[], nn.Module] = lambda: nn.AvgPool2d(2, 2, ceil_mode=True)) -> nn.Module:
    """Return a ResNet whose shortcuts pool before a convolution of stride 1, as timm's `resnet18d`."""
    module = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)
    for layer in (module.layer2, module.layer3, module.layer4):
        conv, norm = layer[0].downsample
        conv.stride = (1, 1)
        layer[0].downsample = nn.Sequential(pool(), conv, norm)
    return module


def _mobilenet() -> nn.Module:
    config = mobilenetv3.InvertedResidualConfig
    blocks = [config(16, 3, 8, 8, True, "RE", 2, 1, 1), config(8, 3, 16, 12, False, "HS", 2, 1, 1)]
    return mobilenetv3.MobileNetV3(blocks, 16, num_classes=5)


def _efficientnet() -> nn.Module:
    blocks = [
        efficientnet.MBConvConfig(1, 3, 1, 32, 8, 1),
        efficientnet.MBConvConfig(4, 5, 2, 8, 12, 2),
        efficientnet.MBConvConfig(4, 3, 2, 12, 16, 1),
    ]
    for block in blocks:
        block.input_channels = min(block.input_channels, 32)
    return efficientnet.EfficientNet(blocks, dropout=0.2, stochastic_depth_prob=0.5, num_classes=5, last_channel=24)


FAMILIES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "ResNet": (lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5), "layer3"),
    "ResNet-D": (_resnet_d, "layer3"),
    "DenseNet": (lambda: densenet.DenseNet(4, (2, 2, 2), 8, num_classes=5), "features.norm5"),
    "VGG-BN": (
        lambda: nn.Sequential(
            OrderedDict(
                features=vgg.make_layers([8, "M", 8, 8, "M", 12, "M", 12, "M"], batch_norm=True),
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                classifier=nn.Linear(12, 5),
            )
        ),
        "features.16",
    ),
    "ConvNeXt": (
        lambda: convnext.ConvNeXt([CNBlockConfig(8, 12, 2), CNBlockConfig(12, None, 2)], 0.5, 1.0, 5),
        "features",
    ),
    "MobileNetV3": (_mobilenet, "features"),
    "EfficientNet": (_efficientnet, "features"),
    "SqueezeNet": (lambda: squeezenet.SqueezeNet("1_1", 5), "features.7"),
}
"""A small network of each family, and the layer at which it is cut."""

families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def made(family: str, **options: Any) -> Network:
    build, layer = FAMILIES[family]
    return make_interpretable(build(), layer, **({"input_size": SIDE, "outputs": 1, "fc_width": 8} | options))


def images(n: int = 4, side: int = SIDE) -> Tensor:
    return torch.randn(n, 3, side, side)


@families
def test_maps_have_the_shape_that_is_told_and_are_not_negative(family: str) -> None:
    network = made(family)
    logits, maps = network(images())
    assert logits.shape == (4, 1)
    assert list(maps) == list(network.interpretable_layers) == [network.facts.top, NEW_LAYER]
    for name, x_NFHW in maps.items():
        n = network.map_side(name)
        assert x_NFHW.shape == (4, network.filters(name), n, n)
        assert n >= 10
        assert x_NFHW.min() >= 0
        assert x_NFHW.max() > 0


@families
def test_the_ordinary_network_of_a_module_computes_what_the_module_computes(family: str) -> None:
    build, layer = FAMILIES[family]
    module = build().eval()
    seen: list[Tensor] = []
    hook = module.get_submodule(layer).register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        expected = module(x := images())
    hook.remove()
    network = make_interpretable(module, layer, input_size=SIDE, variant="ordinary", least_side=1).eval()
    with torch.no_grad():
        found = network(x)
    torch.testing.assert_close(found.maps[network.top_layer], seen[0].relu())
    if seen[0].min() >= 0:
        torch.testing.assert_close(found.logits, expected)


@families
def test_the_filter_loss_trains_the_new_layer_and_the_top_of_the_backbone(family: str) -> None:
    network = made(family)
    network.freeze_below("top_conv")
    x_N3SS, label_N = images(), torch.tensor([1, 1, 0, 0])
    maps = network(x_N3SS).maps
    total = sum((loss(maps[name], label_N) for name, loss in filter_losses(network).items()), torch.zeros(()))
    total.backward()  # type: ignore[no-untyped-call]
    trained = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {f"blocks.{NEW_LAYER}.conv.weight", f"blocks.{NEW_LAYER}.conv.bias"} <= trained
    assert any(name.startswith(f"blocks.{network.facts.top}.") for name in trained)
    frozen = [block for block in network.facts.blocks if block != network.facts.top]
    assert not any(name.startswith(tuple(f"blocks.{block}." for block in frozen)) for name in trained)


@families
def test_a_state_dict_makes_another_network_the_same(family: str) -> None:
    first, second = made(family).eval(), made(family).eval()
    second.load_state_dict(first.state_dict())
    x = images()
    assert torch.equal(first(x).logits, second(x).logits)


@families
def test_training_that_goes_on_from_a_saved_state_ends_with_the_same_bits(family: str) -> None:
    def start() -> tuple[Network, dict[str, Any], torch.optim.SGD]:
        torch.manual_seed(1)
        network = made(family, trains_statistics=True)
        losses: dict[str, Any] = dict(filter_losses(network))
        return network, losses, torch.optim.SGD(parameter_groups(network, TrainSpec()), lr=0.01, momentum=0.9)

    def step(network: Network, losses: dict[str, Any], optimiser: torch.optim.SGD, seed: int) -> None:
        torch.manual_seed(seed)
        output = network.train()(images())
        label_N = torch.tensor([1, 0, 1, 0])
        loss = nn.functional.softplus(output.logits[:, 0] * (1 - 2 * label_N)).mean()
        loss = loss + sum(0.01 * losses[name](x, label_N) for name, x in output.maps.items())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    whole, resumed = start(), start()
    step(*whole, 2)
    for part, saved in zip((resumed[0], resumed[2]), (whole[0], whole[2]), strict=True):
        part.load_state_dict(copy.deepcopy(saved.state_dict()))
    for name, loss in resumed[1].items():
        loss.load_state_dict(whole[1][name].state_dict())
    step(*whole, 3)
    step(*resumed, 3)
    ends = [parts[0].state_dict() for parts in (whole, resumed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not any(value.isnan().any() for value in ends[0].values())


@families
@pytest.mark.parametrize("least_side", [1, 40])
def test_a_unit_looks_where_the_receptive_field_says(family: str, least_side: int) -> None:
    build, layer = FAMILIES[family]
    module = _transparent(build()).double()
    found = cut(module, layer, input_size=448, least_side=least_side)
    unit = found.side // 2
    image = torch.rand(1, 3, 448, 448, dtype=torch.float64, requires_grad=True)
    x = image
    for block in found.blocks.values():
        x = block(x)
    (gradient_13SS,) = torch.autograd.grad(x[0, :, unit, unit].sum(), image)
    assert found.side >= least_side
    for axis in gradient_13SS[0].sum(0).nonzero().T.double():
        low, high = axis.min().item(), axis.max().item() + 1
        assert (low, high) == pytest.approx(
            (found.field.centre_of(unit) - found.field.size / 2, found.field.centre_of(unit) + found.field.size / 2)
        )


def _transparent(module: nn.Module) -> nn.Module:
    """Make every unit depend on all that it sees, with the same sign: no gate, no norm over channels, no maximum."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SqueezeExcitation | nn.LayerNorm | nn.GELU | nn.Hardswish | nn.SiLU):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                padding = nn.ZeroPad2d((0, 1, 0, 1)) if child.ceil_mode else nn.Identity()
                setattr(
                    parent, name, nn.Sequential(padding, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
                )
    for parameter in module.parameters():
        nn.init.constant_(parameter, 1 / parameter[0].numel() if parameter.ndim > 1 else 0.0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)
    return module


@families
def test_a_map_of_few_units_is_dilated_without_new_weights(family: str) -> None:
    build, layer = FAMILIES[family]
    module = build()
    plain, dilated = (cut(module, layer, input_size=SIDE, least_side=side) for side in (1, SIDE // 4))
    assert plain.side < SIDE // 4 <= dilated.side + 2
    assert dilated.field.stride < plain.field.stride
    shapes = [
        {name: value.shape for block in found.blocks.values() for name, value in block.state_dict().items()}
        for found in (plain, dilated)
    ]
    assert shapes[0] == shapes[1]


def test_a_dilated_network_computes_the_old_units_where_they_were() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 5, 3))
    plain, dilated = (cut(module, "4", input_size=63, least_side=side) for side in (1, 14))
    assert [found.side for found in (plain, dilated)] == [13, 25]
    x = y = images(2, 63)
    for one, other in zip(plain.blocks.values(), dilated.blocks.values(), strict=True):
        x, y = one(x), other(y)
    torch.testing.assert_close(x, y[:, :, ::2, ::2])


@pytest.mark.parametrize(
    ("pool", "side", "least_side"),
    [
        (lambda: nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), 96, 12),
        (lambda: nn.AvgPool2d(2, 2, ceil_mode=True), 72, 4),  # the last window is cut: of 9 units, 5 are made
        (lambda: nn.AvgPool2d(2), 96, 12),
        (lambda: nn.MaxPool2d(2, 2), 96, 12),
    ],
    ids=["ceil mode", "odd side", "no ceil mode", "maximum"],
)
def test_a_pooling_beside_a_strided_convolution_computes_the_old_units_where_they_were(
    pool: Callable[[], nn.Module], side: int, least_side: int
) -> None:
    module = _resnet_d(pool)
    plain, dilated = (cut(module, "layer4", input_size=side, least_side=least) for least in (1, least_side))
    factor = plain.field.stride // dilated.field.stride
    assert (plain.side, dilated.side, factor) == {12: (3, 12, 4), 4: (3, 5, 2)}[least_side]
    x = y = images(2, side)
    for one, other in zip(plain.blocks.values(), dilated.blocks.values(), strict=True):
        x, y = one(x), other(y)
    assert x.std() > 0
    torch.testing.assert_close(x, y[:, :, ::factor, ::factor])


@pytest.mark.parametrize(
    ("pool", "expected"), [(DenseAvgPool2d, [3.0, 4.0, 5.0, 6.0, 5.0]), (DenseMaxPool2d, [5.0, 6.0, 5.0, 6.0, 5.0])]
)
def test_a_dense_pooling_cuts_the_windows_that_leave_the_map(pool: type[DenseAvgPool2d], expected: list[float]) -> None:
    row = torch.tensor([1.0, 2.0, 5.0, 6.0, 5.0])
    found = pool((1, 2))
    found.dilation = (1, 2)
    torch.testing.assert_close(found(row[None, None, None])[0, 0, 0], torch.tensor(expected))


@families
def test_only_some_of_the_channels_can_be_kept(family: str) -> None:
    whole, half = made(family), made(family, filters=0.5)
    half.blocks[half.facts.top].load_state_dict(whole.blocks[whole.facts.top].state_dict())
    for name in whole.facts.blocks:
        half.blocks[name].load_state_dict(whole.blocks[name].state_dict())
    count = half.filters(NEW_LAYER)
    assert count == round(whole.filters(NEW_LAYER) / 2)
    x, top = images(), whole.facts.top
    torch.testing.assert_close(half.eval()(x).maps[top], whole.eval()(x).maps[top][:, :count])


@pytest.mark.parametrize("outputs", [1, None])
def test_normalisation_keeps_its_statistics_in_training_mode(outputs: int | None) -> None:
    network = made("ResNet", outputs=outputs)
    before = {name: value.clone() for name, value in network.named_buffers() if "running" in name}
    network.train()(images())
    assert before
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers() if name in before)


class OwnNorm(nn.BatchNorm2d):
    """A library's own normalisation, which torch.fx would trace into."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.relu(super().forward(input))


def test_normalisation_of_any_library_learns_its_statistics_from_nothing() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), OwnNorm(4), nn.Conv2d(4, 4, 3))
    network = make_interpretable(module, "2", input_size=SIDE, outputs=1, trains_statistics=True)
    network.train()(images())
    assert all(value.abs().sum() > 0 for name, value in network.named_buffers() if "running_mean" in name)


class Halves(nn.Module):
    """As in ShuffleNet, half of the channels pass by."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, dim=1)
        return torch.cat((one, self.conv(other)), dim=1)


def test_a_tensor_passes_from_block_to_block() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), Halves(), Halves())
    network = make_interpretable(module, "2", input_size=SIDE, outputs=1)
    assert network.facts.blocks == ("0", "1", "2")
    for block in network.facts.blocks[1:]:
        network.freeze_below(block)
        assert isinstance(network.forward_trunk(images()), Tensor)


class Pooled(nn.Module):
    """A functional pooling beside an attribute that it does not read."""

    stride = 2

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(self.conv(x), 16)


def test_a_stride_that_cannot_be_undone_stays() -> None:
    assert cut(nn.Sequential(Pooled(), nn.Conv2d(4, 4, 1)), "1", input_size=SIDE).side == 5


def test_a_network_that_cannot_be_built_without_values_is_checked_too() -> None:
    check_foreign("torchvision:regnet_y_400mf@stem", 64, None)


def test_blocks_follow_each_other_and_are_named_after_their_modules() -> None:
    network = made("ResNet")
    assert network.facts.blocks == ("conv1", "layer1_0", "layer2_0", "layer3_0")
    network.freeze_below("layer2")
    assert network.first_trained_layer == "layer2_0"
    x = images()
    torch.testing.assert_close(network.forward_head(network.forward_trunk(x)).logits, network(x).logits)
    deep = make_interpretable(resnet.ResNet(resnet.BasicBlock, [2, 2, 1, 1]), "layer2", input_size=SIDE, outputs=1)
    assert deep.facts.blocks == ("conv1", "layer1_0", "layer1_1", "layer2_0", "layer2_1")
    deep.freeze_below("layer2.1")
    assert deep.first_trained_layer == "layer2_1"
    with pytest.raises(SpecError, match="layer1_0"):
        deep.freeze_below("layer1_9")


def test_the_module_itself_is_left_alone() -> None:
    module = FAMILIES["ResNet"][0]()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    network = make_interpretable(module, "layer3", input_size=SIDE)
    nn.init.zeros_(network.get_parameter("blocks.conv1.conv1.weight"))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        return self.second(first).mean((2, 3)) + first.mean((2, 3))


class Misfit(nn.Module):
    """Two branches whose units agree at stride 2 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 2, 2), nn.Conv2d(3, 4, 3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x)


class OneByOne(nn.Module):
    """Calls the modules of a sequence, and never the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
        self.late = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.late(x).mean((2, 3))


class Choosing(OneByOne):
    """Depends on values after its stages, which torch.fx cannot trace."""

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return (self.late(x) if x.sum() > 0 else x).mean((2, 3))


def test_code_above_the_layer_need_not_be_traceable() -> None:
    network = make_interpretable(Choosing(), "stages.1", input_size=SIDE, outputs=1)
    assert network.facts.blocks == ("stages_0", "stages_1")
    assert network(images()).logits.shape == (4, 1)


@pytest.mark.parametrize(
    ("module", "layer", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 3, 3, 16, padding=1), Misfit(), nn.Conv2d(4, 4, 1)),
            "2",
            r"has 3 x 3 units on images of 96 px, and the strides of 1.one and 1.other cannot be undone",
        ),
        (nn.Sequential(Pooled(), nn.Conv2d(4, 4, 5)), "1", "has one unit on images of 96 px"),
        (OneByOne(), "stages", r"does not call its layer stages. Name the last one inside it: stages.1"),
        (Choosing(), "late", r"up to that layer cannot be traced by torch.fx .* an earlier layer such as stages.1, or"),
        (nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3))), "cnv", "no layer 'cnv'. Did you mean 'conv'"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), "1", "no square map"),
        (nn.Sequential(nn.Conv2d(3, 4, 99)), "0", "cannot be run on images of 96 px"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2)),
            "1",
            r"in 1 \(Upsample\) moves .* a layer before",
        ),
        (Branches(), "second", "give `outputs` for a new head"),
    ],
)
def test_a_module_that_cannot_be_cut_is_refused_with_the_reason(module: nn.Module, layer: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_interpretable(module, layer, input_size=SIDE)


def test_layers_above_stay_in_use_where_no_new_head_is_asked_for() -> None:
    module = FAMILIES["VGG-BN"][0]()
    network = make_interpretable(module, "features.16", input_size=SIDE)
    assert network(images()).logits.shape == (4, 5)
    assert list(network.blocks)[-2:] == [NEW_LAYER, "head"]
    assert all(a < b for a, b in pairwise(network.receptive_field(NEW_LAYER).centre_of(i) for i in range(5)))


def test_the_lines_of_the_page_run() -> None:
    page = (Path(__file__).parents[2] / "docs/backbones.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {}
    exec(code.replace("192", "96"), found)
    assert found["loss"].isfinite()
    assert list(found["losses"]) == list(found["maps"]) == ["layer4_1", NEW_LAYER]
