"""Reads annotations from a CSV file with named columns, or from the names of folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from schemas.categories import NEGATIVE_KEY
from schemas.errors import DataError
from workers.data.disk_files import brief
from workers.data.importing.objects import (
    Annotated,
    ImageNames,
    NewObject,
    completed,
    import_error,
    key_of,
)
from workers.data.readers.object_table import ObjectRow, read_objects


def from_csv(path: Path, images: Sequence[str], category: str) -> Annotated:
    """Return the objects of a table, and the photographs in the folder of negatives.

    Args:
        path: the table, as `object_table.read_objects` takes it.
        images: all photographs below the imported folder.
        category: of rows without a category whose photograph lies in no folder.

    Raises:
        DataError: a row cannot be understood, or names a photograph that is not there.
    """
    table = read_objects(path)
    names = ImageNames(images)
    problems = [problem.why for problem in table.problems]
    objects = []
    for row in table.rows:
        try:
            objects.append(_object(row, names, category))
        except DataError as error:
            problems.append(f"{path.name}, line {row.line.at}: {error}")
    if problems:
        raise import_error(problems)
    objects, left_out = completed(objects, images, f"{path.name} has no row of them")
    notes = [f"columns that were not used: {', '.join(map(brief, table.unused))}"] if table.unused else []
    return Annotated(objects, table.landmarks, notes=(*notes, *left_out))


def _object(row: ObjectRow, names: ImageNames, category: str) -> NewObject:
    image = names.find(row.image)
    written = row.category or folder_category(image, category)
    key = key_of(written)
    if not key:
        raise DataError(f"{brief(written)!r} is no name for a category; use letters, digits, dashes and underscores")
    if key == NEGATIVE_KEY:
        return NewObject(image, key, row.box, {}, row.line.where)
    return NewObject(image, key, row.box, row.landmarks, row.line.where)


def folder_category(image: str, category: str) -> str:
    """Return the category that the folder of a photograph names; `category` for one directly in the imported folder,
    and for the folder `images`."""
    parts = PurePosixPath(image).parts
    named = parts[1:] if parts[0] == "images" else parts
    return named[0] if len(named) > 1 else category


def from_folders(images: Sequence[str], category: str) -> Annotated:
    """Return whole photographs whose folders are their categories, as in torchvision's ImageFolder.

    Raises:
        DataError: the name of a folder cannot be one of a category.
    """
    objects, problems = [], []
    for image in images:
        written = folder_category(image, category)
        if key := key_of(written):
            objects.append(NewObject(image, key))
        elif (problem := f"the folder {brief(written)!r} is no name for a category") not in problems:
            problems.append(problem)
    if problems:
        raise import_error(problems, "Rename it: letters, digits, spaces, dashes and underscores.")
    return Annotated(objects)
