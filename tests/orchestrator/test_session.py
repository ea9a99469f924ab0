"""A private Ray that is broken off while it starts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from orchestrator.pool import RaySession


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
