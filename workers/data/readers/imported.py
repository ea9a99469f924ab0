"""Reads imported data sets: the one form in which `orch data import` stores a user's own photographs.

mittens/orch-data.json     name, categories, and the landmarks and parts of each
mittens/objects.csv        one row per object: image, category, box, landmarks
mittens/images/            upright photographs
mittens/masks/IMAGE.png    optional: bit k of a pixel is set where the picture shows the k-th part
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, ValidationError

from schemas.base import Frozen
from schemas.categories import NEGATIVE_KEY, Category, is_dataset_name
from schemas.errors import DataError
from workers.data.disk_files import open_regular, printable, visible_names
from workers.data.image_facts import UNREADABLE
from workers.data.readers.object_table import ObjectRow, read_objects
from workers.data.readers.parse_cache import ParseCache
from workers.data.readers.records import (
    BOX,
    AnnotatedObject,
    Flaw,
    LeftOut,
    annotation_error,
    is_large_enough,
    too_small,
)
from workers.data.readers.tables import read_text

DESCRIPTION, OBJECTS, IMAGES, MASKS = "orch-data.json", "objects.csv", "images", "masks"
MAX_PARTS = 8
"""Largest number of parts of a data set: the bits of a pixel of a mask."""


class ImportedCategory(Frozen):
    """What is annotated on the objects of one category."""

    landmarks: tuple[str, ...] = Field((), strict=False)
    parts: tuple[str, ...] = Field((), strict=False)
    """In the order of the bits of the masks."""


class ImportedDescription(Frozen):
    """The content of `orch-data.json`."""

    format: Literal[1] = 1
    """Version of the form."""
    name: str
    categories: dict[str, ImportedCategory]
    """By key; without the negatives."""


class ImportedDataset:
    """One imported data set."""

    layout: ClassVar[str] = f"FOLDER/{DESCRIPTION}, which `orch data import` writes"

    def __init__(self, folder: Path, cache: ParseCache | None = None) -> None:
        """Open the data set; its files are parsed without the cache."""
        self.folder = folder

    @classmethod
    def find(cls, root: Path) -> Path | None:
        """Return the folder of the first imported data set under a data root, or None."""
        return next(iter(find_imported(root).values()), None)

    @cached_property
    def description(self) -> ImportedDescription:
        """The names of categories, landmarks and parts.

        Raises:
            DataError: the file cannot be understood.
        """
        return read_description(self.folder / DESCRIPTION)

    def categories(self) -> list[str]:
        """Return the keys of the categories, in the order of their import."""
        return list(self.description.categories)

    def category(self, key: str) -> Category:
        """Return a category with its landmarks and parts; without any for the negatives and unknown keys."""
        own = self.description.categories.get(key, ImportedCategory())
        return Category(self.description.name, key, key, own.landmarks, own.parts)

    def annotation_files(self, key: str) -> list[Path]:
        """Return the description, the table, and the masks of the category."""
        masks = sorted({record.masks for record in self.records(key) if record.masks is not None})
        return [self.folder / DESCRIPTION, self.folder / OBJECTS, *masks]

    def records(self, key: str) -> list[AnnotatedObject]:
        """Return all objects of a category whose box is large enough, in the order of the table.

        Raises:
            DataError: the table cannot be understood.
        """
        return [found for found in self._all(key) if found.box is None or is_large_enough(found.box)]

    def flaws(self, key: str) -> list[Flaw]:
        """Return nothing: `records` reads the table completely or refuses it."""
        return []

    def left_out(self, key: str) -> list[LeftOut]:
        """Return the number of objects whose box is too small."""
        return too_small(len(self._all(key)) - len(self.records(key)))

    def _all(self, key: str) -> list[AnnotatedObject]:
        return [self._record(row, number) for row, number in self._rows if row.category == key]

    @cached_property
    def _rows(self) -> list[tuple[ObjectRow, int]]:
        """The rows of the table, each with the number of its object in its image; 0 for the only one."""
        table = read_objects(self.folder / OBJECTS)
        for problem in table.problems:
            raise problem
        known = {NEGATIVE_KEY, *self.description.categories}
        for row in table.rows:
            if row.category not in known:
                raise row.line.error(f"the category {row.category!r} is not one of {DESCRIPTION}")
        total, seen = Counter(row.image for row in table.rows), Counter[str]()
        numbered = []
        for row in table.rows:
            seen[row.image] += 1
            numbered.append((row, seen[row.image] if total[row.image] > 1 else 0))
        return numbered

    @cached_property
    def _masks(self) -> frozenset[str]:
        """Paths of all masks below their folder."""
        top = self.folder / MASKS
        return frozenset(
            (Path(folder) / name).relative_to(top).as_posix() for folder, _, names in os.walk(top) for name in names
        )

    def _record(self, row: ObjectRow, number: int) -> AnnotatedObject:
        mask = mask_name(row.image)
        return AnnotatedObject(
            image=self.folder / IMAGES / row.image,
            object_id=str(number) if number else "",
            box=row.box,
            landmarks=row.landmarks,
            masks=self.folder / MASKS / mask if mask in self._masks else None,
            where=dict.fromkeys((BOX, *row.landmarks), row.line.where),
        )


def mask_name(image: str) -> str:
    """Return the path of the mask of an image, below the folder of masks."""
    return f"{image}.png"


def read_description(path: Path) -> ImportedDescription:
    """Read the description of an imported data set.

    Raises:
        DataError: it cannot be understood, or names the data set as none may be called.
    """
    advice = "Import the data set again."
    try:
        found = ImportedDescription.model_validate_json(read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise annotation_error(path, f"{place}: {first['msg']}" if place else first["msg"], advice=advice) from error
    if not is_dataset_name(found.name):
        raise annotation_error(path, f"{found.name!r} is no name for a data set", advice=advice)
    return found


def find_imported(root: Path) -> dict[str, Path]:
    """Return the folders of all imported data sets under a data root, by name: its own, and those directly below it.

    Raises:
        DataError: a description cannot be understood, or two data sets have one name.
    """
    found: dict[str, Path] = {}
    for folder in (root, *(root / name for name in visible_names(root))):
        if os.path.isfile(folder / DESCRIPTION):
            name = read_description(folder / DESCRIPTION).name
            if name in found:
                raise DataError(
                    f"{printable(found[name])} and {printable(folder)} are both called {name}. Remove one of them."
                )
            found[name] = folder
    return found


def imported_categories(root: Path) -> tuple[str, ...]:
    """Return the ids of the categories of all imported data sets under a data root.

    Raises:
        DataError: as `find_imported`.
    """
    found = find_imported(root)
    return tuple(
        f"{name}/{key}" for name, folder in found.items() for key in read_description(folder / DESCRIPTION).categories
    )


def read_part_bits(path: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an imported map of parts.

    Args:
        path: of the mask.
        shape: (H, W) of the photograph, in pixels.

    Returns:
        (H, W); bit k is set on the pixels of the k-th part.

    Raises:
        DataError: the file cannot be read, or has another size than the photograph.
    """
    try:
        with open_regular(path) as file, Image.open(file) as picture:
            bits_HW = np.asarray(picture.convert("L"), dtype=np.uint8)
    except UNREADABLE as error:
        raise annotation_error(path, str(error), advice="Import the data set again.") from error
    if bits_HW.shape != shape:
        raise DataError(
            f"The mask {printable(path)} has {bits_HW.shape[1]} x {bits_HW.shape[0]} pixels, and its photograph "
            f"{shape[1]} x {shape[0]}. Import the data set again."
        )
    return bits_HW
