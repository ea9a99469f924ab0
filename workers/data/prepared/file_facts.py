"""What is known of an image file, as a rule without decoding it (content, size, wholeness), remembered between runs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
"""How a format begins, and what stands near the end of a file that was not cut off."""
_TAIL = 64
RANGELESS = ("I", "F")
"""PIL's modes whose numbers have no known range, so that nobody can say which grey they mean."""


class ImageFacts(NamedTuple):
    digest: str
    width: int
    height: int
    """0 when the file is missing, not an image, or cut off."""

    @property
    def is_readable(self) -> bool:
        return self.height > 0


_UNREADABLE = ImageFacts("unreadable", 0, 0)


class FileMemo:
    """Facts by path; a file is read again when its size or time of change differs."""

    def __init__(self, cache_dir: Path | None) -> None:
        self.folder = cache_dir
        self._path = None if cache_dir is None else cache_dir / "files.json"
        self._known: dict[str, tuple[int, int, ImageFacts]] = {}
        self._grew = False
        # The memo only saves time: a damaged one is dropped, and written anew by `save`.
        with contextlib.suppress(OSError, ValueError, TypeError):
            if self._path is not None:
                stored = json.loads(self._path.read_text(encoding="utf-8"))
                self._known = {path: (size, mtime, ImageFacts(*facts)) for path, (size, mtime, facts) in stored.items()}

    def facts(self, path: Path) -> ImageFacts:
        try:
            stat = os.stat(path)
        except OSError:
            return _UNREADABLE
        size, mtime, known = self._known.get(str(path), (-1, -1, _UNREADABLE))
        if (size, mtime) == (stat.st_size, stat.st_mtime_ns):
            return known
        found = _read_facts(path)
        # A file may become readable (its permissions, its disk) without a change of size or time.
        if found.is_readable:
            self._known[str(path)] = (stat.st_size, stat.st_mtime_ns, found)
            self._grew = True
        return found

    def save(self) -> None:
        if self._path is None or not self._grew:
            return
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a read-only cache costs time at the next plan, nothing else
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self._known), encoding="utf-8")
            os.replace(partial, self._path)
        self._grew = False


def _read_facts(path: Path) -> ImageFacts:
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
            if picture.mode in RANGELESS:
                return _UNREADABLE
            if not _ends_as_it_should(content):
                picture.load()  # cut off, or followed by other bytes, as some cameras write: only decoding tells
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # what PIL raises on broken files
        return _UNREADABLE
    return ImageFacts(hashlib.blake2b(content, digest_size=16).hexdigest(), width, height)


def _ends_as_it_should(content: bytes) -> bool:
    return all(end in content[-_TAIL:] for start, end in _ENDS.items() if content.startswith(start))


def combine(parts: Iterable[str]) -> str:
    """One digest of many, in order."""
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
