"""Prepares the photographs of a category: which crops a set holds, and the maps of their parts.

Legend: S side of the square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from schemas.categories import BY_ID
from schemas.job import RECIPE_VERSION
from schemas.order import ReportPhase
from workers.data.prepared.crops import crop, crop_parts, decode
from workers.data.prepared.digests import file_digest, records_digest, skip_limit, too_many_unreadable
from workers.data.prepared.file_facts import FileMemo, combine
from workers.data.prepared.image_sets import ImageSet, PreparedImage, ReportCount, open_set
from workers.data.readers.records import AnnotatedObject

_WORD_EVERY = 50
"""Pictures between two words about what is being done."""


def have_masks(records: Sequence[AnnotatedObject]) -> bool:
    """Whether every object has a file of masks: part interpretability is measured on all or not at all."""
    return bool(records) and all(record.masks for record in records)


def set_key(category: str, records: Sequence[AnnotatedObject], size: int, memo: FileMemo) -> str:
    """Names a set by all that decides its content."""
    boxes = combine(f"{record.box} {sorted(record.landmarks.items())}" for record in records)
    digest = combine([records_digest(records, memo), boxes])[:16]
    return f"{category.replace('/', '-')}-{size}px-{digest}-r{RECIPE_VERSION}"


def photograph_set(
    category: str,
    records: Sequence[AnnotatedObject],
    size: int,
    cache_dir: Path,
    report: ReportPhase,
    advance: ReportCount = lambda _: None,
) -> ImageSet:
    """Crops of a category's objects, `size` pixels a side, with the landmarks in them.

    Args:
        category: an id, or `sources.NEGATIVES`.

    Raises:
        DataError: too many photographs cannot be decoded.
    """
    memo = FileMemo(cache_dir)
    key = set_key(category, records, size, memo)
    memo.save()
    shape = (len(records), size, size, 3)

    def build(done: int) -> Iterator[PreparedImage | str]:
        return _crops(category, records, size, done, report)

    found = open_set(cache_dir, key, shape, build, report, advance)
    if len(found.skipped) > skip_limit(len(records)):
        raise too_many_unreadable(category, found.skipped, len(records))
    return found


def part_set(
    category: str,
    records: Sequence[AnnotatedObject],
    prepared: ImageSet,
    cache_dir: Path,
    report: ReportPhase,
    advance: ReportCount = lambda _: None,
) -> ImageSet:
    """Part maps of the pictures of a prepared set, row by row.

    Raises:
        DataError: a file of masks cannot be read, or is not of its photograph.
    """
    size = prepared.pixels_N.shape[1]
    digest = combine(file_digest(path) for path in sorted({r.masks for r in records if r.masks}))[:16]

    def build(done: int) -> Iterator[PreparedImage]:
        return _part_maps(category, records, prepared, done, FileMemo(cache_dir), report)

    shape = (len(prepared.items), size, size)
    return open_set(cache_dir, f"{prepared.key}-parts-{digest}", shape, build, report, advance)


def _crops(
    category: str, records: Sequence[AnnotatedObject], size: int, done: int, report: ReportPhase
) -> Iterator[PreparedImage | str]:
    names = BY_ID[category].landmarks if category in BY_ID else ()
    last: Path | None = None
    for i, record in enumerate(records[done:], start=done):
        if i % _WORD_EVERY == 0:
            report(f"preparing {category}: {i} of {len(records)} photographs")
        if record.image != last:
            picture, last = decode(record.image), record.image
        if picture is None:
            yield record.name
            continue
        image_SS3, landmarks_K2 = crop(picture, record, size, names)
        seen = {name: (float(r), float(c)) for name, (r, c) in zip(names, landmarks_K2, strict=True) if r == r}
        yield PreparedImage(i, record.name, image_SS3, seen)


def _part_maps(
    category: str,
    records: Sequence[AnnotatedObject],
    prepared: ImageSet,
    done: int,
    memo: FileMemo,
    report: ReportPhase,
) -> Iterator[PreparedImage]:
    from workers.data.readers.voc_masks import part_map

    size = prepared.pixels_N.shape[1]
    for row, item in enumerate(prepared.items[done:], start=done):
        if row % _WORD_EVERY == 0:
            report(f"reading part masks of {category}: {row} of {len(prepared.items)}")
        record, facts = records[item], memo.facts(records[item].image)
        parts_HW = part_map(record, BY_ID[category], (facts.height, facts.width))
        yield PreparedImage(item, record.name, crop_parts(parts_HW, record, size), {})
