"""Counts the objects, photographs, landmarks and masks under a data root without opening an image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from schemas.categories import DATASETS, NEGATIVE_KEY, Category, category_of, is_imported
from schemas.errors import DataError
from workers.data.checks import MIN_IMAGES
from workers.data.data_root import DataRoot
from workers.data.disk_files import brief, printable, visible_names
from workers.data.readers.imported import ImportedDataset
from workers.data.readers.records import AnnotatedObject, LeftOut
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
    """Problems, such as a file that cannot be read, and objects that are left out; or an empty string."""


class DatasetCount(NamedTuple):
    """Counts of one data set."""

    dataset: str
    folder: Path | None
    """None where the data set is absent."""
    layout: str
    """Files that are looked for under a data root."""
    categories: tuple[CategoryCount, ...]
    negatives: int = 0
    """Number of negative images of an imported data set."""


class NegativesCount(NamedTuple):
    """Counts of the folder of negatives."""

    folder: Path
    images: int
    unused: tuple[str, ...]
    """Names of its entries that are not images."""


class Inventory(NamedTuple):
    """Counts of a data root."""

    datasets: tuple[DatasetCount, ...]
    negatives: NegativesCount | None
    unused: tuple[Path, ...]
    """Files that look like annotations and belong to no category listed here."""
    unknown: tuple[Path, ...] = ()
    """Other entries of the data root that belong to no data set."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found that a job could use."""
        return self.negatives is None and not any(one.objects for found in self.datasets for one in found.categories)


def take_inventory(root: DataRoot) -> Inventory:
    """Count everything under a root that a reader understands.

    Raises:
        DataError: a folder cannot be listed.
    """
    found = root.negative_folder()
    negatives = NegativesCount(found.path, len(found.images), tuple(found.unused)) if found else None
    own = [name for name in root.datasets() if is_imported(name)]
    datasets = tuple(_dataset(dataset, root) for dataset in (*DATASETS, *own))
    unused = tuple(_unused(root))
    return Inventory(datasets, negatives, unused, tuple(_unknown(root, datasets, negatives, unused)))


def _unknown(
    root: DataRoot, datasets: Sequence[DatasetCount], negatives: NegativesCount | None, unused: Sequence[Path]
) -> Iterator[Path]:
    """Yield the entries of a data root in which nothing was found."""
    used = [found.folder for found in datasets if found.folder is not None]
    if root.path in used:  # the data root is itself the folder of a data set, whose other files are its own business
        return
    used += [negatives.folder] if negatives else []
    for name in visible_names(root.path):
        entry = root.path / name
        if not any(entry == path or entry in path.parents for path in (*used, *unused)):
            yield entry


_TABLES: Mapping[str, str] = MappingProxyType({"truth": "voc_part", "annotations": "ilsvrc_animal_part"})
"""Folders that hold one table per category, and the data set that has them."""


def _unused(root: DataRoot) -> Iterator[Path]:
    """Yield the annotation files of unknown categories, of data sets without photographs, and of misspelt names."""
    present = set(root.present_categories())
    names = visible_names(root.path)
    for place in [root.path, *(root.path / name for name in names if os.path.isdir(root.path / name))]:
        for kind, dataset in _TABLES.items():
            for name in visible_names(place / kind):
                stem, _, suffix = name.rpartition(".")
                if suffix.lower() == "csv" and not (suffix == "csv" and f"{dataset}/{stem}" in present):
                    yield place / kind / name
        for name in visible_names(place):
            if name.startswith("n") and f"ilsvrc_animal_part/{name}" not in present:
                yield from (place / name / one for one in visible_names(place / name) if one.startswith("truth_part"))
    if root.reader("cub200") is None:
        sets = [root.path / name for name in ("", *names, "cub200/CUB_200_2011")]
        yield from (folder / "images.txt" for folder in sets if os.path.isfile(folder / "images.txt"))


def _dataset(dataset: str, root: DataRoot) -> DatasetCount:
    present = [root.category(name) for name in root.present_categories() if category_of(name).dataset == dataset]
    counts = tuple(_count(category, root) for category in present)
    negatives = 0
    if is_imported(dataset):
        with suppress(DataError):  # the note of each category has it
            negatives = len(root.records(f"{dataset}/{NEGATIVE_KEY}"))
        return DatasetCount(dataset, root.folder(dataset), ImportedDataset.layout, counts, negatives)
    return DatasetCount(dataset, root.folder(dataset), READERS[dataset].layout, counts)


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
        missing=sum(not os.path.isfile(image) for image in images),
        landmarks=landmark_counts(category, records),
        masks=sum(record.masks is not None for record in records),
        note=remarks(len(records), root.left_out(category.id)),
    )


def landmark_counts(category: Category, records: Sequence[AnnotatedObject]) -> dict[str, int]:
    """Return on how many objects each landmark of the category is visible."""
    seen = Counter(name for record in records for name in record.landmarks)
    return {name: seen[name] for name in category.landmarks}


def remarks(objects: int, left_out: Sequence[LeftOut]) -> str:
    """Return why so few objects cannot carry a job, and how many others are left out; or an empty string."""
    few = [] if objects >= MIN_IMAGES else [f"too few: a job needs {MIN_IMAGES}"]
    return "; ".join([*few, *(f"left out: {one.objects} {one.why}" for one in left_out)])


def some(names: Sequence[str], limit: int = 5) -> str:
    """Return the first names of a list for a message, and how many more there are."""
    shown = ", ".join(brief(printable(name)) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
