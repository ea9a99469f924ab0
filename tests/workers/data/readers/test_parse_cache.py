"""AnnotatedObject files are parsed once, except those that cannot be read: these may become readable unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workers.data.readers import parse_cache as module
from workers.data.readers.parse_cache import parsed


def test_a_file_that_could_not_be_read_is_tried_again_and_a_good_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "good.mat", tmp_path / "locked.mat"]
    for path in paths:
        path.write_text("1")
    calls: list[str] = []
    locked = {"locked.mat"}

    def parse(path: Path) -> list[Any]:
        calls.append(path.name)
        return [[], "permission denied"] if path.name in locked else [[1], ""]

    monkeypatch.setattr(module, "_KNOWN", {})
    monkeypatch.setattr(module, "_ON_DISK", {})
    assert parsed("toy", paths, parse, tmp_path / "cache") == [[[1], ""], [[], "permission denied"]]
    locked.clear()
    monkeypatch.setattr(module, "_KNOWN", {})  # as in another process
    monkeypatch.setattr(module, "_ON_DISK", {})
    assert parsed("toy", paths, parse, tmp_path / "cache") == [[[1], ""], [[1], ""]]
    assert parsed("toy", paths, parse, tmp_path / "cache") == [[[1], ""], [[1], ""]]
    assert sorted(calls) == ["good.mat", "locked.mat", "locked.mat"]
