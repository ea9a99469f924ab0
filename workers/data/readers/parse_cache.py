"""Contents of annotation files that are slow to parse, parsed once per file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workers.data.file_cache import FileCache

FOLDER = "annotations"
"""Folder of a cache directory with one JSON file per kind of annotation file."""


class ParseCache:
    """Parsed annotation files of one data root, by kind of file."""

    def __init__(self, cache_dir: Path | None = None) -> None:
        """Make an empty cache.

        Args:
            cache_dir: where contents are kept between processes; None keeps them in memory only.
        """
        self._cache_dir = cache_dir
        self._caches: dict[str, FileCache[list[Any]]] = {}

    def values(self, kind: str, paths: Sequence[Path], parse: Callable[[Path], list[Any]]) -> list[list[Any]]:
        """Return the content of each file, in the order of `paths`.

        Args:
            kind: name and version of `parse`; a changed parser needs a new name.
            parse: returns a list that survives a round trip through JSON. Its last element is the reason why the file
                cannot be read, or an empty string; unreadable files are never stored.
        """
        if kind not in self._caches:
            stored_at = None if self._cache_dir is None else self._cache_dir / FOLDER / f"{kind}.json"
            self._caches[kind] = FileCache(parse, is_readable=_is_readable, stored_at=stored_at)
        return self._caches[kind].values(paths)


def _is_readable(content: list[Any]) -> bool:
    return not content[-1]
