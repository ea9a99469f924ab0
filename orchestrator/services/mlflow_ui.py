"""Serves MLflow's UI for the store, with views whose columns show the results of jobs and sweeps."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.execution.work_orders import absolute_uri
from orchestrator.ledger import store
from orchestrator.ledger.home import settle
from orchestrator.ledger.store import reaching
from orchestrator.settings import Settings
from schemas.errors import StoreError
from workers.loopback import bypass_proxies_for_loopback
from workers.tracking.outages import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

HOST = "127.0.0.1"
START_SECONDS = 120.0
"""Time limit for MLflow's server to answer."""


class View(NamedTuple):
    """A shared view of MLflow's table of runs."""

    key: str
    """Key of the view in the page's address and in the experiment's tags."""
    search: str
    """Filter, in MLflow's search syntax."""
    columns: tuple[str, ...]
    order_by: str
    """Column to sort by. Sorted by start time, MLflow nests jobs under their sweeps; otherwise it lists them flat."""
    ascending: bool


JOBS = View(
    key="orch-jobs",
    search="tags.`orch.kind` = 'job'",
    columns=(
        "tags.`category`", "tags.`backbone`", "tags.`variant`",
        "metrics.`location_instability`", "metrics.`test_accuracy`",
        "tags.`images`", "tags.`orch.sweep`", "tags.`orch.state`", "tags.`orch.attempt`", "tags.`orch.failure`",
        "attributes.`Duration`",
    ),
    order_by="tags.`category`",
    ascending=True,
)  # fmt: skip
SWEEPS = View(
    key="orch-sweeps",
    search="",
    columns=(
        "metrics.`jobs_done`", "metrics.`jobs_failed`", "tags.`orch.profile`",
        "metrics.`location_instability/ordinary`", "metrics.`location_instability/interpretable`",
        "metrics.`accuracy/ordinary`", "metrics.`accuracy/interpretable`",
        "attributes.`Created`", "attributes.`Duration`",
    ),
    order_by="attributes.start_time",
    ascending=False,
)  # fmt: skip


def view_state(view: View) -> str:
    """The JSON document that MLflow stores when a user shares a view of the runs table."""
    return json.dumps(
        {
            "searchFilter": view.search,
            "orderByKey": view.order_by,
            "orderByAsc": view.ascending,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": view.columns,
            "columnOrder": view.columns,
            "columnWidths": {column: max(120, 8 * len(column.split("`")[1])) for column in view.columns},
        }
    )


def share_views(client: MlflowClient, uri: str) -> str:
    """Store the views as tags of the experiment.

    Args:
        client: client of the store.
        uri: the store's URI, for messages.

    Returns:
        The id of the experiment.

    Raises:
        StoreError: the store has no experiment of orch yet, or it was deleted; or the store cannot be written.
    """
    with reaching(uri):
        experiment = store.experiment_of(client, uri)
        for view in (JOBS, SWEEPS):
            client.set_experiment_tag(experiment.experiment_id, f"mlflow.sharedViewState.{view.key}", view_state(view))
        return experiment.experiment_id


def page(base: str, experiment_id: str, view: View) -> str:
    """Address of a view in MLflow's UI."""
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?viewStateShareKey={view.key}"


def free_port(wanted: int) -> int:
    """`wanted`, or another free port if it is busy.

    Raises:
        StoreError: no port is free.
    """
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StoreError(f"No port of {HOST} is free for MLflow's UI. Close a program that listens on one.")


def serve(settings: Settings, port: int, on_ready: Callable[[], None]) -> int:
    """Run MLflow's server in the foreground until it exits or the user stops it.

    Args:
        settings: the store and its artifacts.
        port: a free port.
        on_ready: called once the server answers.

    Returns:
        The server's exit code; 0 after Ctrl-C.

    Raises:
        StoreError: the server exited, or did not answer in time.
    """
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", absolute_uri(settings.store_uri),
        "--host", HOST, "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    if settings.artifact_uri:
        command += ["--default-artifact-root", settings.artifact_uri]
    # The job runner would add four processes that orch does not use.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONSAFEPATH": "1"}
    bypass_proxies_for_loopback(environment)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server never outlives this process
    # The server imports modules from its working folder, and must not find the user's files there.
    folder = tempfile.mkdtemp(prefix="orch-ui-")
    server = subprocess.Popen(
        command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _await(server, without_password(shlex.join(command)), f"http://{HOST}:{port}/health")
        on_ready()
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _await(server: subprocess.Popen[bytes], command: str, health: str) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise StoreError(
                f"MLflow's server exited with code {server.returncode} while it started. To see why, run: {command}"
            )
        try:
            with direct.open(health, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise StoreError(f"MLflow's server did not answer within {START_SECONDS:.0f} s. To see why, run: {command}")


@dataclass(frozen=True)
class UiPages:
    """Addresses of the two views in MLflow's UI."""

    jobs: str
    sweeps: str
    moved: bool
    """True if the requested port was busy and another one is used."""


def serve_ui(settings: Settings, port: int, on_ready: Callable[[UiPages], None]) -> None:
    """Serve MLflow's UI until the user stops it.

    Args:
        settings: the store.
        port: the preferred port.
        on_ready: called with the addresses once the server answers.

    Raises:
        StoreError: the store does not exist or has no sweep, or the server does not start.
    """
    if not store.exists(settings):
        raise StoreError(f"There is no store at {settings.database} yet. To create one, run: orch sweep --grid smoke")
    client = store.open_client(settings)
    settle(settings)
    experiment_id = share_views(client, settings.store_uri)
    chosen = free_port(port)
    base = f"http://{HOST}:{chosen}"
    pages = UiPages(
        jobs=page(base, experiment_id, JOBS), sweeps=page(base, experiment_id, SWEEPS), moved=chosen != port
    )
    serve(settings, chosen, lambda: on_ready(pages))
