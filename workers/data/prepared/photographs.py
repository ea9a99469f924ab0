"""Prepares the photographs of a category: crops of its objects, and the maps of their parts.

Legend: S side of the square.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, groupby
from typing import TypeVar

from schemas.job import RECIPE_VERSION
from schemas.order import ReportPhase
from workers.data.data_root import DataRoot
from workers.data.image_facts import skip_limit, too_many_unreadable
from workers.data.prepared.crops import crop, crop_parts, decode
from workers.data.prepared.image_sets import ImageSet, PreparedImage, ReportCount, open_set
from workers.data.readers.records import AnnotatedObject

_REPORT_EVERY = 50
"""Pictures between two reports of the phase."""
DECODERS = min(4, os.cpu_count() or 1)
"""Threads that decode photographs: each holds one, which may be large."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def have_masks(records: Sequence[AnnotatedObject]) -> bool:
    """Return whether every object has a file of masks; part interpretability needs the masks of all."""
    return bool(records) and all(record.masks for record in records)


def set_key(root: DataRoot, category: str, size: int) -> str:
    """Return the name of a set, which contains a digest of everything that determines its content.

    Args:
        size: side of a crop, in pixels.
    """
    return f"{category.replace('/', '-')}-{size}px-{root.content_digest(category)}-r{RECIPE_VERSION}"


def part_set_key(root: DataRoot, category: str, size: int) -> str:
    """Return the name of the set of part maps of a category, which contains a digest of its files of masks."""
    return f"{set_key(root, category, size)}-parts-{root.masks_digest(category)}"


def photograph_set(
    root: DataRoot, category: str, size: int, report: ReportPhase, advance: ReportCount = lambda _: None
) -> ImageSet:
    """Return the crops of a category's objects with their landmarks, prepared now if they are not in the cache.

    Args:
        root: opened with a cache folder.
        category: an id, or `sources.NEGATIVES`.
        size: side of a crop, in pixels.

    Raises:
        DataError: too many photographs cannot be decoded.
        StoreError: the cache cannot be written.
    """
    assert root.cache_dir is not None
    records = root.records(category)
    key = set_key(root, category, size)
    shape = (len(records), size, size, 3)

    def build(done: int) -> Iterator[PreparedImage | str]:
        return crops(category, records, root.category(category).landmarks, size, done, report)

    found = open_set(root.cache_dir, key, shape, build, report, advance, root.fetch_set)
    if len(found.skipped) > skip_limit(len(records)):
        raise too_many_unreadable(category, found.skipped, len(records))
    return found


def part_set(
    root: DataRoot, category: str, prepared: ImageSet, report: ReportPhase, advance: ReportCount = lambda _: None
) -> ImageSet:
    """Return the part maps of the pictures of a prepared set, in the same rows.

    Args:
        root: opened with a cache folder.

    Raises:
        DataError: a file of masks cannot be read, or has another size than its photograph.
        StoreError: the cache cannot be written.
    """
    assert root.cache_dir is not None
    size = prepared.pixels_N.shape[1]

    def build(done: int) -> Iterator[PreparedImage]:
        return _part_maps(root, category, prepared, done, report)

    shape = (len(prepared.items), size, size)
    key = f"{prepared.key}-parts-{root.masks_digest(category)}"
    return open_set(root.cache_dir, key, shape, build, report, advance, root.fetch_set)


def crops(
    category: str,
    records: Sequence[AnnotatedObject],
    names: Sequence[str],
    size: int,
    done: int,
    report: ReportPhase,
) -> Iterator[PreparedImage | str]:
    """Yield the crops of a category's objects in their order, or the name of an object that cannot be decoded.

    Threads decode the next photographs meanwhile.

    Args:
        category: named in the phase.
        records: the objects.
        names: landmarks of a crop.
        size: side of a crop, in pixels.
        done: number of objects at the start that are left out.
        report: receives the phase; an error that it raises ends the preparation.
    """
    numbered = enumerate(records[done:], start=done)
    photographs = (list(objects) for _, objects in groupby(numbered, key=lambda one: one[1].image))
    prepared = chain.from_iterable(_ahead(partial(_crops_of_one, names=names, size=size), photographs))
    for number, image in enumerate(prepared, start=done):
        if number % _REPORT_EVERY == 0:
            report(f"preparing {category}: {number} of {len(records)} photographs")
        yield image


def _crops_of_one(
    objects: Sequence[tuple[int, AnnotatedObject]], *, names: Sequence[str], size: int
) -> list[PreparedImage | str]:
    """Return the crops of the objects of one photograph, each with its number."""
    picture = decode(objects[0][1].image)
    if picture is None:
        return [record.name for _, record in objects]
    found: list[PreparedImage | str] = []
    for number, record in objects:
        image_SS3, landmarks_K2 = crop(picture, record, size, names)
        seen = {name: (float(r), float(c)) for name, (r, c) in zip(names, landmarks_K2, strict=True) if r == r}
        found.append(PreparedImage(number, record.name, image_SS3, seen))
    return found


def _ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of the items in their order, while threads work on the next ones."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(DECODERS, thread_name_prefix="orch-decode") as threads:
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) > 2 * DECODERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _part_maps(
    root: DataRoot, category: str, prepared: ImageSet, done: int, report: ReportPhase
) -> Iterator[PreparedImage]:
    from workers.data.readers.part_maps import part_map

    records, size = root.records(category), prepared.pixels_N.shape[1]
    for row, item in enumerate(prepared.items[done:], start=done):
        if row % _REPORT_EVERY == 0:
            report(f"reading part masks of {category}: {row} of {len(prepared.items)}")
        record, (facts,) = records[item], root.image_facts([records[item]])
        parts_HW = part_map(record, root.category(category), (facts.height, facts.width))
        yield PreparedImage(item, record.name, crop_parts(parts_HW, record, size), {})
