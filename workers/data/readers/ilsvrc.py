"""Reads ILSVRC 2013 DET Animal-Part: the authors' `truth_partNN.mat` or one table per synset, and their photographs.

Boxes count pixels from 0 and include their last ones. A part's centre is a fraction of its object's box: in 224ths of
the box in the MATLAB files, and in pixels of the photograph in the tables.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.categories import CATEGORIES
from schemas.errors import DataError
from workers.data.readers.matlab import Struct, numbers, read_mat, structs, text
from workers.data.readers.parse_cache import ParseCache
from workers.data.readers.records import AnnotatedObject, Box, Flaw, Point, is_large_enough

LANDMARK_OF_PART = {1: "head", 2: "frontal_legs"}
_SIDE = 224.0
"""Side of the square to which the authors scaled an object's box before they marked its parts."""

_LANDMARKS: Mapping[str, tuple[str, ...]] = {
    c.key: c.landmarks for c in CATEGORIES if c.dataset == "ilsvrc_animal_part"
}
_FOLDERS = ("ilsvrc_animal_part", "detanimalpart", ".")
_ANNOTATIONS = ("annotations", ".", "data_input_DET-2015-subset-ILSVRC2013train")
"""Folders that may hold a synset's annotations; the last is the name in the authors' repository."""
_DET = ("images", ".", "ILSVRC2013_DET_train", "Data/DET/train/ILSVRC2013_train", "Data/DET/train")
"""Folders that may hold a synset's photographs under their ImageNet names."""


class _Object(NamedTuple):
    number: int
    """From 1; the number of the authors' photograph of the object."""
    name: str
    """The photograph's ImageNet name; empty for an object without a marked part."""
    box: Box
    landmarks: dict[str, Point]


class IlsvrcAnimalPart:
    """ILSVRC 2013 DET Animal-Part: one category per synset."""

    layout: ClassVar[str] = (
        "ilsvrc_animal_part/annotations/<synset>.csv or <synset>/truth_partNN.mat, with photographs in "
        "<synset>_obj/img/img/00001.jpg or images/<synset>/<synset>_<number>.JPEG"
    )

    def __init__(self, folder: Path, cache: ParseCache | None = None) -> None:
        """Open the data set."""
        self.folder = folder
        self._cache = cache or ParseCache()

    @classmethod
    def find(cls, root: Path) -> Path | None:
        """Return the first folder with annotations and photographs of the same synset, or None."""
        folders = (root / name for name in _FOLDERS)
        return next((folder for folder in folders if folder.is_dir() and _synsets(folder)), None)

    def categories(self) -> list[str]:
        """Return the synsets that have annotations and photographs, in the paper's order."""
        return _synsets(self.folder)

    def annotation_files(self, key: str) -> list[Path]:
        """Return a synset's table or its MATLAB files, and the authors' list of its objects."""
        samples = _samples_file(self.folder, key)
        return [*_annotated(self.folder, key), *([samples] if samples else [])]

    def records(self, key: str) -> list[AnnotatedObject]:
        """Return a synset's objects whose box is large enough, by number.

        Raises:
            DataError: an annotation file cannot be understood, or belongs to another synset.
        """
        files = _annotated(self.folder, key)
        found = _read_table(files[0], key) if files and files[0].suffix == ".csv" else _mats(files, key, self._cache)
        samples = _samples_file(self.folder, key)
        if samples is not None and files and files[0].suffix == ".mat":
            found = {**_samples(samples, _last_number(samples.parent / "img"), self._cache), **found}
        image_of = _images(self.folder, key)
        return [
            AnnotatedObject(image_of(found[n]), str(n), found[n].box, found[n].landmarks, origin=found[n].name)
            for n in sorted(found)
            if is_large_enough(found[n].box)
        ]

    def flaws(self, key: str) -> list[Flaw]:
        """Return nothing: `records` reads an annotation file completely or refuses it."""
        return []


def _synsets(folder: Path) -> list[str]:
    # Folders are listed instead of asking for every file of every synset, which takes long on a network disk.
    listed = {name for place in _ANNOTATIONS for name in _names(folder / place)}
    named = [key for key in _LANDMARKS if key in listed or f"{key}.csv" in listed]
    return [key for key in named if _annotated(folder, key) and _photographs(folder, key)]


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _annotated(folder: Path, key: str) -> list[Path]:
    """Return the table of a synset, or its MATLAB files with one part each."""
    for place in _ANNOTATIONS:
        if (table := folder / place / f"{key}.csv").is_file():
            return [table]
        parts = sorted((folder / place / key).glob("truth_part*.mat"))
        if parts:
            return parts
    return []


def _samples_file(folder: Path, key: str) -> Path | None:
    path = folder / f"{key}_obj/img/data.mat"
    return path if path.is_file() else None


def _photographs(folder: Path, key: str) -> Path | None:
    numbered = folder / f"{key}_obj/img/img"
    if numbered.is_dir():
        return numbered
    named = (folder / place / key for place in _DET)
    return next((path for path in named if path.is_dir() and any(_pictures(path))), None)


def _pictures(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.suffix.lower() in (".jpeg", ".jpg"))


def _images(folder: Path, key: str) -> Callable[[_Object], Path]:
    """Return a function from an object to its photograph, for the layout of this folder."""
    photographs = _photographs(folder, key) or folder / f"{key}_obj/img/img"
    if photographs.name == "img":
        return lambda found: photographs / f"{found.number:05d}.jpg"
    return lambda found: photographs / (found.name or f"{found.number:05d}.jpg")


def _last_number(photographs: Path) -> int:
    """Return the number of the last photograph; the authors list more objects than they publish photographs."""
    numbers_ = [int(path.stem) for path in photographs.glob("*.jpg") if path.stem.isdigit()]
    return max(numbers_, default=0)


# -- tables -------------------------------------------------------------------------------------------------------


def _read_table(path: Path, key: str) -> dict[int, _Object]:
    objects: dict[int, _Object] = {}
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        try:
            for line in lines:
                _add_line(objects, line, key)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}, line {lines.line_num}, cannot be read: {error!r}. A row needs the columns image, object_id, "
                "xmin, ymin, xmax, ymax, part, part_y, part_x, all of them numbers except image. Repair the file."
            ) from error
    return objects


def _add_line(objects: dict[int, _Object], line: dict[str, str], key: str) -> None:
    left, top, right, bottom = (float(line[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
    landmark = _landmark(int(line["part"]), key)
    found = _Object(int(line["object_id"]), line["image"], _box(left, top, right, bottom), {})
    first = objects.setdefault(found.number, found)
    if (first.name, first.box) != (found.name, found.box):
        raise ValueError(f"object {found.number} is in two photographs, or has two boxes")
    share_y = (float(line["part_y"]) - top) / (bottom - top)
    share_x = (float(line["part_x"]) - left) / (right - left)
    first.landmarks.setdefault(landmark, _at(first.box, share_y, share_x))


# -- the authors' MATLAB files ------------------------------------------------------------------------------------


def _mats(files: list[Path], key: str, cache: ParseCache) -> dict[int, _Object]:
    objects: dict[int, _Object] = {}
    for path, (rows, why) in zip(files, cache.values("truth-part-1", files, _read_truth), strict=True):
        if why:
            raise DataError(
                f"{path} cannot be read as the authors' part annotation ({why}): it needs a struct array `truth` with "
                "`obj` and `pHW_center`, in MATLAB's format 5 or 7.3. Download the file again."
            )
        try:
            landmark = _landmark(int(path.stem[-2:]), key)
            for n, name, box, (share_y, share_x) in rows:
                found = objects.setdefault(n, _Object(n, name, Box(*box), {}))
                if (found.name, found.box) != (name, Box(*box)):
                    raise ValueError(f"object {n} differs from the one in {files[0].name}")
                found.landmarks[landmark] = _at(found.box, share_y, share_x)
        except ValueError as error:
            raise DataError(
                f"{path} does not fit {key}: {error}. Take a synset's files from one copy of the data set."
            ) from error
    return objects


def _read_truth(path: Path) -> list[Any]:
    """Return, for the first instance of the part on each object: number, photograph, box, fractions of the box."""
    try:
        rows = [row for element in _elements(path, "truth") for row in _truth_row(element)]
    except (IndexError, KeyError, OSError, ValueError) as error:
        return [[], repr(error)]
    return [rows, ""]


def _truth_row(element: Struct) -> list[Any]:
    centres = _numbers(element["pHW_center"])
    if not centres.size:
        return []
    found = structs(element["obj"])[0]  # repeated for each instance of the part
    name = text(found["filename"])
    share_y, share_x = centres[:2, 0] / _SIDE
    image = name if Path(name).suffix else f"{name}.JPEG"
    return [[int(_number(found["ID"])), image, list(_box_of(found["bndbox"])), [float(share_y), float(share_x)]]]


def _samples(path: Path, last: int, cache: ParseCache) -> dict[int, _Object]:
    """Return every object that the authors trained on, with or without marked parts."""
    ((boxes, why),) = cache.values("samples-1", [path], _read_samples)
    if why:
        raise DataError(
            f"{path} cannot be read as the authors' list of objects ({why}): it needs a struct array `samples` with "
            "`obj.bndbox`, in MATLAB's format 5 or 7.3. Download the file again."
        )
    return {n: _Object(n, "", Box(*box), {}) for n, box in enumerate(boxes[:last], start=1)}


def _read_samples(path: Path) -> list[Any]:
    try:
        samples = _elements(path, "samples")
        return [[list(_box_of(structs(sample["obj"])[0]["bndbox"])) for sample in samples], ""]
    except (IndexError, KeyError, OSError, ValueError) as error:
        return [[], repr(error)]


def _box_of(bndbox: Any) -> Box:
    (corners,) = structs(bndbox)
    return _box(*(_number(corners[name]) for name in ("xmin", "ymin", "xmax", "ymax")))


def _elements(path: Path, variable: str) -> list[Struct]:
    """Return the elements of a variable that is a struct array."""
    found = read_mat(path, [variable])
    if not isinstance(found.get(variable), dict | list):
        raise ValueError(f"no struct array `{variable}`")
    return structs(found[variable])


def _numbers(value: Any) -> NDArray[np.float64]:
    """Return a value in double precision; the authors write some as text (`int2str`) and some as 8-bit integers."""
    if isinstance(value, str):
        return np.array(value.split(), dtype=np.float64)
    return numbers(value).astype(np.float64)


def _number(value: Any) -> float:
    (only,) = _numbers(value).ravel()
    return float(only)


# -- both ---------------------------------------------------------------------------------------------------------


def _box(left: float, top: float, right: float, bottom: float) -> Box:
    if not (right > left and bottom > top):  # also true for NaN
        raise ValueError(f"a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) is empty")
    return Box(left, top, right + 1, bottom + 1)


def _landmark(part: int, key: str) -> str:
    name = LANDMARK_OF_PART.get(part)
    if name not in _LANDMARKS[key]:
        raise ValueError(f"part {part} is not a part of {key}, which has {' and '.join(_LANDMARKS[key])}")
    return name


def _at(box: Box, share_y: float, share_x: float) -> Point:
    return box.top + share_y * box.height, box.left + share_x * box.width
