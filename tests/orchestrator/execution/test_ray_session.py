"""A private Ray that is interrupted while it starts, or has died when its pool is closed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from orchestrator.execution.pool import WorkerLayout
from orchestrator.execution.ray_pool import RayPool
from orchestrator.execution.ray_session import RaySession
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


class Slot:
    """The part of an actor class that the pool uses."""

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
