"""A sweep is handed to a real Ray head by its jobs API, with a real MLflow server, from a machine with another home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.stage import TrackingServer
from tests.support.object_store import free_port
from tests.support.waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
TOKEN = "a-token-of-the-tests-0123456789abcdef"
SWEEP = """
name: far
base:
  weights: {source: random}
  data: {train_per_category: 8, test_per_category: 4}
  train: {epochs: 400, batch_size: 8}
  model: {input_size: 64, width: 0.05, fc_width: 16}
axes:
  category: [voc_part/cat]
  backbone: [alexnet]
  variant: [ordinary, interpretable]
"""


class Far:
    """A cluster of one machine, and a machine outside of it that knows two addresses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "far.yaml"
        self.file.write_text(SWEEP)
        # `orch` of the cluster's PATH: the one under test
        program = folder / "bin" / "orch"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator.cli.main "$@"\n')
        program.chmod(0o755)
        unset = ("ORCH_", "RAY_")
        self.base = {name: value for name, value in os.environ.items() if not name.startswith(unset)} | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
        (folder / "server").mkdir()
        self.server = TrackingServer(folder / "server", self.base, str(folder / "server" / "kept"))
        self.dashboard = free_port()
        self.head: subprocess.Popen[bytes] | None = None

    def start(self, ray_folder: Path) -> None:
        self.server.start()
        ports = {
            name: free_port()
            for name in (
                "port", "node-manager-port", "object-manager-port", "dashboard-agent-listen-port",
                "dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port", "ray-client-server-port",
            )
        }  # fmt: skip
        environment = self.base | {
            "ORCH_HOME": str(self.folder / "cluster"),
            "ORCH_TRACKING_URI": self.server.uri,
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{self.base['PATH']}",
        }
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2",
            "--node-ip-address=127.0.0.1", f"--temp-dir={ray_folder}", "--include-dashboard=true",
            f"--dashboard-port={self.dashboard}", "--object-store-memory=100000000",
            *(f"--{name}={port}" for name, port in ports.items()),
        ]  # fmt: skip
        with open(self.folder / "head.log", "wb") as log:
            self.head = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._answers, "the dashboard's answer")

    def _answers(self) -> bool:
        assert self.head is not None
        assert self.head.poll() is None, (self.folder / "head.log").read_text()
        question = urllib.request.Request(
            f"http://127.0.0.1:{self.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with suppress(OSError), urllib.request.urlopen(question, timeout=5):
            return True
        return False

    def stop(self) -> None:
        if self.head is not None:
            self.head.terminate()
            try:
                self.head.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.head.pid, signal.SIGKILL)
                self.head.wait()
        self.server.kill()

    def type(self, *words: str, **environment: str) -> tuple[int, Any, str]:
        """Run a command on the machine outside; return its exit code, its JSON, and what it says."""
        own = {
            "ORCH_HOME": str(self.folder / "outside"),
            "ORCH_TRACKING_URI": self.server.uri,
            "ORCH_RAY_ADDRESS": f"http://127.0.0.1:{self.dashboard}",
        }
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli.main", *words, "--json"],
            cwd=self.folder, env=self.base | own | environment, capture_output=True, text=True, check=False,
            timeout=PATIENCE,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    def status(self) -> Any:
        code, answer, said = self.type("status", "far")
        assert code == 0, said
        return answer


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    from tempfile import TemporaryDirectory

    machine = Far(tmp_path_factory.mktemp("far"))
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as ray_folder:  # short: sockets are in it
        try:
            machine.start(Path(ray_folder))
            yield machine
        finally:
            machine.stop()


def test_a_wrong_token_is_one_clear_line(far: Far) -> None:
    code, _, said = far.type("submit", str(far.file), RAY_AUTH_TOKEN="another-token-0123456789abcdef")
    assert code == 5
    assert "does not accept this machine" in said
    assert len(said.strip().splitlines()) == 1


def test_a_detached_sweep_goes_on_without_its_submitter_and_through_the_death_of_its_driver(far: Far) -> None:
    code, submitted, said = far.type("submit", str(far.file))
    assert code == 0, said
    driver = submitted["lease"]["pid"]
    code, _, said = far.type("submit", str(far.file))
    assert code == 6
    assert f"driven by process {driver}" in said
    wait_for(lambda: far.status()["counts"].get("running"), "a running job")
    os.kill(driver, signal.SIGKILL)
    wait_for(lambda: (lease := far.status()["lease"]) and lease["pid"] != driver, "another driver")
    code, _, said = far.type("resume", "far", "--detach")
    assert code == 6, said
    code, _, said = far.type("pause", "far")
    assert code == 0, said
    wait_for(lambda: not far.status()["is_driven"], "the end of the driver")
    assert "Add `--detach`" in far.type("resume", "far")[2]
    code, again, said = far.type("resume", "far", "--detach")
    assert code == 0, said
    assert again["submission"] == submitted["submission"].removesuffix("1") + "2"
    wait_for(lambda: far.status()["counts"] == {"done": 2}, "the end of the sweep")
    code, _, said = far.type("submit", str(far.file))  # nothing is left to run
    assert code == 0, said
    assert not list((far.folder / "outside").rglob("*.pt"))
