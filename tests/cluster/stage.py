"""A cluster on one machine: services, Ray's head and workers, a host for drivers, and the commands typed there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.chaos.stage import SWEEP_CATEGORIES, sweep_text, wait_for
from tests.cluster.evidence import PostgresStore
from tests.cluster.hosts import Host, Network, signal_command
from tests.cluster.photographs import DATA_ROOT
from tests.cluster.services import (
    ADMIN,
    ADMIN_PASSWORD,
    BUCKET,
    DATABASE_PASSWORD,
    DATABASE_PORT,
    Objects,
    Postgres,
    Service,
    Tracking,
)

JOBS = 4
EPOCHS = 30
INPUT_SIZE = 64
"""Side of the networks' input, pixels, as `tests.chaos.stage` has it."""
PHOTOGRAPHED = ("voc_part/cat", "voc_part/cow")
"""Categories of the jobs if they are about photographs."""
IMAGES = 48
"""Images per category and split: enough for an epoch to take a good part of a second."""
CATEGORIES = ("voc_part/cat", "cub200/bird")
RAY_PORT, DASHBOARD_PORT = 6379, 8265
HOME = "/tmp/orch"
"""ORCH_HOME on every host, on the host's own disk."""
FILE = "/tmp/sweep.yaml"
SHARED_MEMORY = 80_000_000
"""Bytes of each node's object store."""
WORKER = "ray::JobWorker"


def short_sweep(name: str, categories: Sequence[str] = (), images: str = "generated") -> str:
    """Return a sweep file: pre-training, and two jobs of some seconds for each category.

    Args:
        name: of the sweep.
        categories: of its jobs; empty for those that go with `images`.
        images: `generated` or `photographs`.
    """
    categories = categories or (CATEGORIES if images == "generated" else PHOTOGRAPHED)
    text = sweep_text(name, 8, EPOCHS).replace("train_per_category: 12", f"train_per_category: {IMAGES}")
    text = text.replace("data: {", f"data: {{images: {images}, ")
    return text.replace(", ".join(SWEEP_CATEGORIES), ", ".join(categories))


class Ray(Service):
    """A node of the Ray cluster. It is started again when it ends, as by `restart: unless-stopped` of Compose."""

    def __init__(self, host: Host, environment: Mapping[str, str], folder: Path, cpus: int) -> None:
        """
        Args:
            host: where it runs; the host `head` gets the head.
            environment: of its process, and of the workers on it.
            folder: keeps its log.
            cpus: number of CPUs for jobs.
        """
        super().__init__(host, environment, folder)
        self.cpus = cpus
        self.has_data = True
        """Whether jobs find their data there."""

    def command(self) -> list[str]:
        """See `Service.command`."""
        joins = [f"--address=head:{RAY_PORT}"]
        if self.host.name == "head":
            joins = [
                "--head", f"--port={RAY_PORT}", "--dashboard-host=0.0.0.0", f"--dashboard-port={DASHBOARD_PORT}",
                "--include-dashboard=true",
            ]  # fmt: skip
        return [
            "bash", "-c", 'while true; do "$@"; sleep 1; done', "again",
            str(Path(sys.executable).with_name("ray")), "start", "--block", *joins,
            f"--node-ip-address={self.host.address}", f"--num-cpus={self.cpus}",
            f"--object-store-memory={SHARED_MEMORY}",
        ]  # fmt: skip

    def answers(self) -> bool:
        """See `Service.answers`."""
        raise NotImplementedError


class Command:
    """An `orch` command on a host."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, words: Sequence[str]) -> None:
        self.process, self.log, self.words = process, log, words
        self.began = time.monotonic()

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    def ended(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self.process.poll()

    def wait(self, seconds: float) -> int:
        """Wait for its end and return its exit code.

        Raises:
            Stuck: it does not end in time.
        """
        wait_for(lambda: self.process.poll() is not None, seconds, f"`orch {' '.join(self.words)}` to end")
        return int(self.process.returncode)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        signal_command(self.process, number)

    def kill(self) -> None:
        """Kill it."""
        self.send(signal.SIGKILL)
        self.process.wait(30)


class Cluster:
    """The environment of one scenario."""

    def __init__(
        self, folder: Path, *, nodes: int = 2, authenticates: bool = False, patience_minutes: float = 10.0
    ) -> None:
        """Start everything, and wait until it answers.

        Args:
            folder: a new folder; keeps logs, and the disks of the hosts.
            nodes: number of nodes of Ray with one CPU each, besides its head.
            authenticates: MLflow asks for a user and password.
            patience_minutes: `ORCH_STORE_PATIENCE_MINUTES` of the drivers.
        """
        folder.mkdir(parents=True)
        self.folder = folder
        self.keep_disks = False
        """Whether the disks of the hosts are kept at the end."""
        self.network = Network(folder / "hosts")
        self.commands: list[Command] = []
        self.nodes: dict[str, Ray] = {}
        self._nodes_made = self._typed = 0
        basic = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONUNBUFFERED": "1",
            "HOME": "/tmp/user",
            "LANG": "C.UTF-8",
            "COLUMNS": "120",
            "OMP_NUM_THREADS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # 15 by default, which other work on this machine would slow down too much
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        }
        try:
            add = self.network.add
            self.postgres = Postgres(add("postgres"), basic, folder)
            self.objects = Objects(add("objects"), basic, folder)
            basic |= self.objects.variables
            self.mlflow = Tracking(add("mlflow"), basic, folder, self.postgres.uri, authenticates=authenticates)
            self.environment = {
                **basic,
                "ORCH_HOME": HOME,
                "ORCH_TRACKING_URI": self.mlflow.uri,
                "ORCH_RAY_ADDRESS": f"head:{RAY_PORT}",
                "ORCH_OBJECT_STORE": f"s3://{BUCKET}/orch",
                "ORCH_STORE_PATIENCE_MINUTES": str(patience_minutes),
            }
            if authenticates:
                self.environment |= {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": ADMIN_PASSWORD}
            self.head = Ray(add("head"), self.environment, folder, cpus=0)
            self.desk = add("desk")
            """Where people type commands; a node without CPUs, because a driver needs a node of Ray beside it."""
            self._desk_node = Ray(self.desk, self.environment, folder, cpus=0)
            self._own = set(self.network.hosts)
            self.postgres.create()
            self.postgres.start()
            self.objects.start()
            self.head.start()
            self.postgres.wait()
            self.mlflow.start()
            self.wait_for_head()
            self._desk_node.start()
            for _ in range(nodes):
                self.add_node()
            self.objects.wait()
            self.mlflow.wait()
            self.wait_for_nodes()
            self.store = PostgresStore(self.postgres.host.address, DATABASE_PORT, DATABASE_PASSWORD)
        except BaseException:
            self.close()
            raise

    # -- Ray --------------------------------------------------------------------------------------------------

    def add_node(self) -> Ray:
        """Start a node, without waiting for it."""
        self._nodes_made += 1
        node = Ray(self.network.add(f"node-{self._nodes_made}"), self.environment, self.folder, cpus=1)
        self.nodes[node.host.name] = node
        node.start()
        return node

    def live_nodes(self) -> set[str]:
        """Return the names of the nodes that Ray's head calls alive; empty if it does not answer."""
        request = urllib.request.Request(
            f"http://{self.head.host.address}:{DASHBOARD_PORT}/api/v0/nodes",
            headers={"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=5) as answer:
                rows = json.load(answer)["data"]["result"]["result"]
        except (OSError, ValueError, KeyError):
            return set()
        alive = {row["node_ip"] for row in rows if row["state"] == "ALIVE"}
        return {name for name, host in self.network.hosts.items() if host.address in alive}

    def usable_nodes(self) -> set[str]:
        """Return the names of the nodes with CPUs and data that run and are neither cut off nor suspended."""
        return {name for name, node in self.nodes.items() if node.host.alive and node.host.usable and node.has_data}

    def wait_for_head(self) -> None:
        """Wait until Ray's head answers."""
        wait_for(lambda: "head" in self.live_nodes(), 300.0, f"Ray's head to answer (see {self.head.log})")

    def wait_for_nodes(self) -> None:
        """Wait until all nodes that live have joined."""
        expected = {"desk", *(name for name, node in self.nodes.items() if node.host.alive)}
        wait_for(lambda: expected <= self.live_nodes(), 300.0, f"{sorted(expected)} to join")

    def workers(self, host: Host) -> list[psutil.Process]:
        """Return the processes on a host that run jobs."""
        return host.processes(WORKER)

    # -- commands -----------------------------------------------------------------------------------------------

    def write(self, text: str, file: str = FILE, host: Host | None = None) -> str:
        """Write a sweep file on a host, the desk by default, and return its path there."""
        ((host or self.desk).disk / Path(file).relative_to("/tmp")).write_text(text)
        return file

    def type(self, *words: str, host: Host | None = None, **settings: str) -> Command:
        """Start an `orch` command.

        Args:
            words: of its command line.
            host: where; the desk by default.
            settings: environment variables to change; an empty value unsets one.
        """
        self._typed += 1
        log = self.folder / f"orch-{self._typed}-{words[0]}.log"
        environment = {name: value for name, value in {**self.environment, **settings}.items() if value}
        words_run = [sys.executable, "-m", "orchestrator.cli.main", *words]
        command = Command((host or self.desk).start(words_run, environment, log), log, words)
        self.commands.append(command)
        return command

    def say(self, *words: str, seconds: float = 120.0) -> tuple[int, str]:
        """Run an `orch` command to its end and return its exit code and output."""
        command = self.type(*words)
        return command.wait(seconds), command.text

    def clear(self, nodes: int) -> None:
        """Make ready for another sweep: empty stores and homes, no command, and so many nodes.

        Args:
            nodes: number of nodes with CPUs.
        """
        for command in self.commands:
            if command.ended() is None:
                command.kill()
        self.commands.clear()
        for name in set(self.network.hosts) - self._own - set(self.nodes):
            self.network.hosts[name].kill()
        living = [node for node in self.nodes.values() if node.host.alive]
        for node in living[nodes:]:
            node.host.kill()
        for node in living[:nodes]:
            node.has_data = True
        for name, host in list(self.network.hosts.items()):
            if not host.alive:
                del self.network.hosts[name]
                self.nodes.pop(name, None)
                shutil.rmtree(host.disk)
        wait_for(lambda: not any(self.workers(host) for host in self.network.hosts.values()), 120.0, "workers to end")
        for host in self.network.hosts.values():
            for path in (HOME, DATA_ROOT):
                shutil.rmtree(host.disk / Path(path).name, ignore_errors=True)
        for _ in range(nodes - len(living)):
            self.add_node()
        self.store.clear()
        self.objects.clear()
        self.wait_for_nodes()

    # -- the end ------------------------------------------------------------------------------------------------

    def logs(self, host: str = "*") -> list[Path]:
        """Return the log files of attempts, on the disks of all hosts that there have been or of some."""
        return sorted((self.folder / "hosts").glob(f"*-{host}-*/orch/logs/*/attempt-*.log"))

    def close(self) -> None:
        """Kill all hosts with what runs on them."""
        self.network.close()
        for command in self.commands:
            with suppress(subprocess.TimeoutExpired):
                command.process.wait(10)


@contextmanager
def staged(folder: Path, *, nodes: int = 2, authenticates: bool = False) -> Iterator[Cluster]:
    """Start a cluster, and kill it at the end. See `Cluster`."""
    cluster = Cluster(folder, nodes=nodes, authenticates=authenticates)
    try:
        yield cluster
    finally:
        cluster.close()
        if not cluster.keep_disks:
            shutil.rmtree(folder / "hosts", ignore_errors=True)
