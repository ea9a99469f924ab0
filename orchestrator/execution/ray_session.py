"""Starts and stops Ray: a private one for one sweep, or a connection to a cluster that is never shut down here."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.execution.stop_request import SIGHUP
from orchestrator.ledger.lease import here
from schemas.errors import ResourceError

_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else Ray prints its messages on dead workers to stdout, into our JSON
}

RAY_PARENT = "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()
RAY_PREFIX, RAY_OWNER = "orch-ray-", "orch-driver"
"""Where a private Ray has its folder, and the file in it that names the machine and process it belongs to."""


@dataclass
class RaySession:
    """A private Ray that is started and stopped here, or a connection to a cluster that is never shut down here."""

    address: str
    """`local` for a private Ray, else the address of a cluster."""
    cpus: int
    """Number of cores that a private Ray may use."""
    _folder: str | None = None

    def start(self) -> None:
        """Start Ray or connect to the cluster.

        Raises:
            ResourceError: Ray did not start, or the cluster does not answer.
        """
        for name, value in _RAY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
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
                ray.init(address="local", num_cpus=self.cpus, include_dashboard=False, _temp_dir=self._folder, **quiet)
            else:
                ray.init(address=self.address, **quiet)
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

    def revive(self) -> bool:
        """Restart a private Ray whose node has died, for example because the system killed it for memory.

        Returns:
            True if Ray was restarted.

        Raises:
            ResourceError: Ray does not start again.
        """
        if self.address != "local" or self._is_up():
            return False
        self.stop()
        self.start()
        return True

    def _is_up(self) -> bool:
        import ray

        return any(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]

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

    def stop(self) -> None:
        """Stop a private Ray and delete its folder, or disconnect from the cluster."""
        import ray

        ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
