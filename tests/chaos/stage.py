"""Manages one ORCH_HOME under test: its commands, processes, disk and tracking server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from orchestrator.settings import sqlite_uri
from tests.chaos.blows import EPOCHS, Round
from tests.chaos.evidence import Store, processes_of
from tests.support.object_store import BUCKET, ObjectStore, free_port

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.05
LONGEST_SECONDS = 420.0
"""Longest time of one command before it counts as stuck."""
DISK_MEGABYTES = 160
NAME = "chaos"
SWEEP_CATEGORIES = ("voc_part/cat", "voc_part/dog", "voc_part/cow", "cub200/bird")
SWEEP = """
name: chaos
profile: laptop
base:
  backbone: alexnet
  model: {input_size: 64, width: 0.125, fc_width: 32}
  data: {train_per_category: 12, test_per_category: 4}
  weights: {epochs: 2, data: {categories: [voc-cat, voc-dog, voc-cow], train_per_category: 8, test_per_category: 4}}
  train: {epochs: EPOCHS, batch_size: 8}
axes:
  category: [CATEGORIES]
  variant: [ordinary, interpretable]
  seed: SEEDS
"""
"""Eight jobs per seed, and the pre-training that all of them start from."""


def sweep_text(name: str, jobs: int, epochs: int = EPOCHS) -> str:
    """Return a sweep file.

    Args:
        name: of the sweep.
        jobs: number of jobs besides the pre-training; a multiple of 8.
        epochs: of each job.
    """
    seeds = list(range(jobs // 8))
    text = SWEEP.replace("chaos", name).replace("CATEGORIES", ", ".join(SWEEP_CATEGORIES))
    return text.replace("SEEDS", str(seeds)).replace("EPOCHS", str(epochs))


class Stuck(AssertionError):
    """An expected event did not happen."""


class TrackingServer:
    """An `mlflow server` with its own database."""

    def __init__(self, folder: Path, environment: dict[str, str], artifacts: str) -> None:
        self.database, self._folder, self._environment = folder / "server.db", folder, environment
        self._artifacts = artifacts
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def uri(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", sqlite_uri(self.database), "--artifacts-destination", self._artifacts,
        ]  # fmt: skip
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command, env={**self._environment, **settings}, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._answers, 180.0, "the tracking server to answer")

    def kill(self) -> None:
        """Kill the server and its children."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False


class Stage:
    """The environment of one round."""

    def __init__(
        self, folder: Path, jobs: int, patience_minutes: float = 10.0, text: str | None = None, workers: int = 2
    ) -> None:
        """
        Args:
            folder: a new folder.
            jobs: number of jobs of the sweep, without pre-training.
            patience_minutes: how long an unreachable store is retried.
            text: the sweep file, if not the one of the campaign.
            workers: number of workers.
        """
        folder.mkdir(parents=True)
        self.folder, self.home, self.workers = folder, folder / "home", workers
        self.home.mkdir()
        self.file = folder / "chaos.yaml"
        self.file.write_text(text or sweep_text(NAME, jobs))
        self.log = folder / "orch.log"
        self.environment = {
            **os.environ,
            "ORCH_HOME": str(self.home),
            "ORCH_STORE_PATIENCE_MINUTES": str(patience_minutes),
            "OMP_NUM_THREADS": "1",
        }
        self.store = Store(self.home / "mlflow.db")
        self.server: TrackingServer | None = None
        self.objects: ObjectStore | None = None
        self.driver: subprocess.Popen[bytes] | None = None
        self.drivers: list[int] = []
        """Process ids of all commands that were started."""
        self.codes: list[int] = []

    def serve(self, *, objects: bool = False) -> None:
        """Use a tracking server instead of a file below ORCH_HOME, optionally with artifacts in an object store."""
        folder, artifacts, environment = self.folder / "server", str(self.folder / "server" / "kept"), dict(os.environ)
        folder.mkdir()
        if objects:
            self.objects, artifacts = ObjectStore(), f"s3://{BUCKET}/artifacts"
            environment |= self.objects.environment
        self.server = TrackingServer(folder, environment, artifacts)
        self.server.start()
        self.store = Store(self.server.database)
        self.environment["ORCH_TRACKING_URI"] = self.server.uri

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI of the store."""
        return self.server.uri if self.server is not None else sqlite_uri(self.store.database)

    def type(self, *words: str) -> subprocess.Popen[bytes]:
        """Start an `orch` command."""
        with open(self.log, "ab") as log:
            log.write(f"$ orch {' '.join(words)}\n".encode())
            log.flush()
            command = [sys.executable, "-m", "orchestrator.cli.main", *words]
            return subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def drive(self, resumes: bool = False) -> None:
        """Start the sweep, or with `resumes` resume it if the store knows it."""
        again = resumes and self.store.knows_the_sweep()
        words = ("resume", NAME) if again else ("sweep", str(self.file))
        self.driver = self.type(*words, "--workers", str(self.workers))
        self.drivers.append(self.driver.pid)

    def ended(self) -> int | None:
        """Return the exit code of the last command; None while it runs."""
        assert self.driver is not None
        code = self.driver.poll()
        if code is not None and len(self.codes) < len(self.drivers):
            self.codes.append(code)
        return code

    def kill_driver(self) -> None:
        """Kill the last command."""
        assert self.driver is not None
        self.driver.kill()
        self.driver.wait()
        self.ended()

    def children(self, name: str) -> list[psutil.Process]:
        """Return the driver's living descendants whose name or command line begins with `name`, oldest first."""
        assert self.driver is not None
        found = []
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.driver.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if child.name().startswith(name) or " ".join(child.cmdline()).startswith(name):
                        found.append(child)
        return sorted(found, key=lambda child: child.pid)

    def close(self) -> None:
        """Kill the processes that are left, and delete the Ray sessions of killed drivers."""
        if self.server is not None:
            self.server.kill()
        if self.objects is not None:
            self.objects.stop()
        for process in processes_of(self.home):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for owner in Path("/tmp").glob("orch-ray-*/orch-driver"):
            with suppress(OSError, ValueError):
                if int(owner.read_text().split()[1]) in self.drivers:
                    shutil.rmtree(owner.parent, ignore_errors=True)


def set_up(folder: Path, plan: Round, reference: Path) -> Stage:
    """Set up the stage of a round, with the images that the undisturbed sweep prepared unless the round is blank."""
    stage = Stage(folder, plan.jobs, plan.patience_minutes)
    if plan.small_disk:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "orch-chaos", str(stage.home)], check=True
        )
    if not plan.blank:
        shutil.copytree(reference / "home" / "cache", stage.home / "cache")
    if plan.store != "file":
        stage.serve(objects=plan.store == "objects")
    return stage


@contextmanager
def staged(folder: Path, plan: Round, reference: Path) -> Iterator[Stage]:
    """Set up the stage of a round, and close it at the end."""
    stage = set_up(folder, plan, reference)
    try:
        yield stage
    finally:
        stage.close()
        if plan.small_disk:
            subprocess.run(["umount", "-l", str(stage.home)], check=True)


def wait_for(holds: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until a condition holds.

    Raises:
        Stuck: it does not hold in time; the message names `what`.
    """
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise Stuck(f"waited {seconds:.0f} s for {what}")
        time.sleep(POLL_SECONDS)
