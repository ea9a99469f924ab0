"""A sweep behind a real tracking server, seen from a machine that has nothing but the server's address."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.planning.request import SweepRequest
from orchestrator.services import sweeps
from orchestrator.settings import Settings
from schemas.lifecycle import StopReason
from schemas.sweep import SweepSpec
from tests.chaos.stage import TrackingServer, wait_for
from tests.support.doubles import Listener, ScriptedPool
from tests.support.object_store import BUCKET, ObjectStore

pytestmark = pytest.mark.slow
ANSWERS_WITHIN = 15.0
"""Seconds for one command, of which most are Python's imports; one try to reach a dead object store takes longer."""
KEPT_WITHIN = 10.0 + 2.0
"""Seconds before a death of which the log may be lost, and what rounding and a busy machine add."""
FAILING = "voc-cat alexnet ordinary"


class World(NamedTuple):
    """A tracking server whose artifacts are in an object store, and a sweep with one failed job in it."""

    server: TrackingServer
    objects: ObjectStore
    elsewhere: Path
    """Home of a machine that runs nothing."""

    def begin(self, *words: str, home: Path | None = None, is_read: bool = True) -> subprocess.Popen[str]:
        """Begin a command on that machine, or on the one with another home; `is_read` keeps its output."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ORCH_")},
            **self.objects.environment,
            "ORCH_HOME": str(home or self.elsewhere),
            "ORCH_TRACKING_URI": self.server.uri,
        }
        out = subprocess.PIPE if is_read else subprocess.DEVNULL
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.main", *words], env=environment, text=True,
            stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command on that machine."""
        process = self.begin(*words)
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
        assert "Traceback" not in err
        return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("outside")
    objects = ObjectStore()
    server = TrackingServer(folder, {**os.environ, **objects.environment}, f"s3://{BUCKET}/artifacts")
    try:
        server.start()
        settings = Settings.model_validate({"home": folder / "driver", "tracking_uri": server.uri})
        request = SweepRequest(sweep=SweepSpec(grid="smoke"), name="s", categories=("cat",), backbones=("alexnet",))
        pool = ScriptedPool(script={FAILING: [StopReason.CODE_RAISED] * 9})
        sweeps.run_sweep(settings, request, Listener(), workers=1, open_pool=lambda *_: pool)
        yield World(server, objects, folder / "elsewhere")
    finally:
        server.kill()
        objects.stop()


@pytest.mark.parametrize("hangs", [False, True])
def test_what_happens_can_be_read_without_the_object_store(world: World, hangs: bool) -> None:
    world.objects.stop(hangs=hangs)
    try:
        for words, expected in (
            (("status",), "1 failed"),
            (("status", "s"), FAILING),
            (("show", FAILING), "ended by script"),
            (("why", "s"), "1 job failed"),
            (("why", FAILING), "ended by script"),
        ):
            began = time.monotonic()
            done = world.type(*words)
            took = time.monotonic() - began
            assert done.returncode == 0, done.stderr
            assert expected in done.stdout
            assert took < ANSWERS_WITHIN, (words, took)
    finally:
        world.objects.start()
    counts = json.loads(world.type("status", "s", "--json").stdout)["counts"]
    assert counts == {"done": 2, "failed": 1}
    assert not world.elsewhere.exists()


LONG = """
name: long
base:
  category: voc_part/cat
  backbone: alexnet
  variant: ordinary
  model: {input_size: 64, width: 0.125, fc_width: 32}
  data: {train_per_category: 12, test_per_category: 4}
  weights: {source: random}
  train: {epochs: 100000, batch_size: 8}
axes: {seed: [7]}
"""


def test_the_log_of_a_running_job_can_be_followed_and_outlives_its_machine(world: World, tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(LONG)
    home = tmp_path / "driver"
    driver = world.begin("sweep", str(tmp_path / "long.yaml"), "--workers", "1", home=home, is_read=False)
    follower = None
    try:
        wait_for(lambda: list(home.glob("logs/*/attempt-1.log")), 120.0, "the job to begin")
        (log,) = home.glob("logs/*/attempt-1.log")
        follower = world.begin("logs", log.parent.name, "--follow", "-n", "1")
        assert follower.stdout is not None
        lines = iter(follower.stdout.readline, "")
        epochs = list(islice((line for line in lines if "INFO epoch" in line), 100))
        assert len(epochs) == len(set(epochs)) == 100  # of several updates
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=60)
        waited = rf"(.* \({log.parent.name}\) has no log yet\. Waiting for it\.\n)?"  # it began before the first upload
        assert follower.returncode == 130
        assert re.fullmatch(waited, err), err
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        wait_for(lambda: time.time() - log.stat().st_mtime > 5.0, 60.0, "the worker to end")
        kept = world.type("logs", log.parent.name, "-n", "1").stdout
        assert log.stat().st_mtime - datetime.strptime(kept[:19], "%Y-%m-%d %H:%M:%S").timestamp() < KEPT_WITHIN
    finally:
        for process in (driver, follower):
            if process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
