"""Draws the pictures of a job in labelled rows, with their landmarks and part outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.categories import BY_ID, Category
from schemas.errors import DataError, StoreError
from workers.data.data_root import DataRoot
from workers.data.generated.generate import generate, merge_parts
from workers.data.prepared.crops import crop, crop_parts, decode
from workers.data.readers.records import AnnotatedObject
from workers.data.split import take_evenly
from workers.files import write_atomically

Pixels = NDArray[np.uint8]

_LANDMARK_COLOURS: dict[str, tuple[int, int, int]] = {
    "head": (255, 40, 40), "forehead": (255, 150, 40), "neck": (255, 240, 40), "torso": (60, 230, 60),
    "back": (40, 230, 230), "frontal_legs": (70, 120, 255), "tail": (240, 70, 255),
}  # fmt: skip
_PART_COLOURS = {**_LANDMARK_COLOURS, "legs": (70, 120, 255), "back_legs": (160, 110, 60)}
_FURTHER_COLOURS = (
    (255, 40, 40), (60, 230, 60), (70, 120, 255), (255, 240, 40), (240, 70, 255), (40, 230, 230), (255, 150, 40),
    (160, 110, 60),
)  # fmt: skip
"""Of names that are in neither table: those of imported data sets."""
_Colours = Mapping[str, tuple[int, int, int]]
_TITLE_HEIGHT, _LABEL_HEIGHT, _GAP = 24, 18, 2
_LEGEND_HEIGHT = 20
"""Height of a line of the legend, in pixels."""
_MIN_WIDTH = 900
"""Least width of a sheet, in pixels."""
_INK, _PAPER = (30, 30, 30), 250
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42


class Tile(NamedTuple):
    """One picture of a sheet."""

    picture_SS3: Pixels
    landmarks: Mapping[str, tuple[float, float]]
    """(row, column) in pixel indices; NaN for landmarks that are not drawn."""
    parts_SS: Pixels | None = None
    """Bit k is set on the pixels of the k-th of `part_names`; None without masks."""
    part_names: Sequence[str] = ()


def generated_sheet(category_ids: Sequence[str], *, per_category: int = 8, size: int = 128) -> Pixels:
    """Return a sheet of generated animals with their true parts.

    Args:
        per_category: pictures in a row.
        size: side of a picture, in pixels.
    """
    rows = {}
    for category in category_ids:
        pictures = [generate(category, index, size) for index in range(per_category)]
        names = BY_ID[category].landmarks
        rows[BY_ID[category].label] = [
            Tile(
                picture.image_SS3,
                {name: picture.landmarks[name] for name in names},
                merge_parts(picture.parts_SS, BY_ID[category].parts),
                BY_ID[category].parts,
            )
            for picture in pictures
        ]
    return contact_sheet("generated animals (drawn, not photographs): true parts and landmarks", rows)


def photograph_sheet(
    category_ids: Sequence[str],
    root: DataRoot,
    *,
    per_category: int = 8,
    size: int = 128,
) -> Pixels:
    """Return a sheet of crops with their annotated landmarks and part masks.

    The crops are evenly spaced over each category. Where some objects have masks, those come first.

    Args:
        per_category: pictures in a row.
        size: side of a picture, in pixels.

    Raises:
        DataError: none of the categories has readable photographs under the root.
    """
    rows: dict[str, list[Tile]] = {}
    for category in category_ids:
        records = root.records(category)
        masked = [record for record in records if record.masks is not None]
        chosen = take_evenly(masked, per_category)
        chosen += take_evenly([record for record in records if record.masks is None], per_category - len(chosen))
        found = root.category(category)
        cells = [cell for record in chosen if (cell := _cell(record, found, size)) is not None]
        if cells:
            rows[found.label] = cells
    if not rows:
        raise DataError(
            f"None of {', '.join(category_ids)} has photographs under {root.path}. `orch data list` shows what has; "
            "`orch data show` without `--data-root` shows generated animals."
        )
    return contact_sheet("photographs, cropped by object box: annotated landmarks and part masks", rows)


def _cell(record: AnnotatedObject, category: Category, size: int) -> Tile | None:
    picture = decode(record.image)
    if picture is None:
        return None
    picture_SS3, landmarks_K2 = crop(picture, record, size, category.landmarks)
    marks = {name: (float(r), float(c)) for name, (r, c) in zip(category.landmarks, landmarks_K2, strict=True)}
    if record.masks is None:
        return Tile(picture_SS3, marks)
    from workers.data.readers.part_maps import part_map

    parts_HW = part_map(record, category, (picture.height, picture.width))
    return Tile(picture_SS3, marks, crop_parts(parts_HW, record, size), category.parts)


def contact_sheet(title: str, rows: Mapping[str, Sequence[Tile]]) -> Pixels:
    """Return one labelled row of pictures per entry, under the title and a legend."""
    cells = [cell for row in rows.values() for cell in row]
    marks = _colours(_LANDMARK_COLOURS, [name for cell in cells for name in cell.landmarks])
    parts = _colours(_PART_COLOURS, [name for cell in cells for name in cell.part_names])
    strips = [_strip(label, cells, marks, parts) for label, cells in rows.items()]
    width = max(_MIN_WIDTH, *(strip.shape[1] for strip in strips))
    return np.concatenate([_heading(title, marks, parts, width), *(_widen(strip, width) for strip in strips)])


def write_contact_sheet(path: Path, sheet: Pixels) -> None:
    """Save a sheet as PNG.

    Raises:
        StoreError: the file cannot be written.
    """
    encoded = cv2.imencode(".png", np.ascontiguousarray(sheet[:, :, ::-1]))[1]
    try:
        write_atomically(path, encoded.tobytes())
    except OSError as error:
        raise StoreError(
            f"The contact sheet cannot be written to {path}: {error.strerror}. Name another file with `--out`."
        ) from error


def _colours(known: _Colours, names: Sequence[str]) -> _Colours:
    """Return the colour of each name: known ones in their order, then the others as they come."""
    others = zip([name for name in dict.fromkeys(names) if name not in known], cycle(_FURTHER_COLOURS), strict=False)
    return {name: colour for name, colour in known.items() if name in names} | dict(others)


def _strip(label: str, cells: Sequence[Tile], marks: _Colours, parts: _Colours) -> Pixels:
    gap = np.full((cells[0].picture_SS3.shape[0], _GAP, 3), _PAPER, dtype=np.uint8)
    pictures = np.concatenate([part for cell in cells for part in (_annotated(cell, marks, parts), gap)], axis=1)
    caption = np.full((_LABEL_HEIGHT, pictures.shape[1], 3), _PAPER, dtype=np.uint8)
    _write(caption, label, (4, 13))
    return np.concatenate([caption, pictures])


def _annotated(cell: Tile, marks: _Colours, parts: _Colours) -> Pixels:
    drawn = np.ascontiguousarray(cell.picture_SS3).copy()
    parts_SS = np.zeros(drawn.shape[:2], np.uint8) if cell.parts_SS is None else cell.parts_SS
    for k, part in enumerate(cell.part_names):
        mask = np.bitwise_and(parts_SS, 1 << k) > 0
        outlines = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(drawn, outlines, -1, parts[part], 1)
    radius = max(2, len(drawn) // 40)
    for name, (row, column) in cell.landmarks.items():
        if row == row:
            at = (round(column), round(row))
            cv2.circle(drawn, at, radius + 1, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(drawn, at, radius, marks[name], -1, cv2.LINE_AA)
    return drawn


def _heading(title: str, landmarks: _Colours, parts: _Colours, width: int) -> Pixels:
    """Draw the title and the legend, with landmarks as dots and the outlines of parts as squares."""
    entries = [(name, colour, False) for name, colour in landmarks.items()]
    entries += [(name, colour, True) for name, colour in parts.items()]
    places, (x, line) = [], (8, 0)
    for name, _, _ in entries:
        wide = 26 + cv2.getTextSize(name, _FONT, _FONT_SCALE, 1)[0][0]
        if x + wide > width and x > 8:
            x, line = 8, line + 1
        places.append((x, _TITLE_HEIGHT + 8 + line * _LEGEND_HEIGHT))
        x += wide
    band = np.full((_TITLE_HEIGHT + (line + 1) * _LEGEND_HEIGHT, width, 3), _PAPER, dtype=np.uint8)
    _write(band, title, (4, 16))
    for (name, colour, is_part), (x, y) in zip(entries, places, strict=True):
        if is_part:
            cv2.rectangle(band, (x - 5, y - 5), (x + 5, y + 5), colour, 2)
        else:
            cv2.circle(band, (x, y), 5, colour, -1, cv2.LINE_AA)
        _write(band, name, (x + 9, y + 4))
    return band


def _write(canvas: Pixels, text: str, at: tuple[int, int]) -> None:
    cv2.putText(canvas, text, at, _FONT, _FONT_SCALE, _INK, 1, cv2.LINE_AA)


def _widen(strip: Pixels, width: int) -> Pixels:
    return np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=_PAPER)
