"""Opens MLflow's own UI on the right store, with the columns that say what a sweep found."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.ledger import store
from orchestrator.ledger.store import EXPERIMENT, reaching
from orchestrator.settings import Settings
from schemas.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

HOST = "127.0.0.1"
START_SECONDS = 120.0


class View(NamedTuple):
    """A table of runs, under the key by which MLflow's page finds it."""

    key: str
    search: str
    columns: tuple[str, ...]
    order_by: str
    """By the date of creation MLflow folds jobs under their sweep; by anything else it lists them."""
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
    """What MLflow keeps when a person shares a view of the runs table; the page reads it by its key."""
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
    """Leave the views in the store; returns the experiment's id."""
    with reaching(uri):
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            raise StoreError(f"The store {uri} has no experiment {EXPERIMENT!r} yet. Run a sweep first.")
        for view in (JOBS, SWEEPS):
            client.set_experiment_tag(experiment.experiment_id, f"mlflow.sharedViewState.{view.key}", view_state(view))
        return str(experiment.experiment_id)


def page(base: str, experiment_id: str, view: View) -> str:
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?viewStateShareKey={view.key}"


def free_port(wanted: int) -> int:
    """`wanted`, or any free port where somebody else has it."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StoreError(f"No port of {HOST} is free for the UI.")


def serve(settings: Settings, port: int, on_ready: Callable[[], None]) -> int:
    """Run MLflow's server in the foreground until it ends or the user stops it; returns its exit code.

    Raises:
        StoreError: it ended before it answered.
    """
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings.store_uri,
        "--host", HOST, "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    if settings.artifact_uri:
        command += ["--default-artifact-root", settings.artifact_uri]
    # One process for the API; the job runner would add four that nothing here uses.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server never outlives this process
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(server, " ".join(command), f"http://{HOST}:{port}/health")
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


def _await(server: subprocess.Popen[bytes], command: str, health: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise StoreError(
                f"MLflow's server ended at once with code {server.returncode}. Run it by hand to see why: {command}"
            )
        try:
            with urllib.request.urlopen(health, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise StoreError(f"MLflow's server did not answer within {START_SECONDS:.0f} s.")


@dataclass(frozen=True)
class UiPages:
    jobs: str
    sweeps: str
    moved: bool
    """The wanted port was busy, so another one is used."""


def serve_ui(settings: Settings, port: int, on_ready: Callable[[UiPages], None]) -> None:
    """Run MLflow's UI until the user stops it; `on_ready` hears where it is."""
    if not store.exists(settings):
        raise StoreError(f"There is no store at {settings.database} yet. `orch sweep --grid smoke` makes one.")
    experiment_id = share_views(store.open_client(settings), settings.store_uri)
    chosen = free_port(port)
    base = f"http://{HOST}:{chosen}"
    pages = UiPages(
        jobs=page(base, experiment_id, JOBS), sweeps=page(base, experiment_id, SWEEPS), moved=chosen != port
    )
    serve(settings, chosen, lambda: on_ready(pages))
