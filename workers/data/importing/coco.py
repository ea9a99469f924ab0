"""Reads annotations from COCO's JSON, with or without key points; Label Studio and CVAT export the same format."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.categories import NEGATIVE_KEY, normal_name
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
from workers.data.readers.records import Box, Point, checked_box
from workers.data.readers.tables import read_text


class _Coco(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Image(_Coco):
    id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None


class _Category(_Coco):
    id: int | str
    name: str
    keypoints: list[str] = Field(default_factory=list)


class _Annotation(_Coco):
    id: int | str = ""
    image_id: int | str
    category_id: int | str
    bbox: list[float] = Field(default_factory=list)
    """x, y, width, height."""
    keypoints: list[float] = Field(default_factory=list)
    """x, y and visibility of each key point of the category; visibility 0 for one that is not annotated."""
    iscrowd: int | bool = 0


class _File(_Coco):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def from_coco(path: Path, images: Sequence[str]) -> Annotated:
    """Return the objects of a file, and the photographs in the folder of negatives.

    A pixel's coordinates count from the left and top edge of the picture. Crowds and outlines are not used.

    Raises:
        DataError: the file cannot be understood, or an annotation names what is not there.
    """
    return _Reading(path, _parse(path), images).annotated()


def _parse(path: Path) -> _File:
    try:
        return _File.model_validate_json(read_text(path))
    except ValidationError as error:
        problems = [f"{path.name}: {'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors()]
        raise import_error(
            problems, "Export it as COCO JSON: with `images`, `annotations` and `categories`."
        ) from error


class _Reading:
    """One file while it is read."""

    def __init__(self, path: Path, content: _File, images: Sequence[str]) -> None:
        self._path, self._content, self._images = path, content, images
        self._problems: list[str] = []
        self._categories = {one.id: one for one in content.categories}
        self._found: dict[int | str, str] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        names = ImageNames(images)
        for one in content.images:
            try:
                self._found[one.id] = image = names.find(one.file_name.replace("\\", "/"))
                if one.width and one.height:
                    self._sizes[image] = one.width, one.height
            except DataError as error:
                self._problems.append(f"{path.name}: image {one.id}: {error}")
        self._known = {one.id for one in content.images}

    def annotated(self) -> Annotated:
        """Return the objects.

        Raises:
            DataError: an annotation names what is not there, or has a wrong box or key point.
        """
        objects = list(self._objects())
        if self._problems:
            raise import_error(self._problems)
        objects, left_out = completed(objects, self._images, f"{self._path.name} has no object in them")
        names = dict.fromkeys(normal_name(name) for one in self._content.categories for name in one.keypoints)
        return Annotated(objects, tuple(names), self._sizes, (*self._crowds(), *left_out))

    def _crowds(self) -> list[str]:
        crowds = sum(bool(one.iscrowd) for one in self._content.annotations)
        return [f"crowds that were not imported: {crowds}"] if crowds else []

    def _objects(self) -> Iterator[NewObject]:
        for number, one in enumerate(self._content.annotations):
            if one.iscrowd or (one.image_id in self._known and one.image_id not in self._found):
                continue
            try:
                yield self._object(one, f"{self._path.name}, annotation {one.id if one.id != '' else number}")
            except (DataError, ValueError) as error:
                self._problems.append(f"{self._path.name}: annotation {one.id if one.id != '' else number}: {error}")

    def _object(self, one: _Annotation, where: str) -> NewObject:
        if one.image_id not in self._found:
            raise ValueError(f"there is no image {one.image_id}")
        if one.category_id not in self._categories:
            raise ValueError(f"there is no category {one.category_id}")
        category = self._categories[one.category_id]
        key = key_of(category.name)
        if not key:
            raise ValueError(f"{brief(category.name)!r} is no name for a category; use letters and digits")
        landmarks = {} if key == NEGATIVE_KEY else _landmarks(category, one.keypoints)
        return NewObject(self._found[one.image_id], key, _box(one.bbox), landmarks, where)


def _box(numbers: list[float]) -> Box | None:
    if not numbers:
        return None
    if len(numbers) != 4:
        raise ValueError(f"`bbox` has {len(numbers)} numbers instead of x, y, width and height")
    left, top, width, height = numbers
    return checked_box(left, top, left + width, top + height)


def _landmarks(category: _Category, numbers: list[float]) -> dict[str, Point]:
    if not numbers:
        return {}
    if len(numbers) != 3 * len(category.keypoints):
        raise ValueError(
            f"`keypoints` has {len(numbers)} numbers, and category {category.name} has {len(category.keypoints)} key "
            "points of three numbers each"
        )
    found: dict[str, Point] = {}
    points: Any = zip(category.keypoints, numbers[0::3], numbers[1::3], numbers[2::3], strict=True)
    for written, x, y, visible in points:
        name = normal_name(written)
        if not name:
            raise ValueError(f"{brief(written)!r} is no name for a key point; use letters, digits and underscores")
        if visible > 0:
            if not (math.isfinite(x) and math.isfinite(y)):
                raise ValueError(f"the key point {brief(written)} is not finite")
            found[name] = y, x
    return found
