"""Sweep files and `--set` options: what they mean, and the message when they cannot be read."""

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
        ("grid: smoke\ngrid: voc-part\n", "sweep.yaml, line 2, column 1: duplicate key `grid`"),
        ("base:\n  seed: 1\n  train.epochs: 2\n  seed: 3\n", "line 4, column 3: duplicate key `seed`"),
        ("include:\n- &row {seed: 1}\n- {<<: *row, seed: 2, seed: 3}\n", "line 3, column 23: duplicate key `seed`"),
        ("grid: smoke\n? [a, b]\n: 3\n", "line 2, column 3: a key must be plain text"),
        ("grid: smoke\n? {a: b}\n: 3\n", "line 2, column 3: a key must be plain text"),
        ("grid: *nope\n", "line 1, column 7: found undefined alias 'nope'"),
        ("grid: !!python/object:os.system x\n", "line 1, column 7: could not determine a constructor"),
        ("grid: !!int x\n", "sweep.yaml: invalid literal for int"),
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
        ("a=-2E4", -20000.0), ("a=1.5e3", 1500.0), ("a=+.5", 0.5), ("a=0x1f", 31), ("a=0o10", 8), ("a=010", 10),
        ("a=on", "on"), ("a=yes", "yes"), ("a=No", "No"), ("a=off", "off"), ("a=y", "y"), ("a=1:30", "1:30"),
    ],
)  # fmt: skip
def test_set_values_are_typed_as_in_yaml(option: str, value: object) -> None:
    assert parse_sets([option]) == {"a": value}


@pytest.mark.parametrize("option", ["train.epochs", "=5", "a=[1"])
def test_a_malformed_set_option_is_quoted_back(option: str) -> None:
    with pytest.raises(SpecError, match="--set"):
        parse_sets([option])


def test_a_file_and_a_set_option_mean_the_same(tmp_path: Path) -> None:
    values = ["1e-3", "on", "010", "1:30", "[1e-3, no]"]
    text = "base:\n" + "".join(f"  f{i}: {value}\n" for i, value in enumerate(values))
    options = [f"f{i}={value}" for i, value in enumerate(values)]
    assert read_sweep_file(write(tmp_path, text)).base == parse_sets(options)


def test_an_alias_that_contains_itself_is_read_to_its_end() -> None:
    (found,) = parse_sets(["a=&x [1, *x]"]).values()
    assert found[0] == 1
    assert found[1] is found
