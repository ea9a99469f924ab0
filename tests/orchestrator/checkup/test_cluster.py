"""What `orch doctor` says of a Ray cluster and its nodes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestrator.checkup import cluster
from orchestrator.checkup.cluster import check_cluster
from orchestrator.checkup.result import Checked, Level
from orchestrator.checkup.survey import Node, SurveyLine
from orchestrator.settings import Settings
from workers.code_home import CodeHome, code_home
from workers.data.pushed import pulling
from workers.node_facts import NodeFacts, NodeQuestions, node_facts

NODE = Node(id="n", host="h1", cpus=4.0, gpus=0.0)


def facts(**changes: Any) -> NodeFacts:
    asked = NodeQuestions(home="/", data_root=None, tracking_uri=None, object_store=None)
    own = NodeFacts.model_validate_json(node_facts(asked.model_dump_json()))
    return own.model_copy(update={"time": time.time(), "free_gb": 100.0, **changes})


def told(monkeypatch: pytest.MonkeyPatch, settings: Settings, *lines: SurveyLine) -> list[Checked]:
    monkeypatch.setattr(cluster, "_survey", lambda order: iter([SurveyLine(nodes=(NODE,)), *lines]))
    return list(check_cluster(settings))


def test_a_machine_like_this_one_is_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = told(monkeypatch, Settings(home=tmp_path), SurveyLine(node="n", facts=facts()))
    assert [one.level for one in found] == [Level.OK, Level.OK]
    assert "same orch" in found[1].text


@pytest.mark.parametrize(
    ("changes", "says", "exit_code"),
    [
        ({"code": CodeHome(folders=("/elsewhere",), sha256="0")}, "its orch in /elsewhere differs", 5),
        ({"versions": {"torch": "", "mlflow": "", "ray": ""}}, "torch is not installed there", 5),
        ({"versions": {"torch": "1.0", "mlflow": "1.0", "ray": "1.0"}}, "torch 1.0; here it is", 0),
        ({"free_gb": 0.1}, "0.1 GB below", 4),
        ({"time": 0.0}, "behind this machine", 4),
        ({"data_sets": None}, "the data root is not there. Copy or mount", 3),
        ({"tracking": "refused"}, "cannot use the tracking server", 4),
        ({"objects": "refused"}, "cannot use the object store: refused", 4),
    ],
)
def test_what_is_wrong_with_a_node_is_said_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any], says: str, exit_code: int
) -> None:
    settings = Settings(home=tmp_path, data_root=tmp_path)
    line = SurveyLine(node="n", facts=facts(**{"data_sets": ("voc_part",), **changes}))
    wrong = [one for one in told(monkeypatch, settings, line) if one.level is not Level.OK]
    assert any(says in one.text and one.exit_code == exit_code and "h1" in one.subject for one in wrong), wrong


@pytest.fixture
def voc(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has two data sets, of which the object store has one."""
    monkeypatch.setattr(cluster, "data_sets_of", lambda root: ("voc_part", "cub200"))
    monkeypatch.setattr(pulling, "read_head", lambda store, dataset: dataset == "voc_part" or None)


@pytest.mark.usefixtures("voc")
def test_a_node_that_can_pull_what_it_lacks_is_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, data_root=tmp_path, object_store=(tmp_path / "objects").as_uri())
    found = told(monkeypatch, settings, SurveyLine(node="n", facts=facts(data_sets=("cub200",))))
    assert {one.level for one in found} == {Level.OK}
    assert found[-1].text == "lacks voc_part, which the object store has: the first job there pulls it"
    found = told(monkeypatch, settings, SurveyLine(node="n", facts=facts(data_sets=None)))
    assert [(one.level, one.text) for one in found[2:]] == [
        (Level.OK, "lacks voc_part, which the object store has: the first job there pulls it"),
        (Level.WARNING, "lacks cub200, and the object store does not have it. Run: orch data push cub200"),
    ]


@pytest.mark.usefixtures("voc")
def test_a_node_that_lacks_some_data_and_cannot_pull_them_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, data_root=tmp_path)
    found = told(monkeypatch, settings, SurveyLine(node="n", facts=facts(data_sets=("voc_part",))))
    assert (found[-1].level, found[-1].text.partition(";")[0]) == (Level.WARNING, "lacks cub200")


def test_other_code_is_a_warning_where_that_is_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = facts(code=code_home().model_copy(update={"sha256": "0"}))
    found = told(monkeypatch, Settings(home=tmp_path, code_check="warn"), SurveyLine(node="n", facts=other))
    assert Level.BAD not in [one.level for one in found]
    assert Level.WARNING in [one.level for one in found]


def test_a_node_that_was_never_heard_of_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = told(monkeypatch, Settings(home=tmp_path))
    assert (found[-1].subject, found[-1].level) == ("node h1", Level.BAD)


def test_a_port_that_is_not_rays_is_named_in_bounded_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "JOIN_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        (found,) = check_cluster(Settings(home=tmp_path, ray_address=address))
    assert found.exit_code == 5
    assert "does not answer as Ray within 1 s" in found.text


CLUSTER = """
from ray.cluster_utils import Cluster
made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [made.add_node(num_cpus=1) for _ in range(2)]
print(made.address, nodes[1].all_processes["raylet"][0].process.pid, flush=True)
input()
made.shutdown()
"""


class RayCluster(NamedTuple):
    """A head without CPUs, two nodes of one, and the process of the second one."""

    address: str
    raylet: int


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    """In a process of its own, because Ray's library keeps the first token that a process has had."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address, raylet = next(line for line in process.stdout if line.startswith("127.0.0.1:")).split()
        yield RayCluster(address, int(raylet))
        process.communicate("\n", timeout=60)


@pytest.mark.slow
def test_every_node_of_a_real_cluster_is_asked_and_one_that_hangs_does_not_hide_the_others(
    ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, ray_address=ray_cluster.address)
    found = list(check_cluster(settings))
    assert [one.level for one in found] == [Level.OK] * 4, found
    assert "3 nodes, 2 CPUs" in found[0].text
    assert sum("no job runs there" in one.text for one in found) == 1
    os.kill(ray_cluster.raylet, signal.SIGSTOP)
    try:
        found = list(check_cluster(settings))
    finally:
        os.kill(ray_cluster.raylet, signal.SIGCONT)
    wrong = [one for one in found if one.level is Level.BAD]
    assert [one.text for one in wrong] == ["no answer within 15 s. Is that machine overloaded?"]
    monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
    (refused,) = check_cluster(settings)
    assert refused.exit_code == 5
    assert "RAY_AUTH_TOKEN" in refused.text


def test_a_node_with_its_own_folders_is_asked_about_those(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = NodeQuestions(home="/of-the-driver", data_root="/of-the-driver", tracking_uri=None, object_store=None)
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("ORCH_DATA_ROOT", str(tmp_path))
    own = NodeFacts.model_validate_json(node_facts(asked.model_dump_json()))
    assert (own.home, own.data_sets) == (str(tmp_path / "own"), ())
