"""What a person wrote, and what they are told when it cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.planning.sweep_file import parse_sets, read_sweep_file
from schemas.errors import SpecError


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def test_a_sweep_file_is_the_same_model_as_a_grid(tmp_path: Path) -> None:
    sweep = read_sweep_file(
        write(tmp_path, "name: mine\ngrid: smoke\naxes:\n  seed: [0, 1]\nbase:\n  train.epochs: 5\n")
    )
    assert (sweep.name, sweep.grid, sweep.axes, sweep.base) == ("mine", "smoke", {"seed": (0, 1)}, {"train.epochs": 5})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: smoke\nbase:\n  train: {epochs: 1\n  x: 2\n", "sweep.yaml, line 4"),
        ("grid: smoke\n\tname: x\n", "sweep.yaml, line 2"),
        ("grid: smoke\ngrid: voc-part\n", "line 2.*`grid` is given twice"),
        ("grid: smoke\n? [a, b]\n: 3\n", "line 2.*unhashable key"),
        ("- a\n- b\n", "holds a list, not fields"),
        ("", "holds nothing"),
        ("grid: smoke\nbas: {}\n", "unknown field `bas`. Did you mean 'base'"),
        ("axes: {seed: []}\n", "axis `seed` has no values"),
        ("resources: {workers: 0}\n", "resources.workers"),
        ("name: 'a b'\n", "name"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_sweep_file(write(tmp_path, text))


def test_yaml_merges_are_understood_and_are_no_repetition(tmp_path: Path) -> None:
    rows = "include:\n- &row {category: cat, seed: 1}\n- {<<: *row, seed: 2}\n"
    assert read_sweep_file(write(tmp_path, rows)).include == (
        {"category": "cat", "seed": 1},
        {"category": "cat", "seed": 2},
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"No sweep file at .*nix\.yaml"):
        read_sweep_file(tmp_path / "nix.yaml")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read as text"):
        read_sweep_file(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("a=5", 5), ("a=1e-3", 0.001), ("a=0.5", 0.5), ("a=true", True), ("a=null", None), ("a=text", "text"),
        ("a=[1, 2]", [1, 2]), ("a={b: 1}", {"b": 1}), ("a='5'", "5"), ("a=x=y", "x=y"),
    ],
)  # fmt: skip
def test_set_values_are_typed_as_in_yaml(option: str, value: object) -> None:
    assert parse_sets([option]) == {"a": value}


@pytest.mark.parametrize("option", ["train.epochs", "=5", "a=[1"])
def test_a_malformed_set_option_is_quoted_back(option: str) -> None:
    with pytest.raises(SpecError, match="--set"):
        parse_sets([option])
