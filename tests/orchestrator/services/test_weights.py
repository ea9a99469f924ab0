"""Weights are imported once, found by name, and refused before a sweep starts if they do not fit."""

from __future__ import annotations

import json
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
    assert list(listed) == ["torchvision", "random", "mine"]
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
    assert "are of alexnet at width 0.1, but jobs of alexnet at width" in capsys.readouterr().err


def test_a_job_that_is_not_there_gives_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("weights", "import", "job:abc") == 2
    assert run("weights", "import", "job:abc", "--backbone", "vgg16") == 2
    assert run("weights", "import", "file.mat") == 2
    errors = capsys.readouterr().err
    assert "follow from the job" in errors
    assert "The network of file.mat is unknown" in errors
