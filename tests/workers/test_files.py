"""A file is written whole or not at all, and its digest is that of its content."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from workers import files
from workers.files import link_or_copy, open_atomically, sha256_of, write_atomically


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("content", [b"bytes", "text \u00e9"])
def test_what_is_written_replaces_what_was_there(tmp_path: Path, content: bytes | str, flush: bool) -> None:
    path = tmp_path / "new folder" / "a"
    write_atomically(path, "before")
    write_atomically(path, content, flush=flush)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, "before")

    def interrupted() -> None:
        with open_atomically(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_while_flushing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_atomically(path, "before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_where_folders_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_DIRECTORY")
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a folder was opened"))
    files.flush_folder(tmp_path)


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_gets_a_second_name_and_what_had_it_keeps_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if not has_links:
        monkeypatch.setattr(files.os, "link", refused)
    new, target, other = (tmp_path / name for name in ("new", "target", "other"))
    new.write_text("new")
    target.write_text("old")
    other.hardlink_to(target) if has_links else other.write_text("old")
    for _ in range(2):  # the second time, both are one file already
        link_or_copy(new, target)
        assert (target.read_text(), other.read_text(), new.read_text()) == ("new", "old", "new")
        assert target.samefile(new) == has_links
        assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "other", "target"]


def test_a_file_that_is_gone_leaves_the_one_that_has_its_second_name(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "gone", tmp_path / "target")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
