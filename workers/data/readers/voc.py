"""Reads Pascal VOC Part: the objects of `Annotations_Part/*.mat`, or of landmark tables (`truth/<category>.csv`).

Where a data root has a folder `truth/`, its tables alone list the objects, and the masks beside them show those
objects' parts. Without that folder the masks define objects and parts.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

from schemas.errors import DataError
from workers.data.readers.parse_cache import ParseCache
from workers.data.readers.records import AnnotatedObject, Box, Flaw, Point, is_large_enough
from workers.data.readers.voc_masks import MaskFile, read_annotations, unreadable

LANDMARK_OF_PART = {1: "head", 2: "neck", 3: "torso"}
_MAX_PART = 30
"""Upper bound of the data set's part numbers; no animal has more parts."""
_DEVKIT = Path("VOCdevkit/VOC2010")
MASKS = _DEVKIT / "Annotations_Part"
_CATEGORIES = ("bird", "cat", "cow", "dog", "horse", "sheep")


class _Row(NamedTuple):
    image: str
    object_id: str
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
        self._records: dict[str, list[AnnotatedObject]] = {}

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
        return [key for key in _CATEGORIES if not self._has_tables or self._table(key).is_file()]

    def annotation_files(self, key: str) -> list[Path]:
        """Return a category's table, and the files with masks of its objects."""
        masks = sorted({r.masks for r in self.records(key) if r.masks is not None})
        return [self._table(key), *masks] if self._table(key).is_file() else masks

    def records(self, key: str) -> list[AnnotatedObject]:
        """Return a category's objects whose box is large enough, in order of photographs.

        Raises:
            DataError: the table or a file of masks cannot be understood.
        """
        if key not in self._records:
            self._records[key] = self._tabled(key) if self._has_tables else self._masked(key)
        return self._records[key]

    def flaws(self, key: str) -> list[Flaw]:
        """Return the errors of each file of masks; tables are read completely or refused by `records`."""
        sizes: dict[Path, tuple[int, int] | None] = {}
        if self._has_tables:
            sizes = {r.masks: r.size for r in self.records(key) if r.masks is not None}
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

    @property
    def _has_tables(self) -> bool:
        return (self.folder / "truth").is_dir()

    def _table(self, key: str) -> Path:
        return self.folder / "truth" / f"{key}.csv"

    @cached_property
    def _masks(self) -> Mapping[str, Path]:
        """Files of masks by the stem of their photograph; the data set has ten thousand, so they are listed once."""
        return {path.stem: path for path in sorted((self.folder / MASKS).glob("*.mat"))}

    @cached_property
    def _annotations(self) -> list[tuple[Path, MaskFile]]:
        """Contents of all files of masks: one file may show several categories."""
        paths = list(self._masks.values())
        return list(zip(paths, read_annotations(paths, self._cache), strict=True))

    def _tabled(self, key: str) -> list[AnnotatedObject]:
        """Return the objects of a table, with the file of masks of their photograph."""
        if not self._table(key).is_file():
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
                if found.key == key and is_large_enough(found.box)
            ]
        return records


def _read(table: Path, images: Path) -> list[AnnotatedObject]:
    """Return one record per object; an object has one row per part."""
    objects: dict[tuple[str, str], tuple[_Row, dict[str, Point]]] = {}
    for row in _rows(table):
        first, landmarks = objects.setdefault((row.image, row.object_id), (row, {}))
        if row.box != first.box:
            raise DataError(
                f"{table} has two objects {row.object_id} in {row.image}, with different boxes. "
                "Give each object of a photograph its own `object_id`."
            )
        if row.part in LANDMARK_OF_PART:
            landmarks.setdefault(LANDMARK_OF_PART[row.part], row.centre)
    return [
        AnnotatedObject(images / image, object_id, first.box, landmarks, size=first.size)
        for (image, object_id), (first, landmarks) in sorted(objects.items())
        if is_large_enough(first.box)
    ]


def _rows(table: Path) -> list[_Row]:
    with table.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        try:
            return [_parse(line) for line in lines]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{table}, line {lines.line_num}, cannot be read: {error!r}. A row needs the columns "
                "image, object_id, xmin, ymin, xmax, ymax, part, part_y, part_x, all of them numbers except image. "
                "Repair the file."
            ) from error


def _parse(line: dict[str, str]) -> _Row:
    # VOC counts pixels from 1 and boxes include their last pixel; 1.0 is the centre of the first pixel.
    box = Box(int(line["xmin"]) - 1, int(line["ymin"]) - 1, int(line["xmax"]), int(line["ymax"]))
    centre = (float(line["part_y"]) - 0.5, float(line["part_x"]) - 0.5)
    part = int(line["part"])
    if not 1 <= part <= _MAX_PART:
        raise ValueError(f"part {part} is not a part of the data set, which numbers them from 1 to {_MAX_PART}")
    width, height = int(line.get("width") or 0), int(line.get("height") or 0)
    return _Row(line["image"], line["object_id"], box, part, centre, (width, height) if width and height else None)
