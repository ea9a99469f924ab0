"""Lays out tables for any width of a terminal: text folds, optional columns go, and numbers stay whole."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

UNBROKEN = ("key", "status")
"""Headings of text columns that are never folded, because people copy from them or search in them."""

LEGIBLE = 12
"""Columns below which text is not folded."""

GAP = 1
"""Columns between two cells."""


class PlainTable:
    """A table without borders. Where its columns do not fit, each row becomes a list of headings and values."""

    def __init__(
        self,
        *headings: str,
        title: str | None = None,
        numbers: Collection[str] = (),
        optional: Sequence[str] = (),
        has_header: bool = True,
    ) -> None:
        """Begin a table.

        Args:
            headings: one per column.
            title: a line above the table.
            numbers: headings of the columns that are right-aligned and never folded.
            optional: headings of the columns to leave out on a narrow terminal, the first ones first.
            has_header: whether to show the headings.
        """
        self._headings, self._title, self._optional, self._has_header = headings, title, optional, has_header
        self._numbers = frozenset(numbers)
        self._rows: list[tuple[tuple[Text, ...], str]] = []

    def add_row(self, *cells: str | Text, style: str = "") -> None:
        """Add a row, with one cell per heading."""
        texts = tuple(cell if isinstance(cell, Text) else Text(cell) for cell in cells)
        self._rows.append((texts, style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._title:
            yield Text(self._title, style="italic")
        columns = list(range(len(self._headings)))
        for left_out in (*self._optional, None):
            widths = self._widths(columns, options.max_width)
            if widths is not None:
                yield self._table(columns, widths)
                return
            columns = [i for i in columns if self._headings[i] != left_out]
        yield from self._records()

    def _widths(self, columns: Sequence[int], available: int) -> list[int] | None:
        """Width of each column, or None if they do not fit."""
        room = available - GAP * (len(columns) - 1)
        most = [max([self._heading_width(i), *self._cell_widths(i)]) for i in columns]
        widths = [self._least(i, wide) for i, wide in zip(columns, most, strict=True)]
        left = room - sum(widths)
        if left < 0:
            return None
        by_need = sorted(range(len(columns)), key=lambda n: most[n] - widths[n])
        for place, n in enumerate(by_need):  # the widest text takes what the others leave
            grown = min(most[n] - widths[n], left // (len(columns) - place))
            widths[n] += grown
            left -= grown
        return widths

    def _least(self, column: int, wide: int) -> int:
        """Smallest legible width of a column: that of its longest cell if it may not fold."""
        if self._headings[column] in (*self._numbers, *UNBROKEN):
            return max([self._heading_word(column), *self._cell_widths(column)])
        return min(wide, max(LEGIBLE, self._heading_word(column)))

    def _cell_widths(self, column: int) -> list[int]:
        return [_widest(cells[column]) for cells, _ in self._rows]

    def _heading_width(self, column: int) -> int:
        return len(self._headings[column]) if self._has_header else 0

    def _heading_word(self, column: int) -> int:
        return max(map(len, self._headings[column].split()), default=0) if self._has_header else 0

    def _table(self, columns: Sequence[int], widths: Sequence[int]) -> Table:
        table = Table(
            box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0), show_header=self._has_header
        )
        for i, width in zip(columns, widths, strict=True):
            heading = self._headings[i]
            table.add_column(
                heading, width=width, overflow="fold", justify="right" if heading in self._numbers else "left"
            )
        for cells, style in self._rows:
            table.add_row(*(cells[i] for i in columns), style=style)
        return table

    def _records(self) -> RenderResult:
        for number, (cells, style) in enumerate(self._rows):
            if number and self._has_header:
                yield Text("")
            for heading, cell in zip(self._headings, cells, strict=True):
                if cell.plain.strip():
                    yield Text(f"{heading}: " if self._has_header and heading else "", style=style).append_text(cell)


def _widest(cell: Text) -> int:
    return max((Text(line).cell_len for line in cell.plain.splitlines()), default=0)
