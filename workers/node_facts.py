"""What a machine of a cluster says about itself, for `orch doctor`: software, devices, disk, data, and what it reaches.

It runs in a Ray task, and imports nothing heavy before an answer needs it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from schemas.base import Frozen
from schemas.errors import DataError
from workers.code_home import CodeHome, code_home, version_of
from workers.loopback import bypass_proxies_for_loopback
from workers.node_folders import DATA_ROOT, HOME
from workers.secret_files import read_secret_files
from workers.tracking.access import denial, is_denied, without_password
from workers.tracking.outages import wait_briefly

LIBRARIES = ("torch", "mlflow", "ray")
"""Libraries whose versions are compared."""
ANSWER_SECONDS = 5.0
"""Longest time to wait for a server's first answer, and for a driver of GPUs."""


class NodeQuestions(Frozen):
    """What a machine is asked."""

    home: str
    """ORCH_HOME of the driver, which counts where a node has none of its own."""
    data_root: str | None
    """The same of ORCH_DATA_ROOT; None if only generated animals are used."""
    tracking_uri: str | None
    """None if the tracking store is not a server."""
    object_store: str | None


class NodeFacts(Frozen):
    """What a machine answered."""

    host: str
    python: str
    versions: dict[str, str]
    """Versions of LIBRARIES; an empty text if one is not installed."""
    code: CodeHome
    time: float
    """Unix seconds by its clock."""
    home: str
    """Its ORCH_HOME."""
    free_gb: float
    """Free space of the disk of that."""
    gpus: tuple[str, ...]
    """Name and driver of each GPU."""
    data_sets: tuple[str, ...] | None
    """Data sets below its data root; None if that is not a folder there."""
    tracking: str
    """Why the tracking server cannot be used from there; empty if it can, or was not asked about."""
    objects: str
    """The same of the object store."""


def node_facts(questions_json: str) -> str:
    """Return the facts about this machine as JSON.

    Args:
        questions_json: NodeQuestions.
    """
    asked = NodeQuestions.model_validate_json(questions_json)
    bypass_proxies_for_loopback()
    home = Path(os.environ.get(HOME) or asked.home).expanduser().absolute()
    data_root = (os.environ.get(DATA_ROOT) or asked.data_root) if asked.data_root else None
    facts = NodeFacts(
        host=socket.gethostname(),
        python=".".join(map(str, sys.version_info[:3])),
        versions={name: version_of(name) for name in LIBRARIES},
        code=code_home(),
        time=time.time(),
        home=str(home),
        free_gb=shutil.disk_usage(next(path for path in (home, *home.parents) if path.is_dir())).free / 2**30,
        gpus=_gpus(),
        data_sets=data_sets_of(Path(data_root).expanduser()) if data_root else (),
        tracking=_problem(lambda: _ask_tracking(asked.tracking_uri)),
        objects=_problem(lambda: _ask_objects(asked.object_store)),
    )
    return facts.model_dump_json()


def data_sets_of(root: Path) -> tuple[str, ...] | None:
    """Return the names of the data sets below a folder; None if it cannot be listed."""
    from workers.data.data_root import DataRoot

    try:
        next(root.iterdir(), None)
    except OSError:
        return None
    try:
        return tuple(DataRoot(root).datasets())
    except DataError:  # a damaged description, which `orch data list` names
        return ()


def _gpus() -> tuple[str, ...]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.replace(", ", " (driver ") + ")" for line in done.stdout.strip().splitlines())


def _problem(question: Callable[[], None]) -> str:
    try:
        question()
    except Exception as error:  # noqa: BLE001 - the error is the answer
        return without_password(next(iter(str(error).strip().splitlines()), type(error).__name__))
    return ""


def _ask_tracking(uri: str | None) -> None:
    if uri is None:
        return
    read_secret_files()
    with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS):
        pass
    wait_briefly()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except MlflowException as error:
        if is_denied(error):
            raise denial(uri, error) from error
        raise


def _ask_objects(uri: str | None) -> None:
    if uri is None:
        return
    from workers.objects.base import open_objects

    open_objects(uri).size("doctor/none")
