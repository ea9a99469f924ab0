"""Values of files are read once per stamp, kept on disk, and never kept for unreadable files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.data.file_cache import FileCache


class Texts:
    """Reads files and remembers which ones; an empty file is unreadable."""

    def __init__(self, stored_at: Path | None) -> None:
        self.read: list[str] = []
        self.cache = FileCache(self._text, is_readable=bool, stored_at=stored_at)

    def _text(self, path: Path) -> str:
        self.read.append(path.name)
        return path.read_text() if path.exists() else ""


def write(folder: Path, **contents: str) -> list[Path]:
    for name, content in contents.items():
        (folder / name).write_text(content)
    return [folder / name for name in contents]


def test_a_file_is_read_once_and_again_when_its_stamp_changes(tmp_path: Path) -> None:
    texts, paths = Texts(None), write(tmp_path, a="one", b="two")
    assert texts.cache.values([*paths, paths[0]]) == ["one", "two", "one"]
    assert texts.cache.values(paths) == ["one", "two"]
    write(tmp_path, a="three")
    assert texts.cache.values(paths) == ["three", "two"]
    os.utime(paths[1], ns=(1, 1))
    assert texts.cache.values(paths) == ["three", "two"]
    assert sorted(texts.read) == ["a", "a", "b", "b"]


def test_values_outlive_the_process_but_for_unreadable_files(tmp_path: Path) -> None:
    paths, stored_at = write(tmp_path, a="one", b=""), tmp_path / "new/cache.json"
    assert Texts(stored_at).cache.values([*paths, tmp_path / "missing"]) == ["one", "", ""]
    later = Texts(stored_at)
    assert later.cache.values([*paths, tmp_path / "missing"]) == ["one", "", ""]
    assert sorted(later.read) == ["b", "missing"]
    assert [path.name for path in stored_at.parent.iterdir()] == ["cache.json"]


@pytest.mark.parametrize("damaged", ["", '{"half', "[1, 2]", '{"a": 1}', '{"a": [1, 2]}', "\udcff"])
def test_a_damaged_copy_is_replaced(tmp_path: Path, damaged: str) -> None:
    paths, stored_at = write(tmp_path, a="one"), tmp_path / "cache.json"
    stored_at.write_bytes(damaged.encode(errors="surrogateescape"))
    assert Texts(stored_at).cache.values(paths) == ["one"]
    assert Texts(stored_at).cache.values(paths) == ["one"]
    later = Texts(stored_at)
    later.cache.values(paths)
    assert later.read == []


def test_a_copy_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    paths = write(tmp_path, a="one", cache="a file where a folder should be")
    texts = Texts(tmp_path / "cache/files.json")
    assert texts.cache.values(paths[:1]) == texts.cache.values(paths[:1]) == ["one"]
    assert texts.read == ["a"]


def test_a_copy_is_written_only_when_it_grew(tmp_path: Path) -> None:
    paths, stored_at = write(tmp_path, a="one"), tmp_path / "cache.json"
    Texts(stored_at).cache.values(paths)
    os.utime(stored_at, ns=(1, 1))
    Texts(stored_at).cache.values(paths)
    assert stored_at.stat().st_mtime_ns == 1
