"""Starting from foreign weights: what is taken, what is left, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import Tensor, nn

from interp_model.backbones import BACKBONES, Conv
from interp_model.network import Network, build_network, to_input
from interp_model.weights import load_state_into
from schemas.errors import WeightsError
from schemas.job import BackboneName, ModelSpec, Variant


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def small(backbone: BackboneName = "alexnet", variant: Variant = "interpretable", width: float = 0.1) -> Network:
    return build_network(ModelSpec(backbone=backbone, variant=variant, width=width, input_size=80, fc_width=16), 1)


def backbone_of(network: Network) -> dict[str, Tensor]:
    names = {layer.name for layer in BACKBONES[network.facts.backbone] if isinstance(layer, Conv)}
    return {key: value.clone() for key, value in network.state_dict().items() if key.split(".")[1] in names}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_upstream_network_gives_its_convolutions_and_nothing_else(backbone: BackboneName) -> None:
    upstream, network = small(backbone, "ordinary"), small(backbone)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    load_state_into(network, upstream.state_dict())
    given = backbone_of(upstream)
    for key, value in network.state_dict().items():
        assert torch.equal(value, given.get(key, before[key])), key


@pytest.mark.parametrize("backbone", ["alexnet", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_torchvisions_weights_compute_torchvisions_features(backbone: BackboneName) -> None:
    theirs = getattr(torchvision.models, backbone)(weights=None).eval()
    ours = build_network(ModelSpec(backbone=backbone, variant="ordinary", input_size=64, fc_width=8), 1)
    load_state_into(ours, theirs.state_dict())
    pixels = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406])
    std = torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = theirs.features(((pixels / 255 - mean) / std).permute(0, 3, 1, 2))
        x = to_input(pixels, (255 * mean).expand(64, 64, 3))
        for name in list(ours.blocks)[:-3]:
            x = ours.blocks[name](x)
    torch.testing.assert_close(x, expected, rtol=1e-3, atol=1e-4)
    assert expected.std() > 0


def test_another_width_is_refused_naming_layer_and_shapes_and_changes_nothing() -> None:
    network = small(width=0.1)
    before = backbone_of(network)
    with pytest.raises(WeightsError, match=r"conv1 has shape \(13, 3, 11, 11\), expected \(6, 3, 11, 11\)"):
        load_state_into(network, small(width=0.2).state_dict())
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())


def test_a_missing_layer_is_named_and_nothing_is_changed() -> None:
    network = small()
    before = backbone_of(network)
    state = {key: value for key, value in small().state_dict().items() if "conv4.conv.bias" not in key}
    with pytest.raises(WeightsError, match="no bias for conv4 of alexnet"):
        load_state_into(network, state)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())


def test_weights_of_another_backbone_are_refused() -> None:
    with pytest.raises(WeightsError, match="no weight for conv1_1 of vgg16"):
        load_state_into(small("vgg16"), small("alexnet").state_dict())


def test_torchvision_has_no_vgg_m() -> None:
    with pytest.raises(WeightsError, match=r"torchvision has no vgg_m.*alexnet, vgg16"):
        load_state_into(small("vgg_m"), {"features.0.weight": torch.zeros(1)})


def test_loading_keeps_parameters_trainable_and_the_given_state_apart() -> None:
    upstream, network = small(), small()
    load_state_into(network, upstream.state_dict())
    nn.init.zeros_(network.get_parameter("blocks.conv1.conv.weight"))
    assert upstream.get_parameter("blocks.conv1.conv.weight").abs().sum() > 0
    assert all(parameter.requires_grad for parameter in network.parameters())
