"""Whether the data can carry a job, and the digest that says which data they are; both cheap enough for planning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from schemas.errors import DataError
from schemas.job import DataSpec
from workers.data.generated.animals import GENERATOR_VERSION
from workers.data.prepared.digests import file_digest, records_digest, skip_limit, too_many_unreadable
from workers.data.prepared.file_facts import FileMemo, ImageFacts, combine
from workers.data.readers.records import AnnotatedObject
from workers.data.readers.sources import (
    annotation_files,
    data_root_or_error,
    negative_folder,
    other_categories,
    present_categories,
    records_of,
)

MIN_IMAGES = 50
"""Objects that a category needs: with fewer, the test split has no five images to measure a filter on."""

MIN_NEGATIVES = 50
"""Images without the animal that a single-category job needs: with fewer, the test split has no five."""

_TOLERANCE = 1.5
"""Pixels by which an annotation may pass the image's edge: published boxes are rounded."""


def check_data(data: DataSpec, data_root: Path | None, *, cache_dir: Path | None = None) -> None:
    """Refuse data that cannot carry a job, before any work.

    Raises:
        DataError: no data root, too few images, too many unreadable ones, or an annotation outside its image.
    """
    if data.images == "generated":
        return
    root = data_root_or_error(data_root)
    memo = FileMemo(cache_dir)
    for category in data.categories:
        _check_records(category, records_of(category, root, memo.folder), memo)
    _check_counts(data, root, memo)
    if data.negatives == "folder":
        _check_negative_folder(negative_folder(root), memo)
    elif data.is_single:
        _check_others(data.categories[0], root, memo)
    memo.save()


def _check_negative_folder(records: Sequence[AnnotatedObject], memo: FileMemo) -> None:
    _check_records("the negatives' folder", records, memo)
    usable = _usable(records, memo)
    if usable < MIN_NEGATIVES:
        raise DataError(
            f"Too few negatives: {records[0].image.parent} has {usable} images that can be read, a job needs "
            f"{MIN_NEGATIVES}. Put more photographs there, or set `data.negatives: other_categories`."
        )


def _check_others(category_id: str, root: Path, memo: FileMemo) -> None:
    """Negatives that are the other categories' photographs."""
    found = {
        other: records
        for other in other_categories(category_id, root)
        if (records := records_of(other, root, memo.folder))
    }
    if not found:
        raise DataError(
            f"{category_id} has no negatives: {root} holds no other animal. "
            "Add another category's photographs, or set `data.negatives: folder` and give a folder `neg/`."
        )
    for other, records in found.items():
        _check_records(other, records, memo)
    counts = {other: _usable(records, memo) for other, records in found.items()}
    if sum(counts.values()) < MIN_NEGATIVES:
        named = ", ".join(f"{other} {count}" for other, count in counts.items())
        raise DataError(
            f"{category_id} has too few negatives: the other animals under {root} are {sum(counts.values())} ({named}),"
            f" a job needs {MIN_NEGATIVES}. Add another category's photographs, or set `data.negatives: folder` and "
            "give a folder `neg/`."
        )


def _check_records(what: str, records: Sequence[AnnotatedObject], memo: FileMemo) -> None:
    unreadable = []
    for record in records:
        facts = memo.facts(record.image)
        if not facts.is_readable:
            unreadable.append(record.name)
        elif (problem := misfit(record, facts)) is not None:
            raise DataError(
                f"{what}: {problem} ({record.image}). "
                "The image was probably resized or replaced: restore it, or correct the annotation."
            )
    if len(unreadable) > skip_limit(len(records)):
        raise too_many_unreadable(what, unreadable, len(records))


def misfit(record: AnnotatedObject, facts: ImageFacts) -> str | None:
    """How an annotation contradicts its image; None where it fits."""
    said, has = record.size, (facts.width, facts.height)
    if said is not None and said != has:
        return f"{record.name} is annotated as {said[0]} x {said[1]} pixels, and its image has {has[0]} x {has[1]}"
    if (problem := _outside(record, facts.width, facts.height)) is not None:
        return f"{problem} of {record.name} lies outside its image, {facts.width} x {facts.height} pixels"
    return None


def _outside(record: AnnotatedObject, width: int, height: int) -> str | None:
    box = record.box
    if box is not None and (
        min(box.left, box.top) < -_TOLERANCE or box.right > width + _TOLERANCE or box.bottom > height + _TOLERANCE
    ):
        return f"box ({box.left:g}, {box.top:g}) to ({box.right:g}, {box.bottom:g})"
    for name, (row, column) in record.landmarks.items():
        if not (-_TOLERANCE <= row <= height + _TOLERANCE and -_TOLERANCE <= column <= width + _TOLERANCE):
            return f"landmark {name} (row {row:g}, column {column:g})"
    return None


def _check_counts(data: DataSpec, root: Path, memo: FileMemo) -> None:
    short = {name: found for name in data.categories if (found := usable_count(name, root, memo)) < MIN_IMAGES}
    if not short:
        return
    named = ", ".join(f"{name} has {found}" for name, found in short.items())
    enough = [name for name in data.categories if name not in short]
    if enough:
        advice = f"These would run: --category {','.join(enough)}"
    elif others := [name for name in present_categories(root) if usable_count(name, root, memo) >= MIN_IMAGES]:
        advice = f"Other categories would run: --grid all-categories --category {','.join(others)}"
    else:
        advice = "No category under this root has enough."
    raise DataError(f"Too few photographs under {root}: {named}, a category needs {MIN_IMAGES}. {advice}")


def usable_count(category_id: str, root: Path, memo: FileMemo) -> int:
    return _usable(records_of(category_id, root, memo.folder), memo)


def _usable(records: Iterable[AnnotatedObject], memo: FileMemo) -> int:
    return sum(memo.facts(record.image).is_readable for record in records)


def data_digest(data: DataSpec, data_root: Path | None, *, cache_dir: Path | None = None) -> str:
    """Of every image and annotation that may enter the job, its negatives included."""
    if data.images == "generated":
        return f"generated-{GENERATOR_VERSION}"
    root = data_root_or_error(data_root)
    memo = FileMemo(cache_dir)
    takes_others = data.negatives == "other_categories" and data.is_single
    others = other_categories(data.categories[0], root) if takes_others else []
    parts = [category_digest(name, root, memo) for name in (*data.categories, *others)]
    if data.negatives == "folder":
        parts.append(records_digest(negative_folder(root), memo))
    memo.save()
    return combine(parts)[:16]


def category_digest(category_id: str, root: Path, memo: FileMemo) -> str:
    annotations = [file_digest(path) for path in annotation_files(category_id, root, memo.folder)]
    records = records_of(category_id, root, memo.folder)
    return combine([category_id, *annotations, records_digest(records, memo)])
