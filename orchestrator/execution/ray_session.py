"""Starts and stops Ray: a private one for one sweep, or a connection to a cluster that is never shut down here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.execution.in_time import Hung, within
from orchestrator.execution.machines import Look
from orchestrator.execution.placement import Node, Room
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

_ROOM = "Check that memory and /tmp have room."
_JOINING = (
    "Check that RAY_AUTH_MODE and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) are those of the cluster, that all ports of "
    "its machines are open to this one, and that both have the same versions of Ray and Python."
)
"""What to do if Ray cannot be started, and if a cluster that listens cannot be joined."""

RAY_PARENT = "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()
RAY_PREFIX, RAY_OWNER = "orch-ray-", "orch-driver"
"""Where a private Ray has its folder, and the file in it that names the machine and process it belongs to."""


POLL_SECONDS = 0.2
"""Time between two looks whether a head that has just started has a node."""
ANSWER_SECONDS = 10.0
"""Longest time to wait for an answer of Ray's head."""
STOP_SECONDS = 30.0
"""Longest time in which Ray's library leaves a cluster."""
LOG_LINES = 15
"""Lines of a worker's log that a message shows."""


@dataclass
class RaySession:
    """A private Ray that is started and stopped here, or a connection to a cluster that is never shut down here."""

    address: str
    """`local` for a private Ray, else the address of a cluster."""
    cpus: int
    """Number of cores that a private Ray may use."""
    memory_gb: float = 0.0
    """Memory that the workers of a private Ray may use."""
    _folder: str | None = None
    _gcs_address: str = ""
    """Host and port of the head that this process has joined."""
    _client: Any = None
    """Asks that head; None if only the cluster's own machines reach it."""

    def start(self) -> None:
        """Start Ray or connect to the cluster.

        Raises:
            ResourceError: Ray did not start, or the cluster does not answer.
        """
        _set_environment()
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
                self._gcs_address, self._client = urlsplit(self.address).netloc, None
            else:
                self._gcs_address = ray.get_runtime_context().gcs_address
                self._client = _client_of(self._gcs_address)
        except ResourceError:
            self.stop()
            raise
        except Exception as error:  # Ray raises a plain Exception if a node dies while it starts
            self.stop()
            advice = _ROOM if self.address == "local" else _JOINING
            raise ResourceError(f"Ray ({self.address}) cannot be used: {str(error).rstrip('.')}. {advice}") from error
        except BaseException:  # a second Ctrl-C
            self.stop()
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)  # Ray installs one for SIGTERM that exits at once

    def _knock(self) -> None:
        """Check that Ray's head answers, and that this machine may join it: Ray itself would try for minutes.

        Raises:
            ResourceError: It does not answer, or this machine is none of the cluster's.
        """
        try:
            where = urlsplit(self.address if "://" in self.address else f"//{self.address}")
            host, port = where.hostname, where.port
        except ValueError as error:
            raise ResourceError(f"ORCH_RAY_ADDRESS {self.address!r} is no address ({error}).") from error
        if not host or not port:
            return
        if refused := _refusal(host, port):
            raise RayAway(
                f"No Ray answers at {self.address} ({refused}). Start that cluster, or correct ORCH_RAY_ADDRESS."
            )
        try:
            if self.address.startswith("ray://"):
                within(ANSWER_SECONDS, _greet_client_server, host, port)
                return
            addresses = within(ANSWER_SECONDS, _await_nodes, f"{host}:{port}")
        except Exception as error:
            raise RayAway(
                f"Something accepts connections at {self.address}, but does not answer as Ray's head within "
                f"{ANSWER_SECONDS:g} s. Correct ORCH_RAY_ADDRESS, set RAY_AUTH_MODE and RAY_AUTH_TOKEN as that cluster "
                "has them, or see that head's logs."
            ) from error
        if not addresses & _own_addresses():
            raise ResourceError(
                f"This machine is no node of the Ray cluster at {self.address}, so it cannot join it there. Run orch "
                "on a node of it, or set ORCH_RAY_ADDRESS to the head's client port: ray://HOST:10001."
            )

    @property
    def is_private(self) -> bool:
        """See `Machines.is_private`."""
        return self.address == "local"

    def join(self) -> None:
        """See `Machines.join`."""
        _set_environment()
        try:
            within(STOP_SECONDS, self.stop)  # before Ray's library ends this process, a minute after its head has gone
        except Hung as error:
            whose = (
                "The private Ray of this sweep does not answer, and cannot be replaced from within this process."
                if self.is_private  # the command that helps is added where the sweep's name is known
                else f"The Ray at {self.address} does not answer. Start its head again."
            )
            raise RayAway(whose) from error
        self.start()

    def look(self, workers: Sequence[str]) -> Look:
        """See `Machines.look`."""
        host, _, port = self._gcs_address.rpartition(":")
        if refused := _refusal(host, int(port)):
            raise RayAway(f"No Ray answers at {self._gcs_address} ({refused}).")
        from ray.exceptions import RayError

        try:
            if self._client is None:  # the answers are in the cluster
                import ray

                rows, places, impossible = ray.get(
                    ray.remote(num_cpus=0)(_facts).remote(list(workers)), timeout=ANSWER_SECONDS
                )
            else:
                rows, places, impossible = _facts(list(workers), self._client)
        except RayError as error:  # a new head too: it does not answer those who knew the one before it
            raise RayAway(f"The Ray at {self._gcs_address} does not answer ({error}).") from error
        if not rows:
            raise RayAway(f"The Ray at {self._gcs_address} has no live node.")
        nodes = [Node(id, host, _room(total), _room(free), drains) for id, host, total, free, drains in rows]
        if self.is_private:
            room = nodes[0].total._replace(memory_gb=self.memory_gb)
            nodes = [nodes[0]._replace(total=room, free=room)]
        return Look(tuple(nodes), places, None if impossible is None else tuple(map(_room, impossible)))

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


def _set_environment() -> None:
    """Set the variables that Ray reads when it is imported."""
    for name, value in _RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[_UV_HOOK] = "0"


@contextmanager
def ray_errors_named() -> Iterator[None]:
    """Turn an error of Ray's library into a ResourceError; the state of Ray is no defect of orch."""
    try:
        yield
    except Exception as error:
        from_ray = any(kind.__module__.startswith("ray.") for kind in type(error).__mro__)
        from_client = isinstance(error, ConnectionError) and _passed_ray(error)  # of ray://, a plain one
        if not from_ray and not from_client:
            raise
        first_line = next(iter(str(error).strip().splitlines()), "")
        raise ResourceError(f"Ray failed: {type(error).__name__}: {first_line}. Check its machines.") from error


def _passed_ray(error: Exception) -> bool:
    """Return whether an error was raised in Ray's library."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(str(frame.f_globals.get("__name__", "")).startswith("ray.") for frame, _ in frames)


def _refusal(host: str, port: int) -> str:
    """Return why a port does not accept connections; empty if it does."""
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _client_of(head: str) -> Any:
    """Return a client of Ray's head. Its calls end in time; those of Ray's other interfaces can abort the process."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    return GcsClient(address=head)


_NodeRow = tuple[str, str, dict[str, float], dict[str, float], bool]
"""Id, host name, all resources, free resources, and whether it drains."""


def _facts(
    workers: list[str], client: Any = None
) -> tuple[list[_NodeRow], dict[str, str], list[dict[str, float]] | None]:
    """Return what Ray's head knows of the live nodes, the node of each worker that has a process, and the requests for
    which the autoscaler can add no node; None if there is no autoscaler, or one of version 1, which does not tell.

    Args:
        workers: Ray's ids of actors.
        client: of the head; None where this runs in the cluster itself.
    """
    import asyncio

    import ray
    from ray import ActorID
    from ray.core.generated.autoscaler_pb2 import DEAD, DRAINING, GetClusterStatusReply  # type: ignore

    client = client or _client_of(ray.get_runtime_context().gcs_address)
    status = GetClusterStatusReply.FromString(client.get_cluster_status(timeout_s=ANSWER_SECONDS))
    scaling = status.autoscaling_state
    refused = [dict(one.resources_bundle) for one in scaling.infeasible_resource_requests]
    hosts = {
        node.hex(): each.node_manager_hostname
        for node, each in client.get_all_node_info(timeout=ANSWER_SECONDS).items()
    }
    rows = [
        (
            each.node_id.hex(),
            hosts.get(each.node_id.hex(), each.node_ip_address),
            dict(each.total_resources),
            dict(each.available_resources),
            each.status == DRAINING,
        )
        for each in status.cluster_resource_state.node_states
        if each.status != DEAD
    ]

    async def find() -> dict[str, str]:
        found = [
            await client.async_get_all_actor_info(actor_id=ActorID.from_hex(worker), timeout=ANSWER_SECONDS)
            for worker in workers
        ]
        actors = {actor.hex(): each for some in found for actor, each in some.items()}
        return {actor: each.address.node_id.hex() for actor, each in actors.items() if each.pid}

    places = asyncio.run(find()) if workers else {}
    return rows, places, refused if scaling.autoscaler_state_version else None


def _room(resources: dict[str, float]) -> Room:
    memory = resources.get("memory", 0.0) / 2**30
    return Room(resources.get("CPU", 0.0), resources.get("GPU", 0.0), memory)


def _await_nodes(head: str) -> set[str]:
    """Return the addresses of the live nodes; of a head that has just started, once its own node has registered."""
    until = time.monotonic() + ANSWER_SECONDS / 2
    while not (found := _addresses_of_nodes(head)) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return found


def _addresses_of_nodes(head: str) -> set[str]:
    """Return the addresses of the live nodes, asked at the head's own port."""
    found = _client_of(head).get_all_node_info(timeout=ANSWER_SECONDS)
    return {node.node_manager_address for node in found.values() if node.state == 0}


def _greet_client_server(host: str, port: int) -> None:
    """Check that something speaks HTTP/2, as Ray's client server does.

    Raises:
        OSError: It does not, or not in time.
    """
    settings = b"\0\0\0\4\0\0\0\0\0"  # an empty frame; its fourth byte is its type
    with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        if connection.recv(9)[3:4] != settings[3:4]:
            raise ConnectionError("no HTTP/2")


def _own_addresses() -> set[str]:
    import psutil

    return {each.address for found in psutil.net_if_addrs().values() for each in found}
