"""Reads the masks of Pascal VOC Part (`Annotations_Part/*.mat`) and merges its parts as the paper does (Sec. 5.2.1).

Legend: H height and W width of the photograph.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.categories import Category
from schemas.errors import DataError
from workers.data.records import Box, Point, Record

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
"""The data set's names of what belongs to each part. Paws and hooves go with the legs; no animal has all of a row."""


class MaskedObject(NamedTuple):
    """One object of a photograph."""

    box: Box
    """Around its silhouette."""
    landmarks: dict[str, Point]
    """Centres of the boxes around the category's landmark parts, as far as they can be seen."""
    parts_HW: NDArray[np.uint8]
    """Bit k is set where the category's k-th part is."""


def read_objects(path: Path, category: Category) -> list[MaskedObject]:
    """The objects of a category in one annotation file, in its order.

    Raises:
        DataError: the file is not one of Pascal VOC Part.
    """
    try:
        return [_object(found, category) for found in _objects(path) if _text(found["class"]) == category.key]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a part annotation of Pascal VOC Part ({error!r}): it needs a struct `anno` with "
            "`objects`, each with `class`, `mask` and `parts`. Restore the file from the data set's archive."
        ) from error


def part_map(record: Record, category: Category, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Parts of a record's object, of the photograph's (H, W): bits as in `MaskedObject`.

    The object is the one whose silhouette fills the record's box best; where none fills half of it, no part is shown.

    Raises:
        DataError: the masks are not of this photograph.
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


def _objects(path: Path) -> list[Any]:
    from scipy.io import loadmat  # slow to import, and most jobs read no masks
    from scipy.io.matlab import MatReadError

    try:
        return list(loadmat(path)["anno"][0, 0]["objects"].ravel())
    except (OSError, MatReadError, zlib.error, NotImplementedError) as error:  # the last of MATLAB 7.3's own format
        raise ValueError(str(error)) from error


def _object(found: Any, category: Category) -> MaskedObject:
    silhouette = _mask(found)
    masks: dict[str, Mask] = {}
    for part in found["parts"].ravel():
        masks[_text(part["part_name"])] = _mask(part)
    parts_HW = np.zeros(silhouette.shape, np.uint8)
    for k, name in enumerate(category.parts):
        for member in MERGED[name]:
            if member in masks:
                parts_HW[masks[member]] |= np.uint8(1 << k)
    seen = {name: masks[name] for name in category.landmarks if name in masks and masks[name].any()}
    return MaskedObject(_box(silhouette), {name: _centre(mask) for name, mask in seen.items()}, parts_HW)


def _text(value: Any) -> str:
    return str(value.item())


def _mask(found: Any) -> Mask:
    mask = np.asarray(found["mask"])
    if mask.ndim != 2:
        raise ValueError(f"a mask of {mask.ndim} dimensions")
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
    """Intersection over union."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    both = max(0.0, width) * max(0.0, height)
    union = a.width * a.height + b.width * b.height - both
    return both / union if union else 0.0
