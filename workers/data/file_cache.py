"""Values read from files, remembered in memory and on disk until a file's size or modification time changes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from workers.files import write_atomically

T = TypeVar("T")
_Stamp = tuple[int, int]
"""Size in bytes and modification time in nanoseconds."""


class FileCache(Generic[T]):
    """A map from a file to the value that `read` gives for it.

    Each call compares the stamp of the file (size and modification time) with the stored one, and reads the file again
    when they differ. Values of unreadable files are returned but never stored: a file can become readable (its
    permissions, its disk) while its stamp stays the same.

    The copy on disk only saves time. A damaged copy is ignored and replaced, and a copy that cannot be written is left
    out. Several processes may share one copy; the last one to save wins. An instance belongs to one thread.
    """

    def __init__(
        self,
        read: Callable[[Path], T],
        *,
        is_readable: Callable[[T], bool],
        stored_at: Path | None = None,
        decode: Callable[[Any], T] = lambda stored: stored,
    ) -> None:
        """Make an empty cache; the copy on disk is loaded at the first use.

        Args:
            read: returns the value of one file, as JSON can hold it. It runs in several threads.
            is_readable: whether a value may be stored.
            stored_at: JSON file with the copy on disk; None keeps values in memory only.
            decode: turns a value from the JSON file into what `read` returned.
        """
        self._read = read
        self._is_readable = is_readable
        self._stored_at = stored_at
        self._decode = decode
        self._known: dict[str, tuple[_Stamp, T]] | None = None

    def values(self, paths: Iterable[Path]) -> list[T]:
        """Return the value of each file, in the order of `paths`, and save what is new.

        Unknown files are read by as many threads as there are cores.
        """
        wanted = list(paths)
        known = self._load()
        stamps = {path: _stamp(path) for path in wanted}
        missing = [path for path, stamp in stamps.items() if stamp is None or known.get(str(path), (None,))[0] != stamp]
        fresh = self._read_all(missing)
        readable = {
            str(path): (stamp, value)
            for path, value in fresh.items()
            if (stamp := stamps[path]) is not None and self._is_readable(value)
        }
        if readable:
            known.update(readable)
            self._save(known)
        return [fresh[path] if path in fresh else known[str(path)][1] for path in wanted]

    def _read_all(self, paths: list[Path]) -> dict[Path, T]:
        if len(paths) < 2:
            return {path: self._read(path) for path in paths}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return dict(zip(paths, pool.map(self._read, paths), strict=True))

    def _load(self) -> dict[str, tuple[_Stamp, T]]:
        if self._known is None:
            self._known = {}
            if self._stored_at is not None:
                with contextlib.suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
                    stored = json.loads(self._stored_at.read_text(encoding="utf-8"))
                    rows = {path: ((size, mtime), self._decode(value)) for path, (size, mtime, value) in stored.items()}
                    self._known = {path: row for path, row in rows.items() if self._is_readable(row[1])}
        return self._known

    def _save(self, known: dict[str, tuple[_Stamp, T]]) -> None:
        if self._stored_at is not None:
            with contextlib.suppress(OSError):
                write_atomically(
                    self._stored_at, json.dumps({path: (*stamp, value) for path, (stamp, value) in known.items()})
                )


def _stamp(path: Path) -> _Stamp | None:
    """Return None for a file that cannot be looked at; reading it tells why."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns
