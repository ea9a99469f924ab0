"""A file is written whole or not at all, and its digest is that of its content."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from workers import files
from workers.files import open_atomically, sha256_of, write_atomically


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
