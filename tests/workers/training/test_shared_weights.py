"""Weights files that a machine lacks: from the object store, or a reason to run elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from interp_model.network import build_network
from schemas.errors import DataAbsent, ObjectDamaged, WeightsError
from schemas.job import DataSpec, FileWeights, JobSpec, ModelSpec
from schemas.lifecycle import StopReason
from workers.files import sha256_of
from workers.job import stop_reason_of
from workers.objects.folder import FolderObjects
from workers.training.shared_weights import (
    FOLDER,
    SharedWeights,
    file_key,
    push_file,
    push_torchvision,
    torchvision_file,
    torchvision_key,
)
from workers.training.starting_weights import load_starting_weights

DATA = DataSpec(categories=("voc_part/cat",), train_per_category=2, test_per_category=2)
MODEL = ModelSpec(variant="ordinary", backbone="alexnet", width=0.125, input_size=64, fc_width=64)


@pytest.fixture
def weights(tmp_path: Path) -> FileWeights:
    path = tmp_path / "driver/alexnet.pt"
    path.parent.mkdir()
    torch.manual_seed(7)
    torch.save(build_network(MODEL, 1).state_dict(), path)
    return FileWeights(path=str(path), sha256=sha256_of(path))


@pytest.fixture
def store(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "store")


def shared(store: FolderObjects | None, home: Path) -> SharedWeights:
    return SharedWeights(store, home / "weights", 0.0, lambda _: None)


def started(weights: FileWeights, source: SharedWeights | None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = build_network(MODEL, 1)
    load_starting_weights(network, JobSpec(data=DATA, model=MODEL, weights=weights), None, source)
    return network.state_dict()


def test_a_network_starts_from_the_same_weights_where_the_file_was_pulled(
    weights: FileWeights, store: FolderObjects, tmp_path: Path
) -> None:
    here = started(weights, None)
    assert push_file(store, weights) == Path(weights.path).stat().st_size
    assert push_file(store, weights) == 0
    Path(weights.path).unlink()
    assert push_file(store, weights) == 0  # a driver without the file needs only the store
    for _ in range(2):
        there = started(weights, shared(store, tmp_path / "node"))
        assert all(torch.equal(here[name], there[name]) for name in here)
        store.delete([file_key(weights.sha256)])  # the second time it is in the node's home
    assert [path.name for path in (tmp_path / "node/weights" / FOLDER).glob("*.pt")] == [f"{weights.sha256}.pt"]


@pytest.mark.parametrize("has_store", [True, False])
def test_a_file_that_is_nowhere_is_absent_and_no_bad_spec(
    has_store: bool, weights: FileWeights, store: FolderObjects, tmp_path: Path
) -> None:
    Path(weights.path).unlink()
    with pytest.raises(DataAbsent, match=r"lacks the weights file .*alexnet\.pt") as caught:
        started(weights, shared(store if has_store else None, tmp_path / "node"))
    assert stop_reason_of(caught.value) is StopReason.DATA_ABSENT
    with pytest.raises(WeightsError, match="neither on this machine nor in"):
        push_file(store, weights)


def test_another_file_at_the_path_is_bad_and_not_pushed(
    weights: FileWeights, store: FolderObjects, tmp_path: Path
) -> None:
    torch.save({}, weights.path)
    with pytest.raises(WeightsError, match="was planned"):
        started(weights, shared(store, tmp_path / "node"))
    with pytest.raises(ObjectDamaged):
        push_file(store, weights)
    assert store.size(file_key(weights.sha256)) is None


def test_a_damaged_copy_in_the_store_is_not_used(weights: FileWeights, store: FolderObjects, tmp_path: Path) -> None:
    push_file(store, weights)
    Path(weights.path).unlink()
    with (store.root / file_key(weights.sha256)).open("r+b") as file:
        file.write(b"x")
    with pytest.raises(ObjectDamaged):
        started(weights, shared(store, tmp_path / "node"))
    assert not list((tmp_path / "node/weights" / FOLDER).glob("*.pt"))


def test_torchvisions_file_goes_from_the_drivers_cache_to_the_nodes(
    store: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "driver"))
    assert push_torchvision(store, "alexnet") == 0  # the driver has none
    file = torchvision_file("alexnet")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert push_torchvision(store, "alexnet") == 7
    assert push_torchvision(store, "alexnet") == 0
    assert store.size(torchvision_key(file)) == 7
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "node"))
    shared(store, tmp_path / "home").torchvision("alexnet")
    assert torchvision_file("alexnet").read_bytes() == b"weights"
