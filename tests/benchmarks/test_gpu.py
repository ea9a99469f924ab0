"""The GPU benchmark also runs on a CPU, and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import torch

from benchmarks import gpu
from schemas.job import BackboneName


@pytest.mark.slow
def test_the_small_run_measures_every_backbone_and_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "run_tests", lambda: {"outcome": "not run"})
    gpu.main(["--out", str(tmp_path), "--small"])
    found = json.loads((tmp_path / "gpu.json").read_text())
    kind = ("backbone", "variant", "trained", "precision")
    rates = {tuple(row[name] for name in kind): row for row in found["throughput"]}
    assert {name for name, *_ in rates} == set(get_args(BackboneName))
    assert len(rates) == 12 * len(get_args(BackboneName))
    assert all(row["images_per_s"] > 0 and row["tflop_per_s"] > 0 for row in rates.values())
    assert found["resume"]["is_bit_identical"] is True
    assert found["metrics"]["metrics_s"] > 0
    assert [row["backbone"] for row in found["packs"]] == list(get_args(BackboneName))
    assert len(found["method_cost"]) == 4 * len(get_args(BackboneName))
    assert (tmp_path / "gpu.md").read_text() in capsys.readouterr().out


def test_a_part_that_fails_is_reported_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no kernel")

    for part in ("resume", "throughput", "packs_gain", "metrics_cost"):
        monkeypatch.setattr(gpu, part, broken)
    monkeypatch.setattr(gpu, "run_tests", lambda: {"outcome": "4 passed"})
    found = gpu.run(torch.device("cpu"), gpu.SMALL)
    assert found["resume"] == found["throughput"] == "failed: RuntimeError: no kernel"
    assert found["tests"] == {"outcome": "4 passed"}
    assert "failed: RuntimeError" in gpu.as_markdown(found)


def test_measurements_without_time_left_are_listed_as_such() -> None:
    rows = list(gpu.throughput(torch.device("cpu"), gpu.SMALL, lambda: False))
    assert {row["note"] for row in rows} == {"no time left"}
    assert gpu.method_cost(rows) == []
