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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.execution.work_orders import absolute_uri
from orchestrator.ledger import store
from orchestrator.ledger.home import settle
from orchestrator.ledger.store import reaching
from orchestrator.settings import Settings
from schemas.errors import StoreError
from workers.loopback import bypass_proxies_for_loopback
from workers.tracking.access import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

HOST = "127.0.0.1"
START_SECONDS = 300.0
"""Time limit for MLflow's server to answer; on a machine whose cores are all busy it has needed two minutes."""


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
    group_by: str = ""
    """Tag by which MLflow groups the runs, with the mean of each metric; empty for none."""


JOBS = View(
    key="orch-jobs",
    search="tags.`orch.kind` = 'job'",
    columns=(
        # MLflow's assistant takes a third of a window, so what tells jobs apart comes first; a run's name has the rest.
        "tags.`variant`", "tags.`orch.state`", "metrics.`test_accuracy`", "metrics.`location_instability`",
        "metrics.`chance_accuracy`", "tags.`category`", "tags.`backbone`", "tags.`role`", "tags.`images`",
        "tags.`orch.sweep`", "tags.`orch.attempt`", "tags.`orch.failure`", "attributes.`Duration`",
    ),
    order_by="tags.`category`",
    ascending=True,
)  # fmt: skip
FAILED = View(
    key="orch-failed",
    search="tags.`orch.kind` = 'job' and tags.`orch.state` = 'failed'",
    columns=(
        "tags.`category`", "tags.`backbone`", "tags.`variant`", "tags.`orch.reason`", "tags.`orch.failure`",
        "tags.`orch.attempt`", "tags.`orch.sweep`", "attributes.`Duration`",
    ),
    order_by="tags.`category`",
    ascending=True,
)  # fmt: skip
VARIANTS = View(
    key="orch-variants",
    search="tags.`orch.kind` = 'job' and metrics.`location_instability` >= 0",  # which pre-training has not
    columns=(
        "metrics.`location_instability`", "metrics.`shuffled_instability`", "metrics.`tracking_share`",
        "metrics.`test_accuracy`", "metrics.`chance_accuracy`", "tags.`category`", "tags.`backbone`",
    ),
    order_by="tags.`variant`",
    ascending=True,
    group_by="variant",
)  # fmt: skip
SWEEPS = View(
    key="orch-sweeps",
    search="",
    columns=(
        "metrics.`jobs_done`", "metrics.`jobs_failed`", "tags.`orch.profile`",
        "metrics.`location_instability/ordinary`", "metrics.`location_instability/interpretable`",
        "metrics.`accuracy/ordinary`", "metrics.`accuracy/interpretable`", "metrics.`chance_accuracy/ordinary`",
        "attributes.`Created`", "attributes.`Duration`",
    ),
    order_by="attributes.start_time",
    ascending=False,
)  # fmt: skip

VIEWS = (JOBS, FAILED, VARIANTS, SWEEPS)


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
            "groupBy": view.group_by
            and {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": view.group_by}]},
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
        for view in VIEWS:
            client.set_experiment_tag(experiment.experiment_id, f"mlflow.sharedViewState.{view.key}", view_state(view))
        return experiment.experiment_id


def page(base: str, experiment_id: str, view: View) -> str:
    """Address of a view in MLflow's UI, in its mode for training rather than for language models."""
    where = f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{where}?viewStateShareKey={view.key}&workflowType=machine_learning"


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
    """Addresses of the views in MLflow's UI."""

    jobs: str
    failed: str
    variants: str
    """Ordinary against interpretable networks: the means of both."""
    sweeps: str
    moved: bool
    """True if the requested port was busy and another one is used."""
    is_remote: bool = False
    """True if they are on the tracking server, which serves its UI itself."""
    tunnel: str = ""
    """Command that makes the UI reachable from the machine of a user who came by SSH; empty for others."""


def tunnel(port: int, environment: Mapping[str, str] = os.environ) -> str:
    """Return the command with which a user who came by SSH reaches a port of this machine from the own one.

    Args:
        port: port of this machine's loopback address.
        environment: has SSH_CONNECTION, the client's and the server's address and port, in an SSH session.

    Returns:
        The command; empty outside of an SSH session.
    """
    connection = environment.get("SSH_CONNECTION", "").split()
    if len(connection) != 4:
        return ""
    server, ssh_port = connection[2:]
    user = environment.get("USER", "")
    other_port = "" if ssh_port == "22" else f"-p {ssh_port} "
    return f"ssh -N {other_port}-L {port}:{HOST}:{port} {f'{user}@' if user else ''}{server}"


def _pages(base: str, experiment_id: str, *, moved: bool = False, is_remote: bool = False) -> UiPages:
    jobs, failed, variants, sweeps = (page(base, experiment_id, view) for view in VIEWS)
    return UiPages(jobs, failed, variants, sweeps, moved, is_remote)


def serve_ui(settings: Settings, port: int, on_ready: Callable[[UiPages], None]) -> None:
    """Serve MLflow's UI until the user stops it.

    A tracking server has a UI of its own, so only its addresses are told: another one on this machine would answer
    anybody here with the user's credentials.

    Args:
        settings: the store.
        port: the preferred port.
        on_ready: called with the addresses once the server answers.

    Raises:
        StoreError: the store does not exist or has no sweep, or the server does not start.
    """
    if not store.exists(settings):
        raise StoreError(f"There is no store at {settings.database} yet. To create one, run: orch sweep --grid first")
    client = store.open_client(settings)
    settle(settings)
    experiment_id = share_views(client, settings.store_uri)
    if settings.store_uri.startswith(("http://", "https://")):
        on_ready(_pages(settings.store_uri, experiment_id, is_remote=True))
        return
    chosen = free_port(port)
    pages = replace(_pages(f"http://{HOST}:{chosen}", experiment_id, moved=chosen != port), tunnel=tunnel(chosen))
    serve(settings, chosen, lambda: on_ready(pages))
