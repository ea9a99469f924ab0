"""Sweep files and `--set` options: what they mean, and the message when they cannot be read."""

from __future__ import annotations

import os
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


def test_a_set_option_that_is_given_twice_is_refused() -> None:
    with pytest.raises(SpecError, match=r"`--set seed` is given twice"):
        parse_sets(["seed=1", " seed =2"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nname: caf\xe9\n", r"sweep\.yaml, line 2, cannot be read as text: byte 0xe9 is not UTF-8"),
        ("seed: 1".encode("utf-16"), r"line 1, cannot be read as text: byte 0xff"),
        (b"#" * ((1 << 20) + 1), "larger than 1 MiB"),
    ],
)
def test_bytes_that_are_no_sweep_file_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=message):
        read_sweep_file(path)


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfgrid: smoke\n", b"grid: smoke\r\n", b"%YAML 1.1\n---\ngrid: smoke\n...\n"]
)
def test_a_byte_order_mark_and_other_line_ends_are_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(content)
    assert read_sweep_file(path).grid == "smoke"


def test_what_is_not_a_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(SpecError, match="is not a regular file"):
            read_sweep_file(path)
    with pytest.raises(SpecError, match="cannot be read"):
        read_sweep_file(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("on", True), ("2026-03-01", True), ("'010'", True), ("a-", True), ("a" * 80, True),
        ("010", False), ("1.5", False), ("true", False), ("-x", False), (".x", False), ("''", False), ("a b", False),
        ("a" * 81, False), ("'a\\n'", False), ("ä", False),
    ],
)  # fmt: skip
def test_a_name_is_text_of_a_few_characters(tmp_path: Path, name: str, taken: bool) -> None:
    path = write(tmp_path, f"name: {name}\ngrid: smoke\n")
    if taken:
        assert read_sweep_file(path).name == name.strip("'")
    else:
        with pytest.raises(SpecError, match="`name` is"):
            read_sweep_file(path)


@pytest.mark.parametrize(
    "text",
    ["resources: {workers: true}", "resources: {workers: 2.0}", "resources: {gpus_per_worker: .inf}",
     "resources: {memory_gb_per_worker: 1e999}", "resources: 5", "base: 5", "base: {1: 2}", "axes: {seed: 5}",
     "axes: []",
     "include: {a: 1}", "exclude: [[1]]", "description: 5", "grid: 5"],
)  # fmt: skip
def test_every_part_of_a_sweep_file_is_typed(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError, match=r"sweep\.yaml: `"):
        read_sweep_file(write(tmp_path, text + "\n"))
