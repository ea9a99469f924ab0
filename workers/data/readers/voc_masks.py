"""Reads the masks of Pascal VOC Part (`Annotations_Part/*.mat`) and merges its parts as the paper does (Sec. 5.2.1).

Legend: H height and W width of the photograph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.categories import CATEGORIES, Category
from schemas.errors import DataError
from workers.data.disk_files import brief
from workers.data.readers.matlab import MALFORMED, Struct, described, numbers, read_mat, structs, text
from workers.data.readers.parse_cache import ParseCache
from workers.data.readers.records import AnnotatedObject, Box, Point, annotation_error

Mask = NDArray[np.bool_]

MERGED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "head": ("head", "leye", "reye", "lear", "rear", "nose", "muzzle", "beak", "lhorn", "rhorn"),
        "torso": ("torso", "neck", "lwing", "rwing"),
        "frontal_legs": ("lfleg", "rfleg", "lfpa", "rfpa", "lfuleg", "lflleg", "rfuleg", "rflleg", "lfho", "rfho"),
        "back_legs": ("lbleg", "rbleg", "lbpa", "rbpa", "lbuleg", "lblleg", "rbuleg", "rblleg", "lbho", "rbho"),
        "legs": ("lleg", "rleg", "lfoot", "rfoot"),
        "tail": ("tail",),
    }
)
"""Names that the data set uses for each merged part. Paws and hooves belong to the legs."""

_KNOWN_PARTS = frozenset(name for members in MERGED.values() for name in members)
_ANIMALS: Mapping[str, Category] = MappingProxyType({c.key: c for c in CATEGORIES if c.dataset == "voc_part"})


class MaskedObject(NamedTuple):
    """One object of a photograph."""

    box: Box
    """Around its silhouette."""
    landmarks: dict[str, Point]
    """Centres of the boxes around the visible landmark parts of the category."""
    parts_HW: NDArray[np.uint8]
    """Bit k is set on the pixels of the category's k-th part."""


class Annotated(NamedTuple):
    """One of the paper's animals in an annotation file, without its masks."""

    key: str
    """Key of its category."""
    number: int
    """Position among all objects of the file, from 1."""
    box: Box
    """Of width 0 where the silhouette is empty."""
    landmarks: dict[str, Point]
    """Centres of the boxes around the visible landmark parts."""


class MaskFile(NamedTuple):
    """Content of one annotation file."""

    width: int
    """Pixels of the masks and of the photograph; 0 without an annotated object."""
    height: int
    """Pixels, as `width`."""
    objects: tuple[Annotated, ...]
    problem: str
    """Why the file cannot be read, or an empty string."""


def read_objects(path: Path, category: Category) -> list[MaskedObject]:
    """Return the objects of a category in one annotation file, in the file's order.

    Raises:
        DataError: the file is not one of Pascal VOC Part.
    """
    try:
        return [_object(found, category) for found in _objects(path) if text(found["class"]) == category.key]
    except MALFORMED as error:
        raise unreadable(path, described(error)) from error


def unreadable(path: Path, why: str) -> DataError:
    """Return the error for a file that is not a part annotation of Pascal VOC Part."""
    return annotation_error(
        path,
        f"{brief(why, 100)}; it needs a struct `anno` with `objects`, each with `class`, `mask` and `parts`",
        what="a part annotation of Pascal VOC Part",
        advice="Restore the file from the data set's archive.",
    )


def read_annotations(paths: Sequence[Path], cache: ParseCache) -> list[MaskFile]:
    """Return the paper's animals in each file; parsing a file takes about ten milliseconds of a core."""
    contents = cache.values("voc-part-1", paths, _summarise)
    return [MaskFile(width, height, tuple(map(_annotated, rows)), why) for width, height, rows, why in contents]


def _summarise(path: Path) -> list[Any]:
    width, height, number = 0, 0, 0
    rows = []
    try:
        for number, found in enumerate(_objects(path), start=1):
            height, width = _mask(found).shape
            if (category := _ANIMALS.get(text(found["class"]))) is not None:
                box, landmarks, _ = _object(found, category)
                rows.append([category.key, number, list(box), {name: list(at) for name, at in landmarks.items()}])
    except MALFORMED as error:
        return [0, 0, [], f"object {number}: {described(error)}" if number else described(error)]
    return [width, height, rows, ""]


def _annotated(row: Any) -> Annotated:
    key, number, box, landmarks = row
    return Annotated(key, number, Box(*box), {name: (r, c) for name, (r, c) in landmarks.items()})


def part_map(record: AnnotatedObject, category: Category, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the parts of a record's object.

    The object is the one whose silhouette has the largest intersection over union with the record's box. Below 0.5 the
    map is empty.

    Args:
        record: of an object with a file of masks.
        shape: (H, W) of the photograph, in pixels.

    Returns:
        (H, W), with bits as in `MaskedObject.parts_HW`.

    Raises:
        DataError: the file cannot be read, or its masks have another size than the photograph.
    """
    assert record.masks is not None
    assert record.box is not None
    best = MaskedObject(Box(0, 0, 0, 0), {}, np.zeros(shape, np.uint8))
    for found in read_objects(record.masks, category):
        if found.parts_HW.shape != shape:
            raise DataError(
                f"The masks in {record.masks} are {found.parts_HW.shape[1]} x {found.parts_HW.shape[0]} pixels, and "
                f"{record.image} is {shape[1]} x {shape[0]}. The photograph was probably resized: restore it."
            )
        if _overlap(found.box, record.box) >= max(0.5, _overlap(best.box, record.box)):
            best = found
    return best.parts_HW


def _objects(path: Path) -> list[Struct]:
    return structs(read_mat(path, ["anno"])["anno"]["objects"])


def _object(found: Struct, category: Category) -> MaskedObject:
    silhouette = _mask(found)
    masks: dict[str, Mask] = {}
    for part in structs(found["parts"]):
        name = text(part["part_name"])
        if name not in _KNOWN_PARTS:
            raise ValueError(f"{name!r} is not a part of an animal in the data set")
        masks[name] = _mask(part)
        if masks[name].shape != silhouette.shape:
            raise ValueError(f"the mask of {name} and the mask of its object have different sizes")
    parts_HW = np.zeros(silhouette.shape, np.uint8)
    for k, name in enumerate(category.parts):
        for member in MERGED[name]:
            if member in masks:
                parts_HW[masks[member]] |= np.uint8(1 << k)
    seen = {name: masks[name] for name in category.landmarks if name in masks and masks[name].any()}
    return MaskedObject(_box(silhouette), {name: _centre(mask) for name, mask in seen.items()}, parts_HW)


def _mask(found: Struct) -> Mask:
    mask = numbers(found["mask"])
    if mask.ndim != 2:
        raise ValueError(f"a mask has {mask.ndim} dimensions instead of 2")
    return mask > 0


def _box(mask: Mask) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Box(0, 0, 0, 0)
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def _centre(mask: Mask) -> Point:
    box = _box(mask)
    return (box.top + box.bottom) / 2, (box.left + box.right) / 2


def _overlap(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    both = max(0.0, width) * max(0.0, height)
    union = a.width * a.height + b.width * b.height - both
    return both / union if union else 0.0
