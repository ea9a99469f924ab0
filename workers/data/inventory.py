"""Counts the objects, photographs, landmarks and masks under a data root without opening an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from schemas.categories import BY_ID, Category, DatasetName
from schemas.errors import DataError
from workers.data.checks import MIN_IMAGES
from workers.data.data_root import DataRoot
from workers.data.readers.records import AnnotatedObject
from workers.data.readers.sources import READERS


class CategoryCount(NamedTuple):
    """Counts of one category."""

    category: str
    objects: int
    """Objects whose box is large enough."""
    images: int
    """Photographs of these objects."""
    missing: int
    """Photographs whose file is missing."""
    landmarks: Mapping[str, int]
    """Objects on which each landmark is visible."""
    masks: int
    """Objects with part masks."""
    note: str
    """A problem, such as a file that cannot be read, or an empty string."""


class DatasetCount(NamedTuple):
    """Counts of one data set."""

    dataset: DatasetName
    folder: Path | None
    """None where the data set is absent."""
    layout: str
    """Files that are looked for under a data root."""
    categories: tuple[CategoryCount, ...]


class Inventory(NamedTuple):
    """Counts of a data root."""

    datasets: tuple[DatasetCount, ...]
    negatives: tuple[Path, int] | None
    """Folder of photographs without animals, and how many it has."""


def take_inventory(root: DataRoot) -> Inventory:
    """Count everything under a root that a reader understands."""
    found = root.negative_images()
    negatives = (found[0].parent, len(found)) if found else None
    return Inventory(tuple(_dataset(dataset, root) for dataset in READERS), negatives)


def _dataset(dataset: DatasetName, root: DataRoot) -> DatasetCount:
    counts = [_count(BY_ID[name], root) for name in root.present_categories() if BY_ID[name].dataset == dataset]
    return DatasetCount(dataset, root.folder(dataset), READERS[dataset].layout, tuple(counts))


def _count(category: Category, root: DataRoot) -> CategoryCount:
    try:
        records = root.records(category.id)
    except DataError as error:
        return CategoryCount(category.id, 0, 0, 0, {}, 0, str(error))
    images = {record.image for record in records}
    return CategoryCount(
        category=category.id,
        objects=len(records),
        images=len(images),
        missing=sum(not image.is_file() for image in images),
        landmarks=landmark_counts(category.id, records),
        masks=sum(record.masks is not None for record in records),
        note=shortage(len(records)),
    )


def landmark_counts(category: str, records: Sequence[AnnotatedObject]) -> dict[str, int]:
    """Return on how many objects each landmark of the category is visible."""
    seen = Counter(name for record in records for name in record.landmarks)
    return {name: seen[name] for name in BY_ID[category].landmarks}


def shortage(objects: int) -> str:
    """Return why so few objects cannot carry a job, or an empty string where they can."""
    return "" if objects >= MIN_IMAGES else f"too few: a job needs {MIN_IMAGES}"
