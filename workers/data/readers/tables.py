"""Reads text files of annotations: UTF-8 with or without a byte order mark, and tables whose rows are all complete."""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from workers.data.disk_files import brief, open_regular
from workers.data.readers.records import AnnotationError, annotation_error

COLUMNS = ("image", "object_id", "xmin", "ymin", "xmax", "ymax", "part", "part_y", "part_x")
"""Columns that a table of parts needs, in any order and among others."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_OTHER_ENCODINGS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
"""Byte order marks; that of UTF-32 begins like one of UTF-16."""
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A row of a table."""

    path: Path
    at: int
    """Number of its line, from 1."""
    cells: dict[str, str]
    """By column."""

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.path}, line {self.at}"

    def error(self, why: str) -> AnnotationError:
        """Return the error for this row."""
        return annotation_error(self.path, why, f"line {self.at}")

    def text(self, column: str) -> str:
        """Return a cell that must not be blank.

        Raises:
            DataError: it is blank.
        """
        if not (found := self.cells[column].strip()):
            raise self.error(f"`{column}` is empty")
        return found

    def number(self, column: str) -> float:
        """Return a cell that must be a finite number.

        Raises:
            DataError: it is something else.
        """
        found = parse_number(self.cells[column])
        if found is None:
            raise self.error(f"`{column}` is {brief(self.cells[column])!r}, which is not a number")
        return found

    def whole(self, column: str) -> int:
        """Return a cell that must be a whole number.

        Raises:
            DataError: it is something else.
        """
        found = self.number(column)
        if found != int(found):
            raise self.error(f"`{column}` is {found:g}, which is not a whole number")
        return int(found)


def parse_number(text: str) -> float | None:
    """Return the finite number that a text is, in ASCII digits with a decimal point, or None."""
    if not _NUMBER.fullmatch(text.strip()):
        return None
    found = float(text)
    return found if math.isfinite(found) else None


def read_text(path: Path) -> str:
    """Return the content of a text file without its byte order mark.

    Raises:
        DataError: the file cannot be opened or is not UTF-8.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        raise annotation_error(path, error.strerror or str(error)) from error
    for name, marks in _OTHER_ENCODINGS.items():
        if content.startswith(marks):
            raise annotation_error(path, f"it is {name}, not UTF-8", advice="Save it as UTF-8.")
    mark = len(_BOM) if content.startswith(_BOM) else 0
    try:
        text = content[mark:].decode("utf-8")
        bad_at = text.find("\0")
    except UnicodeDecodeError as error:
        at = f"line {_line_of(content, mark + error.start)}, byte {mark + error.start}"
        raise annotation_error(path, "not UTF-8", at, advice="Save the file as UTF-8.") from None
    if bad_at >= 0:
        raise annotation_error(path, "a zero byte, so it is not text in UTF-8", f"line {_line_of(text, bad_at)}")
    return text


def _line_of(content: bytes | str, offset: int) -> int:
    """Return the number of the line at an offset; a line ends with LF, CR or both."""
    before = content[:offset] if isinstance(content, str) else content[:offset].decode("latin-1")
    return before.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that is not blank; a line ends with LF, CR or both.

    Raises:
        DataError: as `read_text`.
    """
    for at, line in enumerate(re.split(r"\r\n|\r|\n", read_text(path)), start=1):
        if stripped := line.strip(" \t"):
            yield at, stripped


def read_table(path: Path, columns: Collection[str] = COLUMNS) -> list[Line]:
    """Return the rows of a table that are not blank.

    Raises:
        DataError: a column is missing or there twice, a row has another number of cells than the header, a quote is
            not closed, or the file is empty.
    """
    table = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    header: list[str] | None = None
    lines = []
    try:
        for cells in table:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(path, cells, table.line_num, columns)
                continue
            line = Line(path, table.line_num, dict(zip(header, cells, strict=False)))
            if len(cells) != len(header):
                raise line.error(f"{len(cells)} cells, and the header has {len(header)}")
            if any("\n" in cell or "\r" in cell for cell in cells):
                raise line.error("a cell with a line break in it: a quote is probably not closed")
            lines.append(line)
    except csv.Error as error:
        raise annotation_error(path, str(error), f"line {table.line_num}") from error
    if header is None:
        raise annotation_error(path, "it is empty")
    return lines


def _header(path: Path, cells: list[str], at: int, columns: Collection[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    if lacking := [name for name in columns if name not in header]:
        hint = "; columns are separated by commas" if len(header) == 1 else ""
        raise annotation_error(
            path, f"the header {brief(','.join(header))!r} lacks the columns {', '.join(lacking)}{hint}", f"line {at}"
        )
    if twice := [name for name in dict.fromkeys(header) if name and header.count(name) > 1]:
        raise annotation_error(path, f"the column {brief(twice[0])} is there twice", f"line {at}")
    return header
