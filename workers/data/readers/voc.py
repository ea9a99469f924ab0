"""Reads Pascal VOC Part: the objects of `Annotations_Part/*.mat`, or of landmark tables (`truth/<category>.csv`).

Where a data root has a folder `truth/`, its tables alone list the objects, and the masks beside them show those
objects' parts. Without that folder the masks define objects and parts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

from workers.data.disk_files import brief, visible_names
from workers.data.image_facts import size_of
from workers.data.readers.parse_cache import ParseCache
from workers.data.readers.records import (
    BOX,
    AnnotatedObject,
    Box,
    Flaw,
    LeftOut,
    Point,
    checked_box,
    is_large_enough,
    too_small,
)
from workers.data.readers.tables import Line, read_table
from workers.data.readers.voc_masks import MaskFile, read_annotations, unreadable

LANDMARK_OF_PART = {1: "head", 2: "neck", 3: "torso"}
_MAX_PART = 30
"""Upper bound of the data set's part numbers; no animal has more parts."""
_DEVKIT = Path("VOCdevkit/VOC2010")
MASKS = _DEVKIT / "Annotations_Part"
_NOTHING = Box(0, 0, 0, 0)
_CATEGORIES = ("bird", "cat", "cow", "dog", "horse", "sheep")


class _Row(NamedTuple):
    line: Line
    box: Box
    part: int
    centre: Point
    size: tuple[int, int] | None


class VocPart:
    """Pascal VOC Part: six animals, from tables or from masks."""

    layout: ClassVar[str] = (
        "voc_part/VOCdevkit/VOC2010/{JPEGImages/*.jpg, Annotations_Part/*.mat}, or the photographs with "
        "voc_part/truth/<category>.csv"
    )

    def __init__(self, folder: Path, cache: ParseCache | None = None) -> None:
        """Open the data set."""
        self.folder = folder
        self._cache = cache or ParseCache()
        self._objects: dict[str, list[AnnotatedObject]] = {}

    @classmethod
    def find(cls, root: Path) -> Path | None:
        """Return the folder with photographs and tables or masks, or None."""
        for folder in (root / "voc_part", root):
            devkit = folder / _DEVKIT
            if (devkit / "JPEGImages").is_dir() and ((folder / "truth").is_dir() or (folder / MASKS).is_dir()):
                return folder
        return None

    def categories(self) -> list[str]:
        """Return the animals that have a table; all six where the masks list the objects."""
        return [key for key in _CATEGORIES if not self._has_tables or os.path.isfile(self._table(key))]

    def annotation_files(self, key: str) -> list[Path]:
        """Return a category's table, and the files with masks of its objects."""
        masks = sorted({r.masks for r in self.records(key) if r.masks is not None})
        return [self._table(key), *masks] if os.path.isfile(self._table(key)) else masks

    def records(self, key: str) -> list[AnnotatedObject]:
        """Return a category's objects whose box is large enough, in order of photographs.

        Raises:
            DataError: the table or a file of masks cannot be understood.
        """
        return [found for found in self._all(key) if is_large_enough(found.box or _NOTHING)]

    def left_out(self, key: str) -> list[LeftOut]:
        """Return the number of objects whose box is too small; `flaws` names those with an empty silhouette."""
        boxes = [found.box or _NOTHING for found in self._all(key)]
        return too_small(sum(box.width > 0 and not is_large_enough(box) for box in boxes))

    def flaws(self, key: str) -> list[Flaw]:
        """Return the errors of each file of masks; tables are read completely or refused by `records`."""
        sizes: dict[Path, tuple[int, int] | None] = {}
        if self._has_tables:
            sizes = {r.masks: r.size or size_of(r.image) for r in self.records(key) if r.masks is not None}
            paths = sorted(sizes)
            files = list(zip(paths, read_annotations(paths, self._cache), strict=True))
        else:
            files = self._annotations
        flaws = []
        for path, content in files:
            size = sizes.get(path)
            if content.problem:
                flaws.append(Flaw(path, f"not a readable part annotation: {content.problem}"))
            elif size is not None and size != (content.width, content.height):
                masks = f"{content.width} x {content.height}"
                flaws.append(Flaw(path, f"its masks are {masks}, its photograph {size[0]} x {size[1]}"))
            flaws += [
                Flaw(path, f"the silhouette of object {found.number} ({key}) is empty, so the object is ignored")
                for found in content.objects
                if found.key == key and not found.box.width
            ]
        return flaws

    def _all(self, key: str) -> list[AnnotatedObject]:
        """Return all objects of a category, whatever their size."""
        if key not in self._objects:
            self._objects[key] = self._tabled(key) if self._has_tables else self._masked(key)
        return self._objects[key]

    @property
    def _has_tables(self) -> bool:
        return (self.folder / "truth").is_dir()

    def _table(self, key: str) -> Path:
        return self.folder / "truth" / f"{key}.csv"

    @cached_property
    def _masks(self) -> Mapping[str, Path]:
        """Files of masks by the stem of their photograph; the data set has ten thousand, so they are listed once."""
        folder = self.folder / MASKS
        return {name.removesuffix(".mat"): folder / name for name in visible_names(folder) if name.endswith(".mat")}

    @cached_property
    def _annotations(self) -> list[tuple[Path, MaskFile]]:
        """Contents of all files of masks: one file may show several categories."""
        paths = list(self._masks.values())
        return list(zip(paths, read_annotations(paths, self._cache), strict=True))

    def _tabled(self, key: str) -> list[AnnotatedObject]:
        """Return the objects of a table, with the file of masks of their photograph."""
        if not os.path.isfile(self._table(key)):
            return []
        records = _read(self._table(key), self.folder / _DEVKIT / "JPEGImages")
        return [record._replace(masks=self._masks.get(record.image.stem)) for record in records]

    def _masked(self, key: str) -> list[AnnotatedObject]:
        """Return the objects that the masks define."""
        records = []
        for path, content in self._annotations:
            if content.problem:
                raise unreadable(path, content.problem)
            image, size = self.folder / _DEVKIT / "JPEGImages" / f"{path.stem}.jpg", (content.width, content.height)
            records += [
                AnnotatedObject(image, str(found.number), found.box, found.landmarks, masks=path, size=size)
                for found in content.objects
                if found.key == key
            ]
        return records


def _read(table: Path, images: Path) -> list[AnnotatedObject]:
    """Return one record per object; an object has one row per part."""
    first: dict[tuple[str, str], _Row] = {}
    landmarks: dict[tuple[str, str], dict[str, _Row]] = {}
    for row in map(_parse, read_table(table)):
        key = (row.line.text("image"), row.line.text("object_id"))
        known = first.setdefault(key, row)
        if (row.box, row.size) != (known.box, known.size):
            raise row.line.error(
                f"the table has two objects {brief(key[1])} in {brief(key[0])}, with different boxes or sizes of the "
                f"photograph: see line {known.line.at}, and give each object its own `object_id`"
            )
        if row.part in LANDMARK_OF_PART:
            landmarks.setdefault(key, {}).setdefault(LANDMARK_OF_PART[row.part], row)
    return [_record(images / key[0], key[1], first[key], landmarks.get(key, {})) for key in sorted(first)]


def _record(image: Path, object_id: str, first: _Row, landmarks: Mapping[str, _Row]) -> AnnotatedObject:
    where = {BOX: first.line.where, **{name: row.line.where for name, row in landmarks.items()}}
    centres = {name: row.centre for name, row in landmarks.items()}
    return AnnotatedObject(image, object_id, first.box, centres, size=first.size, where=where)


def _parse(line: Line) -> _Row:
    # VOC counts pixels from 1 and boxes include their last pixel; 1.0 is the centre of the first pixel.
    corners = [line.whole(name) for name in ("xmin", "ymin", "xmax", "ymax")]
    try:
        box = checked_box(corners[0] - 1, corners[1] - 1, corners[2], corners[3])
    except ValueError as error:
        raise line.error(str(error)) from error
    part = line.whole("part")
    if not 1 <= part <= _MAX_PART:
        raise line.error(f"part {part} is not a part of the data set, which numbers them from 1 to {_MAX_PART}")
    centre = (line.number("part_y") - 0.5, line.number("part_x") - 0.5)
    return _Row(line, box, part, centre, _size(line))


def _size(line: Line) -> tuple[int, int] | None:
    """Return the size of the photograph, or None where the table does not have it."""
    given = [name for name in ("width", "height") if line.cells.get(name, "").strip() not in ("", "0")]
    if not given:
        return None
    width, height = (line.whole(name) if name in given else 0 for name in ("width", "height"))
    if width <= 0 or height <= 0:
        raise line.error(f"a photograph of {width} x {height} pixels")
    return width, height
