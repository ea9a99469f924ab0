"""Reads Pascal VOC Part: the objects of `Annotations_Part/*.mat`, or of landmark tables (`truth/<category>.csv`).

Where a data root has a folder `truth/`, its tables alone say which objects there are, and the masks beside them show
those objects' parts. Without that folder the masks say everything.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from schemas.errors import DataError
from workers.data.readers.records import AnnotatedObject, Box, Flaw, Point, is_large_enough
from workers.data.readers.voc_masks import read_annotations, unreadable

LANDMARK_OF_PART = {1: "head", 2: "neck", 3: "torso"}
_MAX_PART = 30
"""More than any animal of the data set has."""
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
    layout = (
        "voc_part/VOCdevkit/VOC2010/{JPEGImages/*.jpg, Annotations_Part/*.mat}, or the photographs with "
        "voc_part/truth/<category>.csv"
    )

    def find(self, root: Path) -> Path | None:
        for folder in (root / "voc_part", root):
            devkit = folder / _DEVKIT
            if (devkit / "JPEGImages").is_dir() and ((folder / "truth").is_dir() or (folder / MASKS).is_dir()):
                return folder
        return None

    def categories(self, folder: Path) -> list[str]:
        return [key for key in _CATEGORIES if not _has_tables(folder) or _table(folder, key).is_file()]

    def annotation_files(self, folder: Path, key: str, cache_dir: Path | None = None) -> list[Path]:
        masks = sorted({r.masks for r in self.records(folder, key, cache_dir) if r.masks is not None})
        return [_table(folder, key), *masks] if _table(folder, key).is_file() else masks

    def records(self, folder: Path, key: str, cache_dir: Path | None = None) -> list[AnnotatedObject]:
        if not _has_tables(folder):
            return _masked(folder, key, cache_dir)
        table = _table(folder, key)
        if not table.is_file():
            return []
        stat = table.stat()
        masked = _masks(folder)
        records = _read(table, folder / _DEVKIT / "JPEGImages", stat.st_size, stat.st_mtime_ns)
        return [record._replace(masks=masked.get(record.image.stem)) for record in records]

    def flaws(self, folder: Path, key: str, cache_dir: Path | None = None) -> list[Flaw]:
        """Of the masks, each file's; tables are refused whole by `records`."""
        sizes: dict[Path, tuple[int, int] | None] = {}
        if _has_tables(folder):
            sizes = {r.masks: r.size for r in self.records(folder, key, cache_dir) if r.masks is not None}
        paths = sorted(sizes) if _has_tables(folder) else list(_masks(folder).values())
        flaws = []
        for path, said in zip(paths, read_annotations(paths, cache_dir), strict=True):
            size = sizes.get(path)
            if said.problem:
                flaws.append(Flaw(path, f"no part annotation that can be read: {said.problem}"))
            elif size is not None and size != (said.width, said.height):
                flaws.append(
                    Flaw(path, f"its masks are {said.width} x {said.height}, its photograph {size[0]} x {size[1]}")
                )
            flaws += [
                Flaw(path, f"the silhouette of object {found.number} ({key}) is empty, so it is left out")
                for found in said.objects
                if found.key == key and not found.box.width
            ]
        return flaws


def _has_tables(folder: Path) -> bool:
    return (folder / "truth").is_dir()


def _masks(folder: Path) -> Mapping[str, Path]:
    """The data set's files of masks by photograph: ten thousand, so they are listed once."""
    found = folder / MASKS
    return _listed(found, found.stat().st_mtime_ns) if found.is_dir() else {}


@lru_cache(maxsize=4)
def _listed(folder: Path, mtime_ns: int) -> Mapping[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.mat"))}


def _masked(folder: Path, key: str, cache_dir: Path | None) -> list[AnnotatedObject]:
    """Objects as their silhouettes and parts say."""
    return list(_read_masks(folder, key, cache_dir, _versions(folder / MASKS)))


def _versions(folder: Path) -> int:
    """Another number when any file of a folder is another."""
    with os.scandir(folder) as entries:
        return hash(tuple((entry.name, (stat := entry.stat()).st_size, stat.st_mtime_ns) for entry in entries))


@lru_cache(maxsize=16)
def _read_masks(folder: Path, key: str, cache_dir: Path | None, versions: int) -> tuple[AnnotatedObject, ...]:
    """`versions` makes a changed file a new call."""
    paths = list(_masks(folder).values())
    records = []
    for path, said in zip(paths, read_annotations(paths, cache_dir), strict=True):
        if said.problem:
            raise unreadable(path, said.problem)
        image, size = folder / _DEVKIT / "JPEGImages" / f"{path.stem}.jpg", (said.width, said.height)
        records += [
            AnnotatedObject(image, str(found.number), found.box, found.landmarks, masks=path, size=size)
            for found in said.objects
            if found.key == key and is_large_enough(found.box)
        ]
    return tuple(records)


def _table(folder: Path, key: str) -> Path:
    return folder / "truth" / f"{key}.csv"


@lru_cache(maxsize=32)
def _read(table: Path, images: Path, size: int, mtime_ns: int) -> tuple[AnnotatedObject, ...]:
    """Rows of one object become one record; size and time make a changed file a new call."""
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
    return tuple(
        AnnotatedObject(images / image, object_id, first.box, landmarks, size=first.size)
        for (image, object_id), (first, landmarks) in sorted(objects.items())
        if is_large_enough(first.box)
    )


def _rows(table: Path) -> list[_Row]:
    with table.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        try:
            return [_parse(line) for line in lines]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{table}, line {lines.line_num}, cannot be read: {error!r}. A row needs the columns image, "
                "object_id, xmin, ymin, xmax, ymax, part, part_y, part_x (numbers but for the image). Repair the file."
            ) from error


def _parse(line: dict[str, str]) -> _Row:
    # VOC counts pixels from 1 and boxes include their last one; a centre 1.0 is the middle of the first pixel.
    box = Box(int(line["xmin"]) - 1, int(line["ymin"]) - 1, int(line["xmax"]), int(line["ymax"]))
    centre = (float(line["part_y"]) - 0.5, float(line["part_x"]) - 0.5)
    part = int(line["part"])
    if not 1 <= part <= _MAX_PART:
        raise ValueError(f"part {part} is none of the data set's, which are numbered from 1 to {_MAX_PART}")
    width, height = int(line.get("width") or 0), int(line.get("height") or 0)
    return _Row(line["image"], line["object_id"], box, part, centre, (width, height) if width and height else None)
