"""What is known of an image file without decoding it, and how many unreadable ones a set may have."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from schemas.errors import DataError
from workers.data.disk_files import brief, open_regular

SKIP_COUNT, SKIP_SHARE = 5, 0.01
"""Unreadable images that a set may have: a number, or a fraction of the set where that is more."""

RANGELESS = ("I", "F")
"""PIL's modes of 32-bit pixels whose range is unknown, so they cannot be converted to eight bits."""

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""Errors that PIL raises on broken files, and `crops.load` on unsupported pixels."""

_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
"""First bytes of a format, and the bytes near the end of a complete file."""
_TAIL = 64


class ImageFacts(NamedTuple):
    """Content digest and size of an image file."""

    digest: str
    width: int
    """Pixels."""
    height: int
    """Pixels; 0 for a file that is missing, truncated or not an image."""

    @property
    def is_readable(self) -> bool:
        """Whether the file is a complete image."""
        return self.height > 0


_UNREADABLE = ImageFacts("unreadable", 0, 0)


def read_facts(path: Path) -> ImageFacts:
    """Read an image file. An unreadable file has the digest `unreadable` and no size."""
    try:
        with open_regular(path) as file:
            content = file.read()
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
            if picture.mode in RANGELESS:
                return _UNREADABLE
            if not _has_end(content):
                picture.load()  # truncated, or followed by extra bytes as some cameras write: only decoding tells
    except UNREADABLE:
        return _UNREADABLE
    return ImageFacts(hashlib.blake2b(content, digest_size=16).hexdigest(), width, height)


def size_of(path: Path) -> tuple[int, int] | None:
    """Return the width and height in an image's header, or None for a file without one."""
    try:
        with open_regular(path) as file, Image.open(file) as picture:
            return picture.size
    except UNREADABLE:
        return None


def _has_end(content: bytes) -> bool:
    return all(end in content[-_TAIL:] for start, end in _ENDS.items() if content.startswith(start))


def skip_limit(total: int) -> int:
    """Return how many unreadable images of a set of `total` are skipped before the set is refused."""
    return max(SKIP_COUNT, int(SKIP_SHARE * total))


def too_many_unreadable(what: str, names: Sequence[str], total: int) -> DataError:
    """Return the error for a set with more unreadable images than `skip_limit` allows.

    Args:
        what: the set, as the message calls it.
        names: of the unreadable images.
        total: number of images in the set.
    """
    shown = ", ".join(brief(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
    return DataError(
        f"{len(names)} of {total} images of {what} cannot be read ({shown}); up to {skip_limit(total)} would be "
        "skipped. They are missing, empty, truncated or not images: restore them, or remove their annotations."
    )
