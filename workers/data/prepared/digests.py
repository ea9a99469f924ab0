"""Digests of data files and annotations, which enter the keys of jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from schemas.errors import DataError
from workers.data.prepared.file_facts import FileMemo, combine
from workers.data.readers.records import AnnotatedObject

SKIP_COUNT, SKIP_SHARE = 5, 0.01


def skip_limit(total: int) -> int:
    """How many unreadable images of a set are passed over before the set is refused."""
    return max(SKIP_COUNT, int(SKIP_SHARE * total))


def too_many_unreadable(what: str, names: Sequence[str], total: int) -> DataError:
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return DataError(
        f"{len(names)} of {total} images of {what} cannot be read ({shown}); up to {skip_limit(total)} would be "
        "skipped. They are missing, empty, cut off or no images: restore them, or remove their annotations."
    )


def records_digest(records: Iterable[AnnotatedObject], memo: FileMemo) -> str:
    """Of contents and names; where the data root lies does not matter."""
    return combine(f"{record.name} {memo.facts(record.image).digest}" for record in records)


def file_digest(path: Path) -> str:
    """Of an annotation file; read once in a process."""
    return _file_digest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _file_digest(path: Path, mtime_ns: int) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
