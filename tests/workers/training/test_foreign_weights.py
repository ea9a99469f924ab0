"""Weights of torchvision, of a package, of a file and of an upstream job in networks of other libraries."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import SqueezeNet1_1_Weights, get_model

from interp_model.foreign import sources
from interp_model.network import Network, to_input
from interp_model.weights import TORCHVISION_STD
from schemas.errors import WeightsError
from schemas.job import JobSpec
from schemas.model_spec import foreign_name
from tests.support.toy import run_epochs, toy_network, toy_spec, toy_trainer, weights_of
from workers.checkpoints.store import CheckpointStore
from workers.training.starting_weights import load_starting_weights

SQUEEZE = "torchvision:squeezenet1_1@features.4"
RESNET = "torchvision:resnet18@layer1"


def spec_of(backbone: str, weights: Any = None, **changes: Any) -> JobSpec:
    fields = {"model__width": 0.125, "weights": weights or {"source": "random"}} | changes
    return toy_spec(model__backbone=backbone, **fields)


def loaded(spec: JobSpec, **sources_: Any) -> Network:
    network = toy_network(spec)
    load_starting_weights(network, spec, **({"upstream": None} | sources_))
    return network


@pytest.fixture(scope="module")
def squeeze(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A SqueezeNet, and the file in which torchvision would publish it, at half precision."""
    torch.manual_seed(5)
    module = get_model("squeezenet1_1", weights=None).half().eval()
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(OrderedDict(module.state_dict()), path)
    return module.double(), path


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_in_the_librarys_names_gives_the_librarys_map(
    squeeze: tuple[nn.Module, Path], tmp_path: Path, wrapped: bool
) -> None:
    module, path = squeeze
    if wrapped:
        state = torch.load(path, weights_only=True)
        path = tmp_path / "wrapped.pt"
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, path)
    network = loaded(spec_of(SQUEEZE, {"source": "file", "path": str(path)}, model__width=1.0)).double().eval()
    pixels_NSS3 = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    mean_3 = torch.tensor([120.0, 110.0, 100.0], dtype=torch.float64)
    ours = network(to_input(pixels_NSS3, mean_3.expand(64, 64, 3))).maps[network.facts.top]
    std_3 = 255 * torch.tensor(TORCHVISION_STD, dtype=torch.float64)
    x: Tensor = ((pixels_NSS3 - mean_3) / std_3).permute(0, 3, 1, 2)
    for layer in list(module.features.children())[:5]:  # type: ignore[union-attr]
        x = layer(x)
    assert ours.shape == x.shape  # 15 units, so nothing is dilated
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-6)  # kernels are converted in single precision


def test_torchvisions_own_loader_gives_the_weights_of_any_of_its_networks(
    squeeze: tuple[nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = squeeze[1].read_bytes()
    name = f"squeezenet1_1-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    weights = torchvision.models._api.Weights(
        url=f"https://example.invalid/{name}", transforms=lambda: None, meta=SqueezeNet1_1_Weights.DEFAULT.meta
    )

    class Local(torchvision.models.WeightsEnum):
        DEFAULT = weights

    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: Local)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    spec = spec_of(SQUEEZE, {"source": "torchvision"})
    with pytest.raises(WeightsError, match=f"put https://example.invalid/{name} at .*{name}"):
        loaded(spec)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True, exist_ok=True)
    (tmp_path / "hub" / "checkpoints" / name).write_bytes(content)
    found = loaded(spec).state_dict()["blocks.features_3_squeeze.features.3.squeeze.weight"]
    torch.testing.assert_close(found, squeeze[0].state_dict()["features.3.squeeze.weight"].float())


@pytest.mark.parametrize("network", ["googlenet", "inception_v3", "efficientnet_v2_l", "mobilenet_v2"])
def test_the_deviations_are_those_that_torchvisions_weights_take(network: str) -> None:
    name = foreign_name(f"torchvision:{network}@features")
    assert name
    expected = TORCHVISION_STD if network == "mobilenet_v2" else (0.5, 0.5, 0.5)
    assert sources.input_std(name) == expected


def test_a_network_without_published_weights_is_refused_with_the_alternatives(tmp_path: Path) -> None:
    timm_, table = foreign_name("timm:resnet18@layer1"), foreign_name(SQUEEZE)
    for name in (timm_, table):
        assert name
        with pytest.raises(WeightsError, match=r"No package carries ImageNet weights.*lite:efficientnet_lite0"):
            sources.packaged_weights(name)


@pytest.mark.parametrize("change", ["shape", "missing", "nan"])
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(
    squeeze: tuple[nn.Module, Path], tmp_path: Path, change: str
) -> None:
    state = dict(torch.load(squeeze[1], weights_only=True))
    key = "features.3.squeeze.weight"
    if change == "missing":
        del state[key]
    else:
        state[key] = state[key][:1] if change == "shape" else state[key] * float("nan")
    torch.save(state, tmp_path / "bad.pth")
    spec = spec_of(SQUEEZE, {"source": "file", "path": str(tmp_path / "bad.pth")})
    network = toy_network(spec)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=key):
        load_starting_weights(network, spec, None)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_pre_training_hands_on_weights_and_statistics(tmp_path: Path) -> None:
    data = {"categories": ("voc_part/cat", "voc_part/dog"), "train_per_category": 4, "test_per_category": 2}
    spec = spec_of(RESNET, {"source": "pretrain", "data": data})
    upstream = spec.upstream
    assert upstream
    trainer = run_epochs(toy_trainer(spec_of(RESNET, variant="ordinary", train__epochs=1)), 1)
    state = weights_of(trainer)
    statistics = {name: value for name, value in state.items() if name.endswith("running_mean")}
    assert any(value.abs().sum() > 0 for value in statistics.values())  # learned, as the network starts from nothing
    pointer = CheckpointStore(tmp_path, upstream.key).save(1, {"network": state})
    network = loaded(spec, upstream=pointer)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in statistics.items())
    assert torch.equal(network.state_dict()["blocks.conv1.conv1.weight"], state["blocks.conv1.conv1.weight"])


@pytest.mark.parametrize("backbone", [SQUEEZE, RESNET])
def test_a_job_that_resumes_ends_with_the_same_bits(backbone: str) -> None:
    spec = spec_of(backbone, train__epochs=2, train__freeze_below="top_conv")
    whole = run_epochs(toy_trainer(spec, keep=True), 2)
    half = run_epochs(toy_trainer(spec, keep=True), 1)
    resumed = toy_trainer(spec, keep=True)
    resumed.load_state_dict(half.state_dict())
    run_epochs(resumed, 1)
    one, other = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_efficientnet_lites_package_gives_the_published_network() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra [imagenet]")
    name = foreign_name("lite:efficientnet_lite0@_blocks.4")
    assert name
    spec = spec_of(str(name), {"source": "imagenet"}, model__width=1.0)
    network = loaded(spec).double().eval()
    module = sources.build_module(name, 64).double().eval()
    module.load_state_dict(torch.load(sources.packaged_weights(name), weights_only=True))
    pixels_NSS3 = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    mean_SS3 = torch.full((64, 64, 3), 127.0, dtype=torch.float64)
    ours = network(to_input(pixels_NSS3, mean_SS3)).maps[network.facts.top]
    x = ((pixels_NSS3 - 127.0) / (255 * 0.502)).permute(0, 3, 1, 2).double()
    seen: list[Tensor] = []
    module.get_submodule("_blocks.4").register_forward_hook(lambda _, __, out: seen.append(out))
    module(x)
    # The map of 8 units was dilated to 16: every second of them is where it was.
    assert ours.shape[-1] == 2 * seen[0].shape[-1]
    torch.testing.assert_close(ours[:, :, 1::2, 1::2], seen[0].relu(), rtol=1e-5, atol=1e-6)
