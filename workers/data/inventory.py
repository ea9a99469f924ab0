"""What lies under a data root, counted without opening an image: objects, photographs, landmarks, masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from schemas.categories import BY_ID, CATEGORIES, Category, DatasetName
from schemas.errors import DataError
from workers.data.checks import MIN_IMAGES
from workers.data.readers.records import AnnotatedObject
from workers.data.readers.sources import READERS, negative_images, records_of


class CategoryCount(NamedTuple):
    category: str
    objects: int
    """Large enough to be used."""
    images: int
    """Photographs that show them."""
    missing: int
    """Of these, the ones that are not there."""
    landmarks: Mapping[str, int]
    """Objects on which each can be seen."""
    masks: int
    """Objects whose parts are drawn."""
    note: str
    """What a person should know, such as a file that cannot be read; else empty."""


class DatasetCount(NamedTuple):
    dataset: DatasetName
    folder: Path | None
    layout: str
    """What is looked for under a data root."""
    categories: tuple[CategoryCount, ...]


class Inventory(NamedTuple):
    datasets: tuple[DatasetCount, ...]
    negatives: tuple[Path, int] | None
    """The folder of photographs without animals, and how many there are."""


def take_inventory(root: Path, cache_dir: Path | None) -> Inventory:
    """Everything under a root that a reader understands; data sets that are not there have no folder."""
    found = negative_images(root)
    negatives = (found[0].parent, len(found)) if found else None
    return Inventory(tuple(_dataset(dataset, root, cache_dir) for dataset in READERS), negatives)


def _dataset(dataset: DatasetName, root: Path, cache_dir: Path | None) -> DatasetCount:
    reader = READERS[dataset]
    folder = reader.find(root)
    present = reader.categories(folder) if folder else []
    counts = [_count(c, root, cache_dir) for c in CATEGORIES if c.dataset == dataset and c.key in present]
    return DatasetCount(dataset, folder, reader.layout, tuple(counts))


def _count(category: Category, root: Path, cache_dir: Path | None) -> CategoryCount:
    try:
        records = records_of(category.id, root, cache_dir)
    except DataError as error:
        return CategoryCount(category.id, 0, 0, 0, {}, 0, str(error))
    images = {record.image for record in records}
    missing = sum(not image.is_file() for image in images)
    return CategoryCount(
        category=category.id,
        objects=len(records),
        images=len(images),
        missing=missing,
        landmarks=landmark_counts(category.id, records),
        masks=sum(record.masks is not None for record in records),
        note=shortage(len(records)),
    )


def landmark_counts(category: str, records: list[AnnotatedObject]) -> dict[str, int]:
    seen = Counter(name for record in records for name in record.landmarks)
    return {name: seen[name] for name in BY_ID[category].landmarks}


def shortage(objects: int) -> str:
    """Why a category cannot carry a job; empty where it can."""
    return "" if objects >= MIN_IMAGES else f"too few: a job needs {MIN_IMAGES}"
