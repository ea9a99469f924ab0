"""A private Ray that is broken off while it starts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from orchestrator.pool import RaySession
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
