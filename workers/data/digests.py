"""Digests of images and annotations, which enter the keys of jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from workers.data.disk_files import open_regular
from workers.data.image_facts import ImageFacts
from workers.data.readers.records import AnnotatedObject


def combine(parts: Iterable[str]) -> str:
    """Return one digest of many strings; their order counts."""
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Return the digest of a file's content.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.blake2b(file.read(), digest_size=16).hexdigest()


def content_digest(records: Sequence[AnnotatedObject], facts: Sequence[ImageFacts]) -> str:
    """Return the digest of everything that determines the crops of objects and their landmarks.

    Args:
        facts: of each object's image.
    """
    boxes = combine(f"{record.box} {sorted(record.landmarks.items())}" for record in records)
    return combine([records_digest(records, facts), boxes])[:16]


def masks_digest(records: Sequence[AnnotatedObject]) -> str:
    """Return the digest of the objects' files of part masks.

    Raises:
        OSError: a file cannot be read.
    """
    return combine(file_digest(path) for path in sorted({r.masks for r in records if r.masks}))[:16]


def records_digest(records: Sequence[AnnotatedObject], facts: Sequence[ImageFacts]) -> str:
    """Return the digest of objects' names and images; the location of the data root does not enter it.

    Args:
        facts: of each object's image.
    """
    return combine(f"{record.name} {image.digest}" for record, image in zip(records, facts, strict=True))
