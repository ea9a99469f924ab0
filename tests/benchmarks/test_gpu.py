"""The GPU benchmark also runs on a CPU, and says what it measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, get_args

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_parts import Deadline
from schemas.job import BackboneName


@pytest.mark.slow
def test_the_small_run_measures_every_backbone_and_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "run_tests", lambda: {"outcome": "not run"})
    unlimited = dict.fromkeys(gpu.SHARES, 1e6)  # on a slow machine too
    monkeypatch.setattr(gpu, "SHARES", unlimited | {"compiled": -1e7})  # compilation needs a C++ compiler
    gpu.main(["--out", str(tmp_path), "--small"])
    found = json.loads((tmp_path / "gpu.json").read_text())
    kind = ("backbone", "variant", "trained", "precision")
    rates = {tuple(row[name] for name in kind): row for row in found["throughput"]}
    assert {name for name, *_ in rates} == set(get_args(BackboneName))
    assert len(rates) == 12 * len(get_args(BackboneName))
    assert all(row["images_per_s"] > 0 and row["tflop_per_s"] > 0 for row in rates.values())
    assert found["resume"]["is_bit_identical"] is True
    for part in ("packs", "metrics", "determinism"):
        assert [row["backbone"] for row in found[part]] == list(get_args(BackboneName))
    assert [row["last_s"] > 0 < row["first_s"] for row in found["layout"]] == [True] * 2 * len(get_args(BackboneName))
    assert {row["note"] for row in found["compiled"]} == {"no time left"}
    assert all(row["metrics_s"] > 0 and row["passes_s"] > 0 for row in found["metrics"])
    assert all(row["deterministic_s"] > 0 and row["free_s"] > 0 for row in found["determinism"])
    assert len(found["method_cost"]) == 4 * len(get_args(BackboneName))
    assert len(found["precision"]) == 6 * len(get_args(BackboneName))
    assert (tmp_path / "gpu.md").read_text() in capsys.readouterr().out


def test_a_part_that_fails_is_reported_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> NoReturn:
        raise RuntimeError("no kernel")

    def breaking(*_: object) -> Iterator[dict[str, object]]:
        yield {"backbone": "alexnet", "note": "fine"}
        broken()

    for part in (
        "resume",
        "throughput",
        "packs_gain",
        "metrics_cost",
        "determinism_price",
        "layout_gain",
        "compile_gain",
    ):
        monkeypatch.setattr(gpu, part, broken)
    monkeypatch.setattr(gpu, "packs_gain", breaking)
    monkeypatch.setattr(gpu, "run_tests", lambda: {"outcome": "4 passed"})
    saved: list[int] = []
    found = gpu.run(torch.device("cpu"), gpu.SMALL, lambda row: saved.append(len(row)))
    assert saved == sorted(saved)
    assert len(saved) == len(gpu.SHARES)
    assert found["resume"] == "failed: RuntimeError: no kernel"
    assert found["throughput"] == [{"note": found["resume"]}]
    assert [row["note"] for row in found["packs"]] == ["fine", found["resume"]]
    assert (found["method_cost"], found["precision"]) == ([], [])
    assert found["tests"] == {"outcome": "4 passed"}
    assert "failed: RuntimeError" in gpu.as_markdown(found)


@pytest.mark.parametrize(
    "part", ["throughput", "determinism_price", "packs_gain", "metrics_cost", "layout_gain", "compile_gain"]
)
def test_measurements_without_time_left_are_listed_as_such(part: str) -> None:
    rows = list(getattr(gpu, part)(torch.device("cpu"), gpu.SMALL, lambda: False))
    assert {row["note"] for row in rows} == {"no time left"}
    assert {row["backbone"] for row in rows} == set(get_args(BackboneName))
    if part == "throughput":
        assert gpu.method_cost(rows) == gpu.precision_gain(rows) == []


def test_a_measurement_begins_only_if_one_as_long_as_the_last_would_end_in_time() -> None:
    now = iter([0.0, 4.0, 7.0, 7.0])
    is_time_left = Deadline(10.0, clock=lambda: next(now))
    assert [is_time_left() for _ in range(4)] == [True, True, False, False]  # the last took 4 and then 3 seconds


def test_a_first_measurement_that_is_expected_to_take_too_long_does_not_begin() -> None:
    assert not Deadline(10.0, first=10.0, clock=lambda: 0.0)()
    assert Deadline(10.0, first=9.0, clock=lambda: 0.0)()


def test_the_parts_fit_into_eight_minutes() -> None:
    assert gpu.TEST_SECONDS + sum(gpu.SHARES.values()) <= 470
