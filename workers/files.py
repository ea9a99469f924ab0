"""Files that are whole or absent: digests, and writes that a crash cannot tear."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def open_atomically(path: Path, *, flush: bool = True, flush_name: bool = True) -> Iterator[BinaryIO]:
    """Open a new file that takes `path`'s place when the block ends without an error.

    The content is written beside `path`, flushed to the disk and renamed, so that a crash at any moment leaves the old
    file or the new one. After an error nothing is left behind: a full disk needs the room.

    Args:
        path: the file.
        flush: flush the content to the disk; False if a power cut may leave the file empty.
        flush_name: flush its folder too, so that the file has its new name after a power cut; False if the caller is
            going to do that.

    Raises:
        OSError: the folder cannot be made, or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    if flush_name:
        flush_folder(path.parent)


def write_atomically(path: Path, content: bytes | str, *, flush: bool = True) -> None:
    """Write a whole file, or leave the one that is there; see `open_atomically`. Text is encoded as UTF-8.

    Args:
        path: the file.
        content: what it is to hold.
        flush: flush file and folder to the disk; False if a power cut may lose the file, as long as no kill does.

    Raises:
        OSError: the folder cannot be made, or the file cannot be written.
    """
    with open_atomically(path, flush=flush, flush_name=flush) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def link_or_copy(source: Path, target: Path, *, flush_name: bool = True) -> None:
    """Give a file a second name (a hard link), or copy it where that cannot be done. The target is whole or absent.

    A file that has that name already is replaced and not written to, as other names of it may be in use.

    Args:
        source: the file.
        target: its second name.
        flush_name: whether the name outlives a power cut; False leaves that to a later flush of its folder.

    Raises:
        FileNotFoundError: the source does not exist.
        OSError: the folder of the target cannot be written.
    """
    link = target.with_name(f".{target.name}.{os.getpid()}.partial")
    link.unlink(missing_ok=True)
    try:
        os.link(source, link)
    except FileNotFoundError:
        raise
    except (OSError, AttributeError):  # another volume, or a system without hard links
        with open(source, "rb") as original, open_atomically(target, flush_name=flush_name) as copy:
            shutil.copyfileobj(original, copy)
        return
    try:
        os.replace(link, target)  # does nothing if both are names of one file already
    finally:
        link.unlink(missing_ok=True)
    if flush_name:
        flush_folder(target.parent)


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it outlives a power cut."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders, and flushes their entries itself
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
