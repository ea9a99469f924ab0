"""Which entries of a user's folders are read: regular files only, and no files that an operating system hides."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from schemas.errors import DataError

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_SHOWN = 60


def is_hidden(name: str) -> bool:
    """Return whether an entry belongs to the operating system: `._photo.jpg`, `.DS_Store`, `Thumbs.db`."""
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def visible_names(folder: Path) -> list[str]:
    """Return the names of a folder's entries that are not hidden, sorted; empty where there is no such folder.

    Raises:
        DataError: the folder cannot be listed.
    """
    if not os.path.isdir(folder):
        return []
    try:
        return sorted(name for name in os.listdir(folder) if not is_hidden(name))
    except OSError as error:
        raise DataError(
            f"The folder {printable(folder)} cannot be listed ({error.strerror}). Repair its permissions."
        ) from error


def unusual_kind(path: Path) -> str:
    """Return what an entry is instead of a regular file, such as `a pipe`; empty for a regular file.

    Raises:
        OSError: there is no such entry, or a link leads nowhere.
        ValueError: no entry can have this name.
    """
    return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file; opening a pipe would wait for ever.

    Raises:
        OSError: the file cannot be opened, or is not a regular one.
        ValueError: no file can have this name.
    """
    if kind := unusual_kind(path):
        raise OSError(errno.EINVAL, f"{kind}, not a file")
    return open(path, "rb")


def printable(path: Path | str) -> str:
    r"""Return a path or name as text that can be encoded, with bytes that are not UTF-8 as `\xe9`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def brief(text: str, limit: int = _SHOWN) -> str:
    """Return a text from a user's file for a message: on one line, and its beginning only where it is long."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
