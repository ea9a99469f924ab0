"""Tiny sweeps on clusters whose nodes are added by Ray's own autoscaler, in both of its versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.import_path import HOME
from tests.support.autoscaling import autoscaling_cluster, kinds_of_nodes
from tests.support.object_store import free_port
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SWEEP = """
base:
  backbone: alexnet
  weights: {source: random}
  data: {train_per_category: 8, test_per_category: 4}
  train: {epochs: EPOCHS, batch_size: 8}
  model: {input_size: 64, width: 0.05, fc_width: 16}
axes:
  category: [voc_part/cat, cub200/bird]
  variant: [ordinary]
resources: {memory_gb_per_worker: 0.5, cpus_per_worker: CPUS}
profile: laptop
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path: Ray's sockets are in it."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = Path(tempfile.mkdtemp(prefix="orch-scale-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path, address: str, name: str, cpus: int = 1, epochs: int = 2) -> subprocess.Popen[str]:
    file = folder / "tiny.yaml"
    file.write_text(SWEEP.replace("CPUS", str(cpus)).replace("EPOCHS", str(epochs)))
    environment = {**os.environ, "ORCH_HOME": str(folder / "home"), "ORCH_RAY_ADDRESS": address}
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "sweep", str(file), "--json", "--name", name],
        cwd=HOME, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def ended(driver: subprocess.Popen[str]) -> tuple[int, Mapping[str, Any], str]:
    try:
        out, error = driver.communicate(timeout=400)
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
    return driver.returncode, json.loads(out) if out else {}, error


@pytest.mark.parametrize("version", [1, 2])
def test_a_sweep_on_no_node_has_them_added_and_gives_them_back(folder: Path, version: int) -> None:
    kinds = {"small": {"CPU": 1, "least": 0, "most": 2}}
    with autoscaling_cluster(folder, free_port(), kinds, version=version) as address:
        wait_for(lambda: kinds_of_nodes(address) == [])
        driver = sweep(folder, address, "from-zero")
        wait_for(lambda: "small" in (kinds_of_nodes(address) or ()))
        code, answer, error = ended(driver)
        assert (code, answer.get("counts")) == (0, {"done": 2}), error
        wait_for(lambda: kinds_of_nodes(address) == [])


def test_a_worker_for_which_a_node_can_be_added_is_waited_for_and_any_larger_one_refused(folder: Path) -> None:
    kinds = {"small": {"CPU": 1, "least": 1, "most": 1}, "wide": {"CPU": 2, "least": 0, "most": 1}}
    with autoscaling_cluster(folder, free_port(), kinds, version=2) as address:
        wait_for(lambda: kinds_of_nodes(address) == ["small"])
        driver = sweep(folder, address, "wide", 2)
        wait_for(lambda: "wide" in (kinds_of_nodes(address) or ()))
        code, answer, error = ended(driver)
        assert (code, answer.get("counts")) == (0, {"done": 2}), error
        code, _, error = ended(sweep(folder, address, "wider", cpus=3, epochs=3))
        assert code == 5
        assert "A worker of 3 CPUs and 0.5 GB fits on no machine: the cluster has" in error
        assert "1 machine of 1 CPU and 4 GB" in error
        assert "its autoscaler can add none that is large enough" in error
