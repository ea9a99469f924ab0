"""Annotation files are parsed once, except unreadable ones: these can become readable unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workers.data.readers.parse_cache import FOLDER, ParseCache


def test_a_file_that_could_not_be_read_is_tried_again_and_a_good_one_is_not(tmp_path: Path) -> None:
    paths = [tmp_path / "good.mat", tmp_path / "locked.mat"]
    for path in paths:
        path.write_text("1")
    calls: list[str] = []
    locked = {"locked.mat"}

    def parse(path: Path) -> list[Any]:
        calls.append(path.name)
        return [[], "permission denied"] if path.name in locked else [[1], ""]

    cache = ParseCache(tmp_path / "cache")
    assert cache.values("toy", paths, parse) == [[[1], ""], [[], "permission denied"]]
    locked.clear()
    cache = ParseCache(tmp_path / "cache")  # nothing in memory, as in another process
    assert cache.values("toy", paths, parse) == [[[1], ""], [[1], ""]]
    assert cache.values("toy", paths, parse) == [[[1], ""], [[1], ""]]
    assert sorted(calls) == ["good.mat", "locked.mat", "locked.mat"]


def test_another_kind_of_file_has_its_own_cache(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_text("1")
    cache = ParseCache(tmp_path)
    assert cache.values("one", [path], lambda _: [1, ""]) == [[1, ""]]
    assert cache.values("two", [path], lambda _: [2, ""]) == [[2, ""]]
    assert sorted(stored.name for stored in (tmp_path / FOLDER).iterdir()) == ["one.json", "two.json"]
