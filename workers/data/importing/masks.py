"""Reads part masks: one folder per part, with a PNG for each photograph whose pixels other than 0 are the part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.categories import normal_name
from schemas.errors import DataError
from workers.data.disk_files import brief, open_regular, printable, visible_names
from workers.data.image_facts import UNREADABLE
from workers.data.importing.objects import (
    Annotated,
    NewObject,
    import_error,
    is_negative,
    key_of,
    list_images,
    negatives_of,
    some_names,
)
from workers.data.importing.tables import folder_category
from workers.data.readers.imported import MAX_PARTS
from workers.data.readers.records import Box

OBJECT = "object"
"""Folder of the silhouettes, which give the boxes; it is no part."""
_LAYOUT = "Put the masks at MASKS/PART/PHOTOGRAPH.png, such as masks/ear/tom.png for tom.jpg."


class PartMasks:
    """The masks of a folder, by photograph and part."""

    def __init__(self, folder: Path, images: Sequence[str]) -> None:
        """Find the photograph of every mask.

        Args:
            folder: has one folder per part.
            images: photographs, as paths below the imported folder.

        Raises:
            DataError: there are no masks, more than 8 parts, or a mask without a photograph.
        """
        self.folder = folder
        written = [name for name in visible_names(folder) if (folder / name).is_dir()]
        names = {name: normal_name(name) for name in written}
        self.parts = tuple(name for name in names.values() if name != OBJECT)
        self._files: dict[str, dict[str, Path]] = {}
        problems = [f"the folder {brief(name)!r} is no name for a part" for name, part in names.items() if not part]
        if len(self.parts) > MAX_PARTS:
            problems.append(f"{printable(folder)} has {len(self.parts)} parts, and a data set has at most {MAX_PARTS}")
        by_path = {str(PurePosixPath(image).with_suffix("")): image for image in images}
        by_stem: dict[str, list[str]] = {}
        for image in images:
            by_stem.setdefault(PurePosixPath(image).stem, []).append(image)
        for name, part in names.items():
            for mask in list_images(folder / name)[0]:
                path = str(PurePosixPath(mask).with_suffix(""))
                alike = by_stem.get(PurePosixPath(mask).stem, [])
                found = by_path.get(path) or (alike[0] if len(alike) == 1 else None)
                if found is None:
                    why = f"belongs to several: {some_names(alike)}" if alike else "has no photograph"
                    problems.append(f"the mask {name}/{brief(printable(mask))} {why}")
                else:
                    self._files.setdefault(found, {})[part] = folder / name / mask
        if not self._files and not problems:
            problems.append(f"{printable(folder)} has no masks")
        if problems:
            raise import_error(problems, _LAYOUT)

    def __contains__(self, image: str) -> bool:
        return image in self._files

    def mask(self, image: str, part: str) -> NDArray[np.bool_] | None:
        """Return where a photograph shows a part, (H, W); None without a mask.

        Raises:
            DataError: the file cannot be read.
        """
        path = self._files.get(image, {}).get(part)
        if path is None:
            return None
        try:
            with open_regular(path) as file, Image.open(file) as picture:
                pixels = np.asarray(picture if picture.mode in ("1", "P", "L") else picture.convert("L"))
        except UNREADABLE as error:
            raise DataError(f"the mask {printable(path)} cannot be read ({error})") from error
        return pixels > 0

    def bits(self, image: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the parts of a photograph, (H, W): bit k is set where it shows the k-th of `parts`.

        Args:
            size: width and height of the upright photograph, in pixels.

        Raises:
            DataError: a file cannot be read, or has another size.
        """
        bits_HW = np.zeros(size[::-1], np.uint8)
        for k, part in enumerate(self.parts):
            mask_HW = self.mask(image, part)
            if mask_HW is None:
                continue
            if mask_HW.shape != bits_HW.shape:
                raise DataError(
                    f"the mask {printable(self._files[image][part])} has {mask_HW.shape[1]} x {mask_HW.shape[0]} "
                    f"pixels, and the upright photograph {size[0]} x {size[1]}"
                )
            bits_HW[mask_HW] |= np.uint8(1 << k)
        return bits_HW


def from_masks(masks: PartMasks, images: Sequence[str], category: str) -> Annotated:
    """Return one object per photograph that has masks, and the photographs in the folder of negatives.

    A landmark is the centre of the bounding box of a part, as for Pascal VOC Part. The box is that of the mask in
    the folder `object`; without one it is the whole photograph.

    Raises:
        DataError: a mask cannot be read, or the name of a folder cannot be one of a category.
    """
    objects, problems = [], []
    shown = [image for image in images if image in masks and not is_negative(image)]
    for image in shown:
        try:
            key = key_of(folder_category(image, category))
            if not key:
                raise DataError(f"the folder of {brief(printable(image))} is no name for a category")
            boxes = {part: _bounds(masks.mask(image, part)) for part in (*masks.parts, OBJECT)}
        except DataError as error:
            problems.append(str(error))
            continue
        centres = {
            part: ((box.top + box.bottom) / 2, (box.left + box.right) / 2)
            for part, box in boxes.items()
            if box is not None and part != OBJECT
        }
        objects.append(NewObject(image, key, boxes[OBJECT], centres, f"{masks.folder.name}, {image}"))
    if problems:
        raise import_error(problems)
    rest = [image for image in images if image not in masks and not is_negative(image)]
    notes = (f"not imported, because they have no mask: {some_names(rest)}",) if rest else ()
    return Annotated([*objects, *negatives_of(images)], masks.parts, notes=notes)


def _bounds(mask_HW: NDArray[np.bool_] | None) -> Box | None:
    if mask_HW is None or not mask_HW.any():
        return None
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
