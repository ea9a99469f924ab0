"""Starts and stops Ray: a private one for one sweep, or a connection to a cluster that is never shut down here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.execution.pool import RayAway
from orchestrator.execution.stop_request import SIGHUP
from orchestrator.execution.surroundings import own_environment, working_in
from orchestrator.import_path import HOME
from orchestrator.ledger.lease import here
from schemas.errors import ResourceError

_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a call after Ray has gone joins whatever other Ray is running
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else Ray prints its messages on dead workers to stdout, into our JSON
}
_UV_HOOK = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
"""Ray would copy the working folder and start workers by `uv run` there, if orch was started by `uv run`."""

RAY_PARENT = "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()
RAY_PREFIX, RAY_OWNER = "orch-ray-", "orch-driver"
"""Where a private Ray has its folder, and the file in it that names the machine and process it belongs to."""


ANSWER_SECONDS = 10.0
"""Longest time to wait for an answer of Ray's head."""
LOG_LINES = 15
"""Lines of a worker's log that a message shows."""


@dataclass
class RaySession:
    """A private Ray that is started and stopped here, or a connection to a cluster that is never shut down here."""

    address: str
    """`local` for a private Ray, else the address of a cluster."""
    cpus: int
    """Number of cores that a private Ray may use."""
    _folder: str | None = None
    _gcs_address: str = ""
    """Host and port of the head that this process has joined."""

    def start(self) -> None:
        """Start Ray or connect to the cluster.

        Raises:
            ResourceError: Ray did not start, or the cluster does not answer.
        """
        for name, value in _RAY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.environ[_UV_HOOK] = "0"  # read when Ray is imported
        import ray

        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        is_main = threading.current_thread() is threading.main_thread()
        handled = [number for number in (signal.SIGTERM, SIGHUP) if is_main and number is not None]
        before = {number: signal.getsignal(number) for number in handled}
        if SIGHUP in before:
            signal.signal(SIGHUP, signal.SIG_IGN)  # Ray inherits this; only the driver handles a closed terminal
        try:
            if self.address == "local":
                # Short, because the paths of the sockets in it are limited to 107 characters.
                self._folder = tempfile.mkdtemp(prefix=RAY_PREFIX, dir=RAY_PARENT)
                Path(self._folder, RAY_OWNER).write_text(f"{here()} {os.getpid()}")
                with own_environment(), working_in(self._folder):
                    ray.init(
                        address="local", num_cpus=self.cpus, include_dashboard=False, _temp_dir=self._folder, **quiet
                    )
            else:
                self._knock()
                with working_in(HOME):
                    ray.init(address=self.address, **quiet)
            if self.address.startswith("ray://"):  # the head's other ports may be unreachable from here
                self._gcs_address = urlsplit(self.address).netloc
            else:
                self._gcs_address = ray.get_runtime_context().gcs_address
        except ResourceError:
            self.stop()
            raise
        except Exception as error:  # Ray raises a plain Exception if a node dies while it starts
            self.stop()
            raise ResourceError(
                f"Ray ({self.address}) cannot be used: {error}. "
                "Check that memory and /tmp have room, or correct ORCH_RAY_ADDRESS."
            ) from error
        except BaseException:  # a second Ctrl-C
            self.stop()
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)  # Ray installs one for SIGTERM that exits at once

    def _knock(self) -> None:
        """Check that the cluster's head accepts connections: Ray itself would try for minutes.

        Raises:
            ResourceError: It does not.
        """
        where = urlsplit(self.address if "://" in self.address else f"//{self.address}")
        try:
            if where.hostname and where.port and (refused := _refusal(where.hostname, where.port)):
                raise ResourceError(
                    f"No Ray answers at {self.address} ({refused}). Start that cluster, or correct ORCH_RAY_ADDRESS."
                )
        except ValueError as error:
            raise ResourceError(f"ORCH_RAY_ADDRESS {self.address!r} is no address ({error}).") from error

    def revive(self) -> bool:
        """Start a private Ray again, or join the cluster again, if Ray has gone.

        Returns:
            True if Ray was gone and is back.

        Raises:
            RayAway: The cluster has gone; to be called again.
            ResourceError: A private Ray does not start again.
        """
        import ray

        if ray.is_initialized() and self._is_up():
            return False
        self.stop()  # before Ray's library ends this process, which it does after a minute without a head
        try:
            self.start()
        except ResourceError as error:
            if self.address == "local":
                raise
            raise RayAway(str(error)) from error
        return True

    def _is_up(self) -> bool:
        host, _, port = self._gcs_address.rpartition(":")
        return not _refusal(host, int(port)) and _has_live_node()

    def cores_of_a_node(self) -> int:
        """Return the number of cores of a node on which jobs run; of the smallest, if they differ."""
        import ray

        if self.address == "local":
            return self.cpus
        nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        return max(1, int(min((cores for cores in nodes if cores), default=1)))

    def totals(self) -> dict[str, float]:
        """Return Ray's total resources by name: `CPU`, `GPU`, `memory` (bytes)."""
        import ray

        return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]

    def end_of_worker_log(self) -> str:
        """Return the last lines that a worker of a private Ray wrote to its standard error, as a sentence."""
        if self._folder is None:
            return "See worker-*.err in the folder of Ray's logs on the machines of the cluster."
        logs = [path for path in Path(self._folder).glob("session_2*/logs/worker-*.err") if path.stat().st_size]
        if not logs:
            return "It has written no log."
        newest = max(logs, key=lambda path: path.stat().st_mtime)
        lines = newest.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LOG_LINES:]
        return "The end of its log:\n" + "\n".join(f"  {line}" for line in lines)

    def stop(self) -> None:
        """Stop a private Ray and delete its folder, or disconnect from the cluster."""
        import ray

        ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


@contextmanager
def ray_errors_named() -> Iterator[None]:
    """Turn an error of Ray's library into a ResourceError; the state of Ray is no defect of orch."""
    try:
        yield
    except Exception as error:
        if not any(kind.__module__.startswith("ray.") for kind in type(error).__mro__):
            raise
        first_line = next(iter(str(error).strip().splitlines()), "")
        raise ResourceError(f"Ray failed: {type(error).__name__}: {first_line}. Check its machines.") from error


def _refusal(host: str, port: int) -> str:
    """Return why a port does not accept connections; empty if it does."""
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _has_live_node() -> bool:
    """Return whether Ray's head names a live node in time. Asked in a thread, because Ray may wait for ever."""
    import ray

    answer: list[bool] = []

    def ask() -> None:
        with suppress(Exception):  # of whichever kind: it means that the head cannot be asked
            answer.append(any(node["Alive"] for node in ray.nodes()))  # type: ignore[no-untyped-call]

    asking = threading.Thread(target=ask, name="ask-ray", daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return answer == [True]
