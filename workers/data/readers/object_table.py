"""Reads tables of objects with named columns: what `orch data import --csv` takes, and what it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from schemas.categories import normal_name
from schemas.errors import DataError
from workers.data.disk_files import brief
from workers.data.readers.records import AnnotationError, Box, Point, annotation_error, checked_box
from workers.data.readers.tables import Line, read_table

CORNERS = ("x0", "y0", "x1", "y1")
SIZED = ("x", "y", "width", "height")
_BOXES = (CORNERS, SIZED)
IMAGE, CATEGORY = "image", "category"


class ObjectRow(NamedTuple):
    """One object of a table."""

    line: Line
    image: str
    """Path below the folder of images, with `/`."""
    category: str
    """As it is written; empty where the table has no such column, or the cell is empty."""
    box: Box | None
    """In pixels of the upright picture, whose left and top edges are 0; None for the whole picture."""
    landmarks: Mapping[str, Point]
    """(row, column) by the name of the landmark, in the same pixels."""


class ObjectTable(NamedTuple):
    """The rows of a table."""

    rows: list[ObjectRow]
    landmarks: tuple[str, ...]
    """Names of all landmarks, in the order of their columns."""
    unused: tuple[str, ...]
    """Columns that mean nothing."""
    problems: tuple[AnnotationError, ...]
    """Rows that cannot be understood; they are not among `rows`."""


def read_objects(path: Path) -> ObjectTable:
    """Read a table of objects: `image`, and any of `category`, a box, and `NAME_x` with `NAME_y` of each landmark.

    A box is `x0, y0, x1, y1` (corners) or `x, y, width, height`. Its cells, and the two of a landmark, may be empty.

    Raises:
        DataError: the file is no table, or a column is missing.
    """
    lines = read_table(path, (IMAGE,))
    columns = list(lines[0].cells) if lines else []
    box = _box_columns(path, columns)
    marks = _landmark_columns(path, columns, box)
    used = {IMAGE, CATEGORY, *box, *(f"{written}_{axis}" for written in marks.values() for axis in "xy")}
    rows, problems = [], []
    for line in lines:
        try:
            rows.append(_row(line, box, marks))
        except AnnotationError as error:
            problems.append(error)
    return ObjectTable(rows, tuple(marks), tuple(name for name in columns if name not in used), tuple(problems))


def _box_columns(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    given = [names for names in _BOXES if any(name in columns for name in names)]
    if not given:
        return ()
    if len(given) > 1:
        raise _bad(path, f"columns of both {', '.join(CORNERS)} and {', '.join(SIZED)}; keep those of one kind")
    if lacking := [name for name in given[0] if name not in columns]:
        raise _bad(path, f"the header lacks the columns {', '.join(lacking)} of a box")
    return given[0]


def _landmark_columns(path: Path, columns: Sequence[str], box: Sequence[str]) -> dict[str, str]:
    """Return the column's stem of each landmark, by the landmark's name."""
    found: dict[str, str] = {}
    for column in columns:
        written, underscore, axis = column.rpartition("_")
        if column in (*box, IMAGE, CATEGORY) or not (underscore and written and axis in ("x", "y")):
            continue
        other = f"{written}_{'y' if axis == 'x' else 'x'}"
        if other not in columns:
            raise _bad(path, f"the header has {brief(column)} without {brief(other)}")
        name = normal_name(written)
        if not name:
            raise _bad(path, f"{brief(written)!r} is no name for a landmark; use letters, digits and underscores")
        if found.setdefault(name, written) != written:
            raise _bad(path, f"the landmark {name} has columns of two spellings")
    return found


def _row(line: Line, box: Sequence[str], marks: Mapping[str, str]) -> ObjectRow:
    image = line.text(IMAGE).replace("\\", "/")
    if image.startswith("/") or ".." in PurePosixPath(image).parts:
        raise line.error(f"`image` is {brief(image)!r}, which is not a path below the folder of images")
    landmarks: dict[str, Point] = {}
    for name, written in marks.items():
        point = _numbers(line, (f"{written}_y", f"{written}_x"))
        if point is not None:
            landmarks[name] = point[0], point[1]
    category = line.cells.get(CATEGORY, "").strip()
    return ObjectRow(line, str(PurePosixPath(image)), category, _box(line, box), landmarks)


def _box(line: Line, columns: Sequence[str]) -> Box | None:
    numbers = _numbers(line, columns)
    if not numbers:
        return None
    left, top, third, fourth = numbers
    try:
        if columns == CORNERS:
            return checked_box(left, top, third, fourth)
        return checked_box(left, top, left + third, top + fourth)
    except ValueError as error:
        raise line.error(str(error)) from error


def _numbers(line: Line, columns: Sequence[str]) -> list[float] | None:
    """Return the numbers of cells that belong together; None if all are empty.

    Raises:
        DataError: some are empty, or one is not a number.
    """
    empty = [name for name in columns if not line.cells[name].strip()]
    if len(empty) == len(columns):
        return None
    if empty:
        raise line.error(f"`{empty[0]}` is empty, and {', '.join(n for n in columns if n not in empty)} not")
    return [line.number(name) for name in columns]


def _bad(path: Path, why: str) -> DataError:
    return annotation_error(path, why, "line 1")
