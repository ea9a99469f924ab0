"""What annotation files say, parsed once: kept in the process and, where there is a cache, on disk too."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FOLDER = "annotations"

_Stamp = tuple[int, int]
_KNOWN: dict[str, dict[str, tuple[_Stamp, Any]]] = {}
"""By kind of file, then by path: size and time of change, and what the file says."""
_ON_DISK: dict[tuple[str, Path], int] = {}
"""How many files of a kind a cache is known to hold."""


def parsed(kind: str, paths: Sequence[Path], parse: Callable[[Path], Any], cache_dir: Path | None) -> list[Any]:
    """What each file says, in the order of `paths`.

    Files not known yet are parsed by as many threads as there are cores: inflating them takes most of the time, and
    that does not hold Python's lock.

    Args:
        kind: of the files and of `parse`, with its version: another parser needs another name.
        parse: gives a list of what JSON can hold, unchanged by a round trip. Its last element says why the file cannot
            be read, and is empty where it can; a file that cannot is never remembered.
    """
    known = _KNOWN.setdefault(kind, {})
    if cache_dir is not None and (kind, cache_dir) not in _ON_DISK:
        stored = _load(cache_dir / FOLDER / f"{kind}.json")
        known.update(stored)
        _ON_DISK[kind, cache_dir] = len(stored)
    stamps = {path: _stamp(path) for path in paths}
    missing = [path for path in stamps if known.get(str(path), ((-1, -1), None))[0] != stamps[path]]
    fresh: dict[Path, Any] = {}
    if missing:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            fresh = dict(zip(missing, pool.map(parse, missing), strict=True))
    # A file may become readable (its permissions, its disk) without a change of size or time.
    readable = {str(path): (stamps[path], said) for path, said in fresh.items() if not said[-1]}
    known.update(readable)
    # Also what was parsed before the cache was made: planning makes no folders.
    if cache_dir is not None and (readable or _ON_DISK[kind, cache_dir] != len(known)):
        _save(cache_dir / FOLDER / f"{kind}.json", known)
        _ON_DISK[kind, cache_dir] = len(known)
    return [fresh[path] if path in fresh else known[str(path)][1] for path in paths]


def _stamp(path: Path) -> _Stamp:
    try:
        stat = os.stat(path)
    except OSError:
        return (-2, -2)  # `parse` says why
    return (stat.st_size, stat.st_mtime_ns)


def _load(path: Path) -> dict[str, tuple[_Stamp, Any]]:
    """It only saves time: a damaged one is dropped and written anew."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {name: ((size, mtime), said) for name, (size, mtime, said) in stored.items() if not said[-1]}
    return {}


def _save(path: Path, known: dict[str, tuple[_Stamp, Any]]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time at the next start, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({name: (*stamp, said) for name, (stamp, said) in known.items()}))
        os.replace(partial, path)
