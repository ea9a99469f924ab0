"""Reads VOC Part: landmark tables (`truth/<category>.csv`) beside the original `VOCdevkit/VOC2010`, masks included."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from schemas.errors import DataError
from workers.data.crops import is_large_enough
from workers.data.records import Box, Point, Record

LANDMARK_OF_PART = {"1": "head", "2": "neck", "3": "torso"}
_IMAGES = Path("VOCdevkit/VOC2010/JPEGImages")
MASKS = Path("VOCdevkit/VOC2010/Annotations_Part")
_CATEGORIES = ("bird", "cat", "cow", "dog", "horse", "sheep")


class _Row(NamedTuple):
    image: str
    object_id: str
    box: Box
    part: str
    centre: Point


class VocPart:
    layout = "voc_part/truth/<category>.csv and voc_part/VOCdevkit/VOC2010/JPEGImages/*.jpg"

    def find(self, root: Path) -> Path | None:
        for folder in (root / "voc_part", root):
            if (folder / "truth").is_dir() and (folder / _IMAGES).is_dir():
                return folder
        return None

    def categories(self, folder: Path) -> list[str]:
        return [key for key in _CATEGORIES if _table(folder, key).is_file()]

    def annotation_files(self, folder: Path, key: str) -> list[Path]:
        if not _table(folder, key).is_file():
            return []
        masks = {record.masks for record in self.records(folder, key) if record.masks is not None}
        return [_table(folder, key), *sorted(masks)]

    def records(self, folder: Path, key: str) -> list[Record]:
        table = _table(folder, key)
        if not table.is_file():
            return []
        stat = table.stat()
        masked = _masks(folder / MASKS)
        records = _read(table, folder / _IMAGES, stat.st_size, stat.st_mtime_ns)
        return [record._replace(masks=masked.get(record.image.stem)) for record in records]


def _masks(folder: Path) -> Mapping[str, Path]:
    """The data set's files of masks by photograph: ten thousand, so they are listed once."""
    return _listed(folder, folder.stat().st_mtime_ns) if folder.is_dir() else {}


@lru_cache(maxsize=4)
def _listed(folder: Path, mtime_ns: int) -> Mapping[str, Path]:
    return {path.stem: path for path in folder.glob("*.mat")}


def _table(folder: Path, key: str) -> Path:
    return folder / "truth" / f"{key}.csv"


@lru_cache(maxsize=32)
def _read(table: Path, images: Path, size: int, mtime_ns: int) -> tuple[Record, ...]:
    """Rows of one object become one record; size and time make a changed file a new call."""
    objects: dict[tuple[str, str], tuple[Box, dict[str, Point]]] = {}
    for row in _rows(table):
        _, landmarks = objects.setdefault((row.image, row.object_id), (row.box, {}))
        if row.part in LANDMARK_OF_PART:
            landmarks.setdefault(LANDMARK_OF_PART[row.part], row.centre)
    return tuple(
        Record(images / image, object_id, box, landmarks)
        for (image, object_id), (box, landmarks) in sorted(objects.items())
        if is_large_enough(box)
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
    return _Row(line["image"], line["object_id"], box, line["part"], centre)
