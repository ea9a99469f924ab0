"""A Ray cluster with Ray's own autoscaler, which starts and ends nodes as processes of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from ray._private import parameter
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider

from orchestrator.execution.in_time import within
from orchestrator.import_path import HOME

HEAD_TYPE = "ray.head.default"
IDLE_MINUTES = 0.1
"""After so long without work the autoscaler ends a node."""
STARTS = 3
"""Tries to start the head, which gives up after 30 s on a busy machine."""


class NodeProcesses(FakeMultiNodeProvider):
    """Ray's fake provider, which does not know the memory of a node."""

    def _create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: int, resources: Mapping[str, Any], labels: Any
    ) -> None:
        plain, rest = parameter.RayParams, {name: value for name, value in resources.items() if name != "memory"}

        def with_memory(**named: Any) -> parameter.RayParams:
            return plain(memory=resources["memory"], **named)

        with mock.patch.object(parameter, "RayParams", with_memory):
            super()._create_node_with_resources_and_labels(node_config, tags, count, rest, labels)


@contextmanager
def autoscaling_cluster(
    folder: Path, port: int, kinds: Mapping[str, Mapping[str, int]], *, version: int
) -> Iterator[str]:
    """Start a head without CPUs and its autoscaler; yield the head's address.

    Args:
        folder: Keeps Ray's files; a short path.
        port: Of the head.
        kinds: CPUs (`CPU`), and `least` and `most` nodes, by the name of a kind of nodes.
        version: Of the autoscaler, 1 or 2.
    """
    address = f"127.0.0.1:{port}"
    config = folder / "autoscaler.json"
    config.write_text(json.dumps(_config(address, kinds, version)))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((HOME, os.environ.get("PYTHONPATH", ""))),
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": str(version - 1),
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    }
    ray = str(Path(sys.executable).with_name("ray"))
    command = [
        ray, "start", "--head", "--block", "--num-cpus=0", f"--port={port}", "--node-ip-address=127.0.0.1",
        "--include-dashboard=false", f"--temp-dir={folder}", f"--autoscaling-config={config}",
    ]  # fmt: skip
    head = None
    try:
        for _ in range(STARTS):
            with open(folder / "head.log", "w") as log:
                head = subprocess.Popen(
                    command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
            while head.poll() is None and kinds_of_nodes(address) is None:
                time.sleep(0.5)
            if head.poll() is None:
                break
        yield address
    finally:
        own = [process for process in psutil.process_iter() if str(folder) in _command(process)]
        if head is not None and head.poll() is None:
            head.send_signal(signal.SIGTERM)
        psutil.wait_procs(own, timeout=20)
        for process in own:
            if process.is_running():
                process.kill()
        if head is not None:
            head.wait(20)


def kinds_of_nodes(address: str) -> list[str] | None:
    """Return the kinds of the live nodes that the autoscaler has added; None if the head does not answer."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DEAD, GetClusterStatusReply

    try:
        answer = within(5.0, lambda: GcsClient(address=address).get_cluster_status(timeout_s=5))
    except Exception:  # noqa: BLE001 - of whichever kind: it has not started
        return None
    states = GetClusterStatusReply.FromString(answer).cluster_resource_state.node_states
    alive = [each for each in states if each.status != DEAD]
    added = sorted(each.ray_node_type_name for each in alive if each.total_resources.get("CPU"))
    return added if alive else None


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _config(address: str, kinds: Mapping[str, Mapping[str, int]], version: int) -> dict[str, Any]:
    types: dict[str, Any] = {
        name: {
            "resources": {"CPU": kind["CPU"], "memory": 4 * 2**30},
            "node_config": {},
            "min_workers": kind["least"],
            "max_workers": kind["most"],
        }
        for name, kind in kinds.items()
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    lists = (
        "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
        "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter",
    )  # fmt: skip
    unused: dict[str, Any] = {name: [] for name in lists} | {"auth": {}, "docker": {}, "file_mounts": {}}
    return unused | {
        "cluster_name": "tests",
        "max_workers": sum(kind["most"] for kind in kinds.values()),
        "idle_timeout_minutes": IDLE_MINUTES,
        "file_mounts_sync_continuously": False,
        "provider": {
            "type": "external",
            "module": f"{__name__}.{NodeProcesses.__name__}",
            "gcs_address": address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": version == 2,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "foreground_node_launch": True,
            "use_node_id_as_ip": True,
            "worker_liveness_check": False,
            "worker_rpc_drain": True,
        },
        "available_node_types": {HEAD_TYPE: head} | types,
        "head_node_type": HEAD_TYPE,
    }
