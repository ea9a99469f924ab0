"""Weights are imported once, found by name, and refused before a sweep starts if they do not fit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from interp_model.weights import expected_shapes, state_key
from orchestrator.cli.main import main
from orchestrator.services.weights import find_file, import_file, list_weights, weights_field
from orchestrator.settings import Settings
from schemas.errors import SpecError, WeightsError
from tests.support.weight_fixtures import torchvision_state

WIDTH = 0.1


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATA_ROOT", "PROFILE", "TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(f"ORCH_{name}", raising=False)
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A state dict of a narrow AlexNet."""
    state = {state_key(layer, kind): torch.rand(shape) for layer, kind, shape in expected_shapes("alexnet", WIDTH)}
    torch.save(state, tmp_path / "published.pth")
    return tmp_path / "published.pth"


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


Read = Callable[[], Any]


def test_an_import_is_listed_verified_and_known_by_name(
    published: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    importing = ("weights", "import", str(published), "--backbone", "alexnet", "--width", str(WIDTH), "--name", "mine")
    assert run(*importing) == 0
    assert "--weights mine" in capsys.readouterr().out
    assert run(*importing) == 0  # the same file again: nothing changes
    capsys.readouterr()
    assert run("weights", "list", "--json") == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(listed) == ["torchvision", "imagenet", "everything", "random", "mine"]
    assert listed["mine"]["provenance"]["source"] == "published.pth"
    assert run("weights", "verify", "mine") == 0
    assert "conv5" in capsys.readouterr().out
    assert find_file(Settings(), "mine") == home.resolve() / "weights" / "mine.safetensors"
    assert weights_field(Settings(), "mine")["weights"]["source"] == "file"


def test_verifying_against_another_backbone_ends_with_code_3(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("weights", "verify", str(published), "--backbone", "vgg_m", "--width", str(WIDTH)) == 3
    shown = capsys.readouterr()
    assert "10 x 3 x 7 x 7" in shown.out
    assert "does not fit vgg_m at width 0.1: 10 of 10 rows" in shown.err


def test_a_wrong_file_is_refused_with_layer_and_shapes(published: Path, home: Path) -> None:
    with pytest.raises(WeightsError, match=r"conv1 has shape \(6, 3, 11, 11\), expected \(64, 3, 11, 11\)"):
        import_file(Settings(), published, "alexnet", name=None, width=1.0)
    assert not home.exists()


def test_a_name_is_not_taken_from_other_weights(published: Path) -> None:
    import_file(Settings(), published, "alexnet", name="mine", width=WIDTH)
    state = torch.load(published, weights_only=True)
    torch.save({key: value + 1 for key, value in state.items()}, published)
    with pytest.raises(SpecError, match="Other weights are called 'mine' already"):
        import_file(Settings(), published, "alexnet", name="mine", width=WIDTH)


@pytest.mark.parametrize("name", ["torchvision", "a/b", ".hidden", ""])
def test_a_name_that_means_something_else_is_refused(published: Path, name: str) -> None:
    if not name:
        published = published.rename(published.with_name(".pth"))
    with pytest.raises(SpecError, match="cannot be called"):
        import_file(Settings(), published, "alexnet", name=name, width=WIDTH)


def test_unknown_weights_name_the_nearest(published: Path) -> None:
    import_file(Settings(), published, "alexnet", name="edges", width=WIDTH)
    with pytest.raises(WeightsError, match=r"no weights 'edgse'.*Did you mean 'edges'"):
        weights_field(Settings(), "edgse")


def test_a_broken_imported_file_is_listed_with_its_problem(published: Path) -> None:
    kept = import_file(Settings(), published, "alexnet", name="mine", width=WIDTH)
    kept.path.write_bytes(kept.path.read_bytes()[:100])
    (row,) = list_weights(Settings())
    assert row.provenance is None
    assert "It is damaged" in row.problem


def test_a_plan_refuses_weights_of_another_network(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_file(Settings(), published, "alexnet", name="mine", width=WIDTH)
    planning = ("plan", "--grid", "smoke", "--backbone", "alexnet", "--weights", "mine", "--json")
    assert run(*planning, "--set", f"model.width={WIDTH}") == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"new": 4}
    assert run(*planning) == 3
    assert "are for alexnet at width 0.1, but jobs with alexnet at width" in capsys.readouterr().err


def test_an_import_says_what_it_unwrapped_and_assumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {f"module.{key}": value for key, value in torchvision_state("alexnet", WIDTH).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.pth.tar")
    importing = ("weights", "import", str(tmp_path / "last.pth.tar"), "--backbone", "alexnet", "--width", str(WIDTH))
    assert run(*importing) == 0
    shown = capsys.readouterr().out
    assert "Unwrapped: key 'state_dict', prefix 'module.'." in shown
    assert "Input of the network: RGB, 0 to 1 (assumed from torchvision's layer names)." in shown
    assert run(*importing, "--json") == 0
    provenance = json.loads(capsys.readouterr().out)["provenance"]
    assert provenance["unwrapped"] == ["key 'state_dict'", "prefix 'module.'"]
    assert provenance["input"]["scale"] == "1"
    assert run(*importing, "--input-scale", "255", "--channel-order", "bgr") == 2  # other weights have this name
    assert run(*importing, "--input-scale", "255", "--channel-order", "bgr", "--name", "caffe") == 0
    assert [str(file.provenance.input) for file in list_weights(Settings()) if file.provenance] == [
        "BGR, 0 to 255", "RGB, 0 to 1"
    ]  # fmt: skip
    assert run("weights", "verify", str(tmp_path / "last.pth.tar"), "--backbone", "alexnet", "--width", str(WIDTH)) == 0


def test_a_damaged_import_is_replaced_by_importing_again(published: Path) -> None:
    kept = import_file(Settings(), published, "alexnet", name="mine", width=WIDTH)
    kept.path.write_bytes(kept.path.read_bytes()[:100])
    again = import_file(Settings(), published, "alexnet", name="mine", width=WIDTH)
    assert list_weights(Settings())[0].provenance == again.provenance


@pytest.mark.parametrize("command", ["import", "verify"])
def test_what_is_no_file_ends_with_code_3_and_says_what_it_is(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.pth").mkdir()
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    for word, message in (
        (tmp_path / "folder.pth", "is a folder"), (tmp_path / "pipe.pth", "is a pipe"), (tmp_path, "is a folder"),
        (tmp_path / "loop.pth", "symbolic links"), ("~no_such_user/x.pth", "unknown user"), ("x" * 300, ""),
    ):  # fmt: skip
        assert run("weights", command, str(word), "--backbone", "alexnet") == 3
        assert message in capsys.readouterr().err


def test_a_job_that_is_not_there_gives_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("weights", "import", "job:abc") == 2
    assert run("weights", "import", "job:abc", "--backbone", "vgg16") == 2
    assert run("weights", "import", "file.mat") == 2
    errors = capsys.readouterr().err
    assert "follow from the job" in errors
    assert "The network of file.mat is unknown" in errors
