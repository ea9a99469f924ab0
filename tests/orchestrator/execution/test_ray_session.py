"""A Ray that is interrupted while it starts, does not answer, goes away, or has died when its pool is closed."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest

from orchestrator.execution import ray_pool
from orchestrator.execution.pool import RayAway, WorkerLayout
from orchestrator.execution.ray_pool import RayPool
from orchestrator.execution.ray_session import RaySession, ray_errors_named
from schemas.errors import ResourceError


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


class Started:
    """The answer of a worker that has started."""

    @staticmethod
    def remote() -> None: ...


class Slot:
    """The part of an actor class that the pool uses."""

    __ray_ready__ = Started

    @classmethod
    def options(cls, **_: object) -> type[Slot]:
        return cls

    @classmethod
    def remote(cls) -> Slot:
        return cls()


def test_slots_whose_ray_is_gone_are_closed_without_asking_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ray.kill` would start a Ray first if none is running."""
    import ray

    killed: list[object] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    RayPool(Slot, WorkerLayout(slots=2, cpus=1, gpus=0.0)).close()
    assert killed == []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    RayPool(Slot, WorkerLayout(slots=2, cpus=1, gpus=0.0)).close()
    assert len(killed) == 2


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer_is_named_at_once(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(ResourceError, match=rf"No Ray answers at {address} .*correct ORCH_RAY_ADDRESS"):
        RaySession(address, cpus=1).start()
    assert time.monotonic() - began < 20


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(ResourceError, match="ORCH_RAY_ADDRESS 'head:many' is no address"):
        RaySession("head:many", cpus=1).start()


class Cluster:
    """A cluster that is away until it is asked for the third time."""

    def __init__(self, back_after: int = 3) -> None:
        self.asked, self.back_after = 0, back_after

    def revive(self) -> bool:
        self.asked += 1
        if self.asked < self.back_after:
            raise RayAway("No Ray answers at head:6379 (Connection refused).")
        return self.asked == self.back_after


def test_a_cluster_that_goes_away_and_comes_back_gets_new_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(RayPool, "_check_starts", lambda self: None)
    pool = RayPool(Slot, WorkerLayout(slots=2, cpus=1, gpus=0.0), revive=Cluster().revive)
    slots = []
    for _ in range(4):
        assert pool.wait(0.0) == []
        slots.append(pool.slots)
    assert slots == [0, 0, 2, 2]
    assert pool.progress() == {}


def test_a_cluster_that_stays_away_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(RayPool, "_check_starts", lambda self: None)
    pool = RayPool(Slot, WorkerLayout(slots=1, cpus=1, gpus=0.0), revive=Cluster(99).revive, patience=0.0)
    pool.wait(0.0)
    with pytest.raises(ResourceError, match=r"No Ray answers at head:6379 .*It was waited for 0 s"):
        pool.wait(0.0)


def test_no_error_of_ray_counts_as_a_defect() -> None:
    from ray.exceptions import RaySystemError

    with pytest.raises(ResourceError, match="Ray failed: RaySystemError: System error: gone"), ray_errors_named():
        raise RaySystemError("gone")
    with pytest.raises(ZeroDivisionError), ray_errors_named():
        raise ZeroDivisionError
