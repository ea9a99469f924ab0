"""Reads ILSVRC 2013 DET Animal-Part: the authors' `truth_partNN.mat` or one table per synset, and their photographs.

Boxes count pixels from 0 and include their last ones. A part's centre is a fraction of its object's box: in 224ths of
the box in the MATLAB files, and in pixels of the photograph in the tables.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.categories import CATEGORIES
from schemas.errors import DataError
from workers.data.disk_files import brief, is_hidden, visible_names
from workers.data.readers.matlab import MALFORMED, Struct, described, numbers, read_mat, structs, text
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
from workers.data.readers.tables import Line, read_table

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
    where: dict[str, str]
    """As in `AnnotatedObject`."""


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
        found, image_of = self._objects(key), _images(self.folder, key)
        return [
            AnnotatedObject(
                image_of(found[n]), str(n), found[n].box, found[n].landmarks, origin=found[n].name, where=found[n].where
            )
            for n in sorted(found)
            if is_large_enough(found[n].box)
        ]

    def left_out(self, key: str) -> list[LeftOut]:
        """Return the number of objects whose box is too small."""
        return too_small(sum(not is_large_enough(found.box) for found in self._objects(key).values()))

    def _objects(self, key: str) -> dict[int, _Object]:
        """Return a synset's objects by number, whatever their size."""
        files = _annotated(self.folder, key)
        found = _read_table(files[0], key) if files and files[0].suffix == ".csv" else _mats(files, key, self._cache)
        samples = _samples_file(self.folder, key)
        if samples is not None and files and files[0].suffix == ".mat":
            found = {**_samples(samples, _last_number(samples.parent / "img"), self._cache), **found}
        return found

    def flaws(self, key: str) -> list[Flaw]:
        """Return nothing: `records` reads an annotation file completely or refuses it."""
        return []


def _synsets(folder: Path) -> list[str]:
    # Folders are listed instead of asking for every file of every synset, which takes long on a network disk.
    listed = {name for place in _ANNOTATIONS for name in visible_names(folder / place)}
    named = [key for key in _LANDMARKS if key in listed or f"{key}.csv" in listed]
    return [key for key in named if _annotated(folder, key) and _photographs(folder, key)]


def _annotated(folder: Path, key: str) -> list[Path]:
    """Return the table of a synset, or its MATLAB files with one part each."""
    for place in _ANNOTATIONS:
        if os.path.isfile(table := folder / place / f"{key}.csv"):
            return [table]
        names = visible_names(folder / place / key)
        if parts := [folder / place / key / name for name in names if fnmatch(name, "truth_part*.mat")]:
            return parts
    return []


def _samples_file(folder: Path, key: str) -> Path | None:
    path = folder / f"{key}_obj/img/data.mat"
    return path if os.path.isfile(path) else None


def _photographs(folder: Path, key: str) -> Path | None:
    numbered = folder / f"{key}_obj/img/img"
    if numbered.is_dir():
        return numbered
    named = (folder / place / key for place in _DET)
    return next((path for path in named if path.is_dir() and any(_pictures(path))), None)


def _pictures(folder: Path) -> Iterator[Path]:
    names = (name for name in os.listdir(folder) if not is_hidden(name))
    return (folder / name for name in names if name.lower().endswith((".jpeg", ".jpg")))


def _images(folder: Path, key: str) -> Callable[[_Object], Path]:
    """Return a function from an object to its photograph, for the layout of this folder."""
    photographs = _photographs(folder, key) or folder / f"{key}_obj/img/img"
    if photographs.name == "img":
        return lambda found: photographs / f"{found.number:05d}.jpg"
    return lambda found: photographs / (found.name or f"{found.number:05d}.jpg")


def _last_number(photographs: Path) -> int:
    """Return the number of the last photograph; the authors list more objects than they publish photographs."""
    names = [name.lower() for name in visible_names(photographs)]
    numbers_ = [int(name[:-4]) for name in names if name.endswith(".jpg") and name[:-4].isdecimal()]
    return max(numbers_, default=0)


# -- tables -------------------------------------------------------------------------------------------------------


def _read_table(path: Path, key: str) -> dict[int, _Object]:
    objects: dict[int, _Object] = {}
    for line in read_table(path):
        try:
            _add_line(objects, line, key)
        except ValueError as error:
            raise line.error(str(error)) from error
    return objects


def _add_line(objects: dict[int, _Object], line: Line, key: str) -> None:
    left, top, right, bottom = (line.number(name) for name in ("xmin", "ymin", "xmax", "ymax"))
    landmark = _landmark(line.whole("part"), key)
    found = _Object(line.whole("object_id"), line.text("image"), _box(left, top, right, bottom), {}, {BOX: line.where})
    first = objects.setdefault(found.number, found)
    if (first.name, first.box) != (found.name, found.box):
        raise ValueError(f"object {found.number} is in two photographs, or has two boxes")
    share_y = (line.number("part_y") - top) / (bottom - top)
    share_x = (line.number("part_x") - left) / (right - left)
    if landmark not in first.landmarks:
        first.landmarks[landmark] = _at(first.box, share_y, share_x)
        first.where[landmark] = line.where


# -- the authors' MATLAB files ------------------------------------------------------------------------------------


def _mats(files: list[Path], key: str, cache: ParseCache) -> dict[int, _Object]:
    objects: dict[int, _Object] = {}
    for path, (rows, why) in zip(files, cache.values("truth-part-2", files, _read_truth), strict=True):
        if why:
            raise _no_mat(path, why, "part annotation", "`truth` with `obj` and `pHW_center`")
        try:
            landmark = _landmark(_part_of(path), key)
            for n, name, box, (share_y, share_x) in rows:
                where = f"{path}, object {n}"
                found = objects.setdefault(n, _Object(n, name, Box(*box), {}, {BOX: where}))
                if (found.name, found.box) != (name, Box(*box)):
                    raise ValueError(f"object {n} differs from the one in {files[0].name}")
                if landmark in found.landmarks:
                    raise ValueError(f"object {n} occurs twice")
                found.landmarks[landmark] = _at(found.box, share_y, share_x)
                found.where[landmark] = where
        except ValueError as error:
            raise annotation_error(
                path, str(error), f"annotation of {key}", advice="Take a synset's files from one copy of the data set."
            ) from error
    return objects


def _no_mat(path: Path, why: str, what: str, needed: str) -> DataError:
    return annotation_error(
        path,
        f"{brief(why, 100)}; it needs a struct array {needed}",
        what=f"the authors' {what}",
        advice="Download the file again, in MATLAB's format 5 or 7.3.",
    )


def _part_of(path: Path) -> int:
    digits = path.stem.removeprefix("truth_part")
    if not digits.isdecimal():
        raise ValueError("its name should be truth_part and a number")
    return int(digits)


def _read_truth(path: Path) -> list[Any]:
    """Return, for the first instance of the part on each object: number, photograph, box, fractions of the box."""
    return _each(path, "truth", _truth_row)


def _truth_row(element: Struct) -> list[Any]:
    centres = _numbers(element["pHW_center"])
    if not centres.size:
        return []
    found = structs(element["obj"])[0]  # repeated for each instance of the part
    name = text(found["filename"])
    share_y, share_x = (float(share) for share in centres[:2, 0] / _SIDE)
    if not (math.isfinite(share_y) and math.isfinite(share_x)):
        raise ValueError(f"a part's centre ({share_y:g}, {share_x:g}) is not finite")
    image = name if Path(name).suffix else f"{name}.JPEG"
    return [[int(_number(found["ID"])), image, list(_box_of(found["bndbox"])), [share_y, share_x]]]


def _samples(path: Path, last: int, cache: ParseCache) -> dict[int, _Object]:
    """Return every object that the authors trained on, with or without marked parts."""
    ((boxes, why),) = cache.values("samples-2", [path], _read_samples)
    if why:
        raise _no_mat(path, why, "list of objects", "`samples` with `obj.bndbox`")
    return {
        n: _Object(n, "", Box(*box), {}, {BOX: f"{path}, object {n}"}) for n, box in enumerate(boxes[:last], start=1)
    }


def _read_samples(path: Path) -> list[Any]:
    """Return the boxes of all objects."""
    return _each(path, "samples", lambda sample: [list(_box_of(structs(sample["obj"])[0]["bndbox"]))])


def _each(path: Path, variable: str, rows_of: Callable[[Struct], list[Any]]) -> list[Any]:
    """Return what `rows_of` gives for the elements of a struct array, and why the file cannot be read."""
    rows: list[Any] = []
    at = "its content"
    try:
        for number, element in enumerate(_elements(path, variable), start=1):
            at = f"element {number} of `{variable}`"
            rows += rows_of(element)
    except MALFORMED as error:
        return [[], f"{at}: {described(error)}"]
    return [rows, ""]


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
    checked_box(left, top, right, bottom)  # before the last pixels are added: a part's place is a fraction of this
    return Box(left, top, right + 1, bottom + 1)


def _landmark(part: int, key: str) -> str:
    name = LANDMARK_OF_PART.get(part)
    if name not in _LANDMARKS[key]:
        raise ValueError(f"part {part} is not a part of {key}, which has {' and '.join(_LANDMARKS[key])}")
    return name


def _at(box: Box, share_y: float, share_x: float) -> Point:
    return box.top + share_y * box.height, box.left + share_x * box.width
