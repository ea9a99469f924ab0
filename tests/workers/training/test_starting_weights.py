"""Convolutions are loaded from the spec's source and verified, or the message says what to do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models import WeightsEnum

from interp_model.network import PIXEL_SCALE
from schemas.errors import CheckpointError, WeightsError
from schemas.job import FileWeights, JobSpec
from tests.support.toy import toy_network, toy_spec
from tests.support.weight_fixtures import torchvision_state
from workers.checkpoints.store import CheckpointStore
from workers.training.starting_weights import load_starting_weights, read_weights_file

PRETRAIN = {
    "source": "pretrain",
    "data": {"categories": ("voc_part/cat", "voc_part/dog"), "train_per_category": 4, "test_per_category": 2},
}


def conv1(spec: JobSpec, **sources: object) -> Tensor:
    network = toy_network(spec)
    load_starting_weights(network, spec, **({"upstream": None} | sources))  # type: ignore[arg-type]
    return network.state_dict()["blocks.conv1.conv.weight"]


def other_state() -> dict[str, Tensor]:
    return toy_network(toy_spec("ordinary", seed=9)).state_dict()


def test_random_weights_are_the_seeds() -> None:
    assert torch.equal(conv1(toy_spec()), toy_network(toy_spec()).state_dict()["blocks.conv1.conv.weight"])


def test_a_job_starts_from_its_upstream_jobs_checkpoint(tmp_path: Path) -> None:
    spec = toy_spec(weights=PRETRAIN)
    assert spec.upstream is not None
    state = other_state()
    pointer = CheckpointStore(tmp_path, spec.upstream.key).save(5, {"network": state})
    assert torch.equal(conv1(spec, upstream=pointer), state["blocks.conv1.conv.weight"])


def test_a_checkpoint_of_another_upstream_job_is_refused(tmp_path: Path) -> None:
    pointer = CheckpointStore(tmp_path, "0123456789ab").save(5, {"network": other_state()})
    with pytest.raises(CheckpointError, match="belongs to job 0123456789ab"):
        conv1(toy_spec(weights=PRETRAIN), upstream=pointer)


def test_a_job_that_was_sent_no_upstream_checkpoint_says_so() -> None:
    with pytest.raises(CheckpointError, match="was sent no checkpoint of it"):
        conv1(toy_spec(weights=PRETRAIN))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_weights_file_is_read_and_verified(tmp_path: Path, wrapped: bool) -> None:
    path, state = tmp_path / "weights.pth", other_state()
    torch.save({"state_dict": state} if wrapped else state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = toy_spec(weights=FileWeights(path=str(path), sha256=digest))
    assert torch.equal(conv1(spec), state["blocks.conv1.conv.weight"])
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match=f"but {digest[:12]}... was planned"):
        conv1(spec)


def test_safetensors_are_read(tmp_path: Path) -> None:
    first, second = torch.arange(6.0).reshape(2, 3), torch.tensor([7.0, 8.0], dtype=torch.float16)
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F16", "shape": [2], "data_offsets": [24, 28]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + first.numpy().tobytes() + second.numpy().tobytes())
    found = read_weights_file(path)
    assert torch.equal(found["a"], first)
    assert torch.equal(found["b"], second)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pth", None, "does not exist on this machine"),
        ("weights.h5", b"x", "orch weights import"),
        ("weights.pth", b"no archive", "cannot be read as tensors alone"),
        ("weights.safetensors", b"\x05\0\0\0\0\0\0\0{{{{{", "cannot be read as safetensors"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_weights_file(tmp_path / name)


def test_a_file_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="is not a state dict"):
        read_weights_file(tmp_path / "weights.pt")


def test_a_job_starts_from_a_wrapped_file_and_refuses_one_for_another_input(tmp_path: Path) -> None:
    path, width = tmp_path / "last.ckpt", toy_spec().model.width
    spec = toy_spec(weights=FileWeights(path=str(path)))
    state = torchvision_state("alexnet", width)
    torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()}}, path)
    red = state["features.0.weight"][:, 0] * PIXEL_SCALE / (255 * 0.229)
    torch.testing.assert_close(conv1(spec)[:, 0], red)
    torch.save(torchvision_state("alexnet", width, size=0.02), path)
    with pytest.raises(WeightsError, match=r"too small for torchvision's pixels.*orch weights import"):
        conv1(spec)


def test_code_in_a_weights_file_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> object:
            return (Path.touch, (ran,))

    torch.save({"a": Attack()}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="tensors alone"):
        read_weights_file(tmp_path / "weights.pt")
    assert not ran.exists()


def test_without_internet_torchvisions_weights_can_be_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    spec = toy_spec("ordinary", weights={"source": "torchvision"})
    target = tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth"
    with pytest.raises(WeightsError, match=rf"(?s)no route to host.*pytorch.org\S*{target.name} at {target}"):
        conv1(spec)
    torch.save(other_state(), target)
    with pytest.raises(WeightsError, match=r"not 7be5be79\.\.\.: it is damaged"):
        conv1(spec)


def test_torchvisions_own_loader_takes_a_file_from_its_cache_and_the_digest_in_its_name_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made.pth"
    network = torchvision.models.alexnet(weights=None)
    torch.save(network.state_dict(), made)
    name = f"alexnet-made-{hashlib.sha256(made.read_bytes()).hexdigest()[:8]}.pth"
    weights = dataclasses.replace(
        torchvision.models.AlexNet_Weights.DEFAULT.value, url=f"https://example.invalid/{name}"
    )

    class Local:
        DEFAULT = SimpleNamespace(url=weights.url, get_state_dict=partial(WeightsEnum.get_state_dict, weights))

    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: Local)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cached = tmp_path / "checkpoints" / name
    cached.parent.mkdir()
    made.rename(cached)
    spec = toy_spec("ordinary", model__width=1.0, weights={"source": "torchvision"})
    red = network.state_dict()["features.0.weight"][0, 0] * PIXEL_SCALE / (255 * 0.229)
    torch.testing.assert_close(conv1(spec)[0, 0], red)
    cached.write_bytes(cached.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match=rf"{name} has SHA-256 .*it is damaged\. Delete it"):
        conv1(spec)


def test_torchvision_has_no_vgg_m() -> None:
    with pytest.raises(WeightsError, match="no weights for vgg_m, only for alexnet, vgg16"):
        conv1(toy_spec("ordinary", model__backbone="vgg_m", weights={"source": "torchvision"}))
