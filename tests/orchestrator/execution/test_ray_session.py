"""A Ray that is interrupted while it starts, does not answer, goes away, or has died when its pool is closed."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution import joining, ray_session
from orchestrator.execution.machines import Look
from orchestrator.execution.placement import Node, Room, Wish
from orchestrator.execution.pool import RayAway
from orchestrator.execution.ray_pool import RayPool
from orchestrator.execution.ray_session import RaySession, ray_errors_named
from orchestrator.import_path import HOME
from schemas.errors import ResourceError
from schemas.sweep import Needs


def test_ctrl_c_while_ray_starts_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "ray"
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: folder.mkdir() or str(folder))
    monkeypatch.setattr(ray, "init", interrupted)
    with pytest.raises(KeyboardInterrupt):
        RaySession("local", cpus=1).start()
    assert not folder.exists()


def test_a_node_that_dies_while_ray_starts_is_a_lack_of_resources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def timed_out(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray raises it

    folder = tmp_path / "ray"
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: folder.mkdir() or str(folder))
    monkeypatch.setattr(ray, "init", timed_out)
    with pytest.raises(ResourceError, match=r"timed out during startup.*memory and /tmp"):
        RaySession("local", cpus=1).start()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("answers", "is_node"),
    [([set(), set(), {"127.0.0.1"}], True), ([{"10.9.9.9"}], False), ([set()], False)],
    ids=["its node registers a moment later", "other machines", "no node ever"],
)
def test_a_head_that_has_just_started_is_waited_for_until_it_has_a_node(
    answers: list[set[str]], is_node: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(answers)
    monkeypatch.setattr(ray_session, "_addresses_of_nodes", lambda head: left.pop(0) if left[1:] else left[0])
    monkeypatch.setattr(ray_session, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(ray_session, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(ray_session, "_refusal", lambda host, port: "")
    session = RaySession("127.0.0.1:6379", cpus=1)
    if is_node:
        session._knock()
        assert left == [{"127.0.0.1"}]
    else:
        with pytest.raises(ResourceError, match=r"is no node of the Ray cluster at 127\.0\.0\.1:6379"):
            session._knock()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer_is_named_at_once(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(ResourceError, match=rf"No Ray answers at {address} .*correct ORCH_RAY_ADDRESS"):
        RaySession(address, cpus=1).start()
    assert time.monotonic() - began < 20


def test_ray_is_imported_by_a_driver_with_the_variables_that_keep_its_output_clean() -> None:
    code = (
        "from orchestrator.execution.ray_session import RaySession\n"
        "from schemas.errors import ResourceError\n"
        "try:\n"
        "    RaySession('127.0.0.1:1', cpus=1).join()\n"
        "except ResourceError:\n"
        "    from ray._private import ray_constants\n"
        "    print(ray_constants.RAY_DEDUP_LOGS_SKIP_REGEX)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, timeout=120)
    assert found.stdout == ".\n", found.stderr


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(ResourceError, match="ORCH_RAY_ADDRESS 'head:many' is no address"):
        RaySession("head:many", cpus=1).start()


def test_no_error_of_ray_counts_as_a_defect() -> None:
    from ray.exceptions import RaySystemError

    with pytest.raises(ResourceError, match="Ray failed: RaySystemError: System error: gone"), ray_errors_named():
        raise RaySystemError("gone")
    with pytest.raises(ZeroDivisionError), ray_errors_named():
        raise ZeroDivisionError


def test_a_plain_connection_error_of_rays_client_is_named_and_any_other_is_not() -> None:
    of_ray: dict[str, Any] = {"__name__": "ray.util.client.worker"}
    exec("def connect(): raise ConnectionError('ray client connection timeout')", of_ray)
    with pytest.raises(ResourceError, match="Ray failed: ConnectionError: ray client"), ray_errors_named():
        of_ray["connect"]()
    with pytest.raises(ConnectionError), ray_errors_named():
        raise ConnectionError("of somebody else")


@pytest.mark.parametrize(
    ("address", "advice"), [("local", "The private Ray of this sweep"), ("head:6379", "Start its head again")]
)
def test_a_ray_that_cannot_be_left_is_named_with_what_helps(
    monkeypatch: pytest.MonkeyPatch, address: str, advice: str
) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(ray_session, "STOP_SECONDS", 0.0)
    monkeypatch.setattr(ray_session, "_set_environment", lambda: None)
    monkeypatch.setattr(RaySession, "stop", lambda session: is_over.wait(60))
    with pytest.raises(RayAway, match=advice) as raised:
        RaySession(address, cpus=1).join()
    is_over.set()
    assert ("head" in str(raised.value)) == (address != "local")


class Away:
    """A cluster that answers `join` when it is asked for the third time, and then for good."""

    is_private = False

    def __init__(self, back_after: int = 3, problem: ResourceError | None = None) -> None:
        self.asked, self.back_after = 0, back_after
        self.problem = problem or RayAway("No Ray answers at head:6379 (Connection refused).")

    def look(self, workers: Sequence[str]) -> Look:
        if self.asked < self.back_after:
            raise RayAway("No Ray answers at head:6379 (Connection refused).")
        return Look((Node("n", "n", Room(1, 0, 8), Room(0, 0, 8)),))

    def join(self) -> None:
        self.asked += 1
        if self.asked < self.back_after:
            raise self.problem

    def end_of_worker_log(self) -> str:
        return ""


def pool_on(cluster: Away, **options: Any) -> RayPool:
    return RayPool(lambda: None, cluster, 2, (Needs(1, 0.0, 1.0),), **options)


def until(pool: RayPool, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert pool.wait(0.1) == []
        assert time.monotonic() < end


def test_a_cluster_that_goes_away_is_joined_again_and_meanwhile_said_to_be_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joining, "JOIN_SECONDS", 0.0)
    cluster = Away()
    pool = pool_on(cluster)
    until(pool, lambda: "head:6379 (Connection refused)" in pool.waiting())
    assert "waited for, for up to 10 min" in pool.waiting()
    until(pool, lambda: list(pool.nodes()) == ["n"])
    assert (cluster.asked, pool.waiting()) == (3, "")
    pool.close()


def test_a_new_head_is_waited_for_until_the_nodes_have_joined_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "JOIN_SECONDS", 0.0)
    cluster = Away(problem=ResourceError("This machine is no node of the Ray cluster at head:6379."))
    pool = pool_on(cluster)
    until(pool, lambda: list(pool.nodes()) == ["n"])
    assert cluster.asked == 3
    pool.close()
    never = pool_on(Away(99, cluster.problem), is_joined=False)
    with pytest.raises(ResourceError, match="is no node"):
        until(never, lambda: False)


def test_a_cluster_that_stays_away_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "JOIN_SECONDS", 0.0)
    pool = pool_on(Away(99), patience=0.0)
    with pytest.raises(ResourceError, match=r"No Ray answers at head:6379 .*It was waited for 0 s"):
        until(pool, lambda: False)
    pool.close()


def test_a_cluster_that_never_answered_is_not_waited_for() -> None:
    pool = pool_on(Away(99), is_joined=False)
    with pytest.raises(RayAway, match="No Ray answers at head:6379"):
        until(pool, lambda: False)


def test_a_worker_that_fits_no_machine_is_refused_with_the_machines() -> None:
    pool = RayPool(lambda: None, Away(0), 2, (Needs(2, 0.0, 1.0),))
    with pytest.raises(ResourceError, match=r"2 CPUs and 1 GB fits on no machine: the cluster has 1 machine of 1 CPU"):
        until(pool, lambda: pool.ask([Wish(Needs(2, 0.0, 1.0))]) is not None)  # as a driver asks in each turn
    assert pool.waiting() == ""
    pool.close()


class Scaled(Away):
    """A cluster of one small machine, whose autoscaler says what it can add none for."""

    def __init__(self) -> None:
        super().__init__(0)
        self.answer = Look((Node("n", "n", Room(1, 0, 8), Room(1, 0, 8)),), refused=())

    def look(self, workers: Sequence[str]) -> Look:
        return self.answer


def test_a_worker_that_fits_no_machine_waits_for_the_autoscaler_to_say_that_it_can_add_none() -> None:
    cluster, needs = Scaled(), Needs(2, 0.0, 1.0)
    pool = RayPool(worker_classes, cluster, 2, (needs,))

    def ask() -> None:
        pool.ask([Wish(needs)])

    until(pool, lambda: ask() or "no machine is large enough" in pool.waiting())
    cluster.answer = cluster.answer._replace(refused=(Room(3, 0, 1),))  # of another sweep
    until(pool, lambda: pool._watch is not None and pool._watch.newest == cluster.answer)
    assert pool.wait(0.1) == []
    cluster.answer = cluster.answer._replace(refused=(Room(3, 0, 1), Room(2, 0, 1)))
    with pytest.raises(ResourceError, match=r"2 CPUs and 1 GB fits .* 1 machine of 1 CPU.*autoscaler can add none"):
        until(pool, lambda: False)
    pool.close()


def test_once_a_machine_was_large_enough_its_loss_is_waited_for() -> None:
    cluster, needs = Scaled(), Needs(2, 0.0, 1.0)
    pool = RayPool(worker_classes, cluster, 2, (needs,))
    large = Node("m", "m", Room(2, 0, 8), Room(2, 0, 8))
    small, cluster.answer = cluster.answer, cluster.answer._replace(nodes=(*cluster.answer.nodes, large))
    until(pool, lambda: len(pool.nodes()) == 2)
    cluster.answer = small._replace(refused=(Room(2, 0, 1),))
    until(pool, lambda: len(pool.nodes()) == 1)
    assert pool.wait(0.1) == []
    pool.close()


def worker_classes() -> Any:
    """Return a class whose workers cannot be requested, as if Ray did not answer."""

    class Absent:
        @classmethod
        def options(cls, **_: object) -> Any:
            return cls

        @staticmethod
        def remote(*_: str) -> None:
            raise ConnectionError

    return Absent


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_something_that_listens_and_is_no_ray_is_named_soon(scheme: str) -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(
            ResourceError, match=r"does not answer as Ray's head within 10 s\. Correct ORCH_RAY_ADDRESS"
        ):
            RaySession(address, cpus=1).start()
    assert time.monotonic() - began < 20
