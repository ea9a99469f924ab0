"""Draws the jobs of a sweep as a matrix of categories and networks that fits a terminal of any size. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from string import ascii_lowercase
from typing import Any, NamedTuple

from rich.text import Text

from orchestrator.planning.setting_layers import lookup
from orchestrator.planning.typed import CATEGORIES_FIELD
from schemas.job import categories_label

CELL = 5
"""Columns of a cell, with the space before it."""
LONGEST_NAME = 16
"""Columns of a category's name, above which it is cut."""
GAP = 2
"""Columns between two blocks of rows."""
STYLES = {
    "done": "green", "running": "cyan", "failed": "bold red", "waiting": "dim", "cancelled": "yellow", "blocked": "red",
}  # fmt: skip
_WORDS = {"failed": "FAIL", "waiting": "·", "cancelled": "off", "blocked": "-"}
_URGENT = ("failed", "running", "blocked", "cancelled", "waiting", "done")
"""The rows that are shown where not all fit: those with the first of these."""


class Place(NamedTuple):
    """Where a job stands in the matrix."""

    row: str
    """Its categories."""
    column: str
    """Its network, with all settings that its title names."""


class Cell(NamedTuple):
    """A job."""

    place: Place
    status: str
    """A key of `STYLES`."""
    share: float | None = None
    """Part of its epochs that a running job has trained."""
    accuracy: float | None = None
    """Of a job that is done."""

    @property
    def text(self) -> str:
        """What its cell says, in at most four characters."""
        if self.status == "done":
            return "ok" if self.accuracy is None else f"{self.accuracy:.2f}".removeprefix("0")
        if self.status == "running":
            return "..." if self.share is None else f"{min(self.share, 0.99):.0%}"
        return _WORDS[self.status]


def place_of(title: str, fields: Mapping[str, Any]) -> Place | None:
    """Return where a job stands; None for pre-training, which belongs to no category.

    Args:
        title: the job's title.
        fields: the fields of its spec.
    """
    if lookup(fields, "is_pretraining"):
        return None
    label = categories_label(lookup(fields, CATEGORIES_FIELD), lookup(fields, "loss"))
    return Place(label, title.removeprefix(label).strip())


def draw_matrix(cells: Sequence[Cell], width: int, height: int) -> list[Text]:
    """Draw the matrix, in several blocks side by side if there is room.

    Args:
        cells: the jobs of a sweep; a later one replaces an earlier one at its place.
        width: columns of the terminal.
        height: most lines to draw.

    Returns:
        The lines: a legend of the networks, a heading, and a row per category. If not all rows fit,
        those with failed and running jobs come first, and the last line counts the others. No lines if not even one
        row fits.
    """
    rows: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.place.row, {})[cell.place.column] = cell
    columns = list(dict.fromkeys(cell.place.column for cell in cells))
    name = min(LONGEST_NAME, max(map(len, rows), default=0))
    shown = columns[: min(len(ascii_lowercase), max(0, (width - name) // CELL))]
    if not shown:
        return []
    letters = dict(zip(shown, ascii_lowercase, strict=False))
    more = [f"and {len(columns) - len(shown)} more networks"] if len(columns) > len(shown) else []
    legend = _legend([*(f"{letter} {column}" for column, letter in letters.items()), *more], width)
    room = height - len(legend) - 1
    block = name + CELL * len(shown)
    blocks = max(1, (width + GAP) // (block + GAP))
    if room < 1:
        return []
    names, left_out = list(rows), 0
    if ceil(len(names) / blocks) > room:
        names.sort(key=lambda row: min(_URGENT.index(cell.status) for cell in rows[row].values()))
        left_out = len(names) - blocks * (room - 1)
        names = names[: blocks * (room - 1)]
    deep = ceil(len(names) / blocks)
    used = ceil(len(names) / deep) if deep else 0
    heading = "".join(f"{letters[column]:>{CELL}}" for column in shown)
    lines = [*legend, Text((" " * GAP).join([" " * name + heading] * used), style="bold")] if used else legend
    for depth in range(deep):
        line = Text()
        for start in range(depth, len(names), deep):
            line.append(" " * GAP if line else "")
            line.append(_fitted(names[start], name))
            for column in shown:
                found = rows[names[start]].get(column)
                line.append(f"{found.text if found else '':>{CELL}}", style=STYLES[found.status] if found else "")
        lines.append(line)
    return [*lines, *([_cut(f"and {left_out} more categories", width)] if left_out else [])]


def _legend(entries: Sequence[str], width: int) -> list[Text]:
    """Put as many entries on a line as fit."""
    lines: list[str] = []
    for entry in entries:
        longer = f"{lines[-1]}   {entry}" if lines else entry
        lines = [*lines[:-1], longer] if len(longer) <= width else [*lines, entry]
    return [_cut(line, width) for line in lines]


def _fitted(text: str, width: int) -> str:
    return f"{text if len(text) <= width else text[: width - 1] + '…':<{width}}"


def _cut(text: str, width: int) -> Text:
    return Text(text if len(text) <= width else text[: max(0, width - 1)] + "…", style="dim")
