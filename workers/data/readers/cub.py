"""Reads CUB-200-2011 in its original layout, which cropped editions of it share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from schemas.categories import BY_ID
from schemas.errors import DataError
from workers.data.disk_files import brief
from workers.data.readers.parse_cache import ParseCache
from workers.data.readers.records import (
    BOX,
    AnnotatedObject,
    Box,
    Flaw,
    LeftOut,
    Point,
    annotation_error,
    checked_box,
    is_large_enough,
    too_small,
)
from workers.data.readers.tables import parse_number, read_lines

_LANDMARKS = frozenset(BY_ID["cub200/bird"].landmarks)
_FILES = ("images.txt", "bounding_boxes.txt", "train_test_split.txt", "parts/parts.txt", "parts/part_locs.txt")
_SETS = ("cub200/CUB_200_2011", "CUB_200_2011", ".", "cub200", "cub200_crops227/CUB_200_2011")


class Cub200:
    """CUB-200-2011: one category, `bird`."""

    layout: ClassVar[str] = (
        "CUB_200_2011/{images.txt, bounding_boxes.txt, train_test_split.txt, parts/*.txt, images/*/*.jpg}"
    )

    def __init__(self, folder: Path, cache: ParseCache | None = None) -> None:
        """Open the data set; its text files are parsed without the cache."""
        self.folder = folder

    @classmethod
    def find(cls, root: Path) -> Path | None:
        """Return the folder with `images.txt` and `images/`, or None."""
        return next(iter(cls.editions(root)), None)

    @classmethod
    def editions(cls, root: Path) -> list[Path]:
        """Return every such folder: the data set, then further editions of it with other species."""
        folders = (root / name for name in _SETS)
        return [folder for folder in folders if os.path.isfile(folder / "images.txt") and (folder / "images").is_dir()]

    def categories(self) -> list[str]:
        """Return the only key, `bird`."""
        return ["bird"]

    def annotation_files(self, key: str) -> list[Path]:
        """Return the five text files."""
        return [self.folder / name for name in _FILES]

    def records(self, key: str) -> list[AnnotatedObject]:
        """Return every listed bird whose box is large enough.

        Raises:
            DataError: a text file is missing, or a line of it cannot be understood.
        """
        return self._content[0]

    def left_out(self, key: str) -> list[LeftOut]:
        """Return the numbers of small boxes, and of boxes without an image."""
        return self._content[1]

    @cached_property
    def _content(self) -> tuple[list[AnnotatedObject], list[LeftOut]]:
        missing = [name for name in _FILES if not os.path.isfile(self.folder / name)]
        if missing:
            raise DataError(
                f"{self.folder} has no {', '.join(missing)}. CUB-200-2011 needs {self.layout}; unpack its archive as "
                "it is."
            )
        return _read(self.folder)

    def flaws(self, key: str) -> list[Flaw]:
        """Return nothing: `records` reads the text files completely or refuses them."""
        return []


def name_in_cub(record: AnnotatedObject) -> str:
    """Return the name of a photograph in every edition: its species' folder and its file."""
    return f"{record.image.parent.name}/{record.image.name}"


def _read(folder: Path) -> tuple[list[AnnotatedObject], list[LeftOut]]:
    """Return every listed bird whose box is large enough, and what is left out."""
    listed = {key: (at, name) for at, key, name in _names(folder / "images.txt")}
    boxes = {key: _box(folder, at, corners) for at, key, corners in _by_id(folder, "bounding_boxes.txt", 5)}
    official: dict[str, Literal["train", "test"]] = {
        key: "train" if flag == "1" else "test"
        for _, key, (flag,) in _by_id(folder, "train_test_split.txt", 2, flag=True)
    }
    unboxed = [name for key, (_, name) in listed.items() if key not in boxes or key not in official]
    if unboxed:
        raise DataError(
            f"{folder}/images.txt lists {brief(unboxed[0])} and {len(unboxed) - 1} more without a line in "
            "bounding_boxes.txt or train_test_split.txt. Take all files from the same copy of CUB-200-2011."
        )
    _check_names(folder / "images.txt", listed.values())
    landmarks = _landmarks(folder)
    found = [
        _record(folder / "images" / name, boxes[key], landmarks.get(key, {}), official[key])
        for key, (_, name) in listed.items()
    ]
    large = [record for record in found if is_large_enough(record.box or Box(0, 0, 0, 0))]
    unlisted = len(boxes.keys() - listed.keys())
    others = [LeftOut(unlisted, "boxes of images that images.txt does not list")] if unlisted else []
    return large, [*too_small(len(found) - len(large)), *others]


class _Mark(NamedTuple):
    point: Point
    where: str


def _record(image: Path, box: _Boxed, marks: Mapping[str, _Mark], side: Literal["train", "test"]) -> AnnotatedObject:
    where = {BOX: box.where, **{name: mark.where for name, mark in marks.items()}}
    return AnnotatedObject(image, "", box.box, {name: mark.point for name, mark in marks.items()}, side, where=where)


def _check_names(path: Path, listed: Iterable[tuple[int, str]]) -> None:
    """Check that no image is listed under two ids.

    Raises:
        DataError: one is.
    """
    first: dict[str, int] = {}
    for at, name in listed:
        if first.setdefault(name, at) != at:
            raise _unreadable(path, at, f"{brief(name)!r} is listed twice, first in line {first[name]}")


def _landmarks(folder: Path) -> dict[str, dict[str, _Mark]]:
    """Return the visible landmarks of the category, by image id."""
    names = {key: name for _, key, name in _names(folder / "parts/parts.txt")}
    if not set(names.values()) >= _LANDMARKS:
        lacking = ", ".join(sorted(_LANDMARKS - set(names.values())))
        raise DataError(f"{folder}/parts/parts.txt does not name {lacking}. Restore it from the CUB-200-2011 archive.")
    path = folder / "parts/part_locs.txt"
    landmarks: dict[str, dict[str, _Mark]] = {}
    for at, (key, part, x, y, visible) in _fields(path, numbers=5, flag=True):
        if part not in names:
            raise _unreadable(path, at, f"part {brief(part)} is not one of parts/parts.txt")
        if visible == "1" and names[part] in _LANDMARKS:
            # CUB's coordinates count from 0 (boxes of all 11,788 images begin there), so they are taken as they are.
            if names[part] in landmarks.setdefault(key, {}):
                raise _unreadable(path, at, f"image {brief(key)} has its {names[part]} twice")
            landmarks[key][names[part]] = _Mark((float(y), float(x)), f"{path}, line {at}")
    return landmarks


def _names(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the line, id and name of each entry of a file of names."""
    return ((at, key, name) for at, key, (name,) in _unique(path, _fields(path, numbers=1)))


def _by_id(folder: Path, name: str, numbers: int, *, flag: bool = False) -> Iterator[tuple[int, str, list[str]]]:
    return _unique(folder / name, _fields(folder / name, numbers, flag=flag))


def _unique(path: Path, fields: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, str, list[str]]]:
    seen: set[str] = set()
    for at, (key, *rest) in fields:
        if key in seen:
            raise _unreadable(path, at, f"id {brief(key)} occurs twice")
        seen.add(key)
        yield at, key, rest


class _Boxed(NamedTuple):
    box: Box
    where: str


def _box(folder: Path, at: int, values: list[str]) -> _Boxed:
    path = folder / "bounding_boxes.txt"
    x, y, width, height = map(float, values)
    try:
        return _Boxed(checked_box(x, y, x + width, y + height), f"{path}, line {at}")
    except ValueError as error:
        raise _unreadable(path, at, str(error)) from error


def _fields(path: Path, numbers: int, *, flag: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the words of each line that is not blank.

    Args:
        numbers: numbers that a line must have; 1 stands for one number and a name, which may have spaces in it.
        flag: whether the last number must be 0 or 1.
    """
    for at, line in read_lines(path):
        words = re.split(r"[ \t]+", line, maxsplit=1 if numbers == 1 else 0)
        is_complete = len(words) == max(2, numbers)
        if not is_complete or any(parse_number(word) is None for word in words[:numbers]):
            raise _unreadable(path, at, f"{brief(line)!r} should {_shape(numbers)}")
        if flag and words[-1] not in ("0", "1"):
            raise _unreadable(path, at, f"{brief(line)!r} should end with 0 or 1")
        yield at, words


def _unreadable(path: Path, at: int, why: str) -> DataError:
    return annotation_error(path, why, f"line {at}", advice="Restore the file from the CUB-200-2011 archive.")


def _shape(numbers: int) -> str:
    return "be a number and a name" if numbers == 1 else f"be {numbers} numbers"
