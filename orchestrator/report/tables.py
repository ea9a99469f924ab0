"""Renders rows of text cells as a plain, Markdown or LaTeX table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from textwrap import fill


class TableFormat(StrEnum):
    """Names of tabulate's formats."""

    PLAIN = "plain"
    MARKDOWN = "pipe"
    LATEX = "latex_booktabs"


def render_table(headings: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int, form: TableFormat) -> str:
    """Render a table: the first columns left-aligned, the others right-aligned.

    Args:
        headings: one per column.
        rows: cells as they are to appear; they are not parsed as numbers.
        text_columns: number of left-aligned columns.
        form: LaTeX needs the package booktabs, and its cells are escaped.

    Returns:
        The table without a final newline.
    """
    from tabulate import tabulate

    align = ["left"] * text_columns + ["right"] * (len(headings) - text_columns)
    if form is TableFormat.PLAIN:  # as a row: tabulate widens the columns of headings by two spaces
        return tabulate([headings, *rows], tablefmt=form.value, colalign=align, disable_numparse=True)
    return tabulate(rows, headings, tablefmt=form.value, colalign=align, disable_numparse=True)


def fitted_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    text_columns: int,
    width: int | None,
    optional: Sequence[str],
) -> str:
    """Render a plain table that fits a terminal, without breaking a cell.

    Args:
        headings: one per column; equal ones are left out together.
        rows: the cells.
        text_columns: number of left-aligned columns.
        width: columns of the terminal; None if any width will do.
        optional: headings to leave out where the table does not fit, the first ones first.

    Returns:
        The table; where even the narrowest is too wide, one line per cell and an empty line between rows.
    """
    if width is None:
        return render_table(headings, rows, text_columns, TableFormat.PLAIN)
    kept = list(range(len(headings)))
    for left_out in (*optional, None):
        table = render_table(
            [headings[i] for i in kept], [[row[i] for i in kept] for row in rows], text_columns, TableFormat.PLAIN
        )
        if max(map(len, table.splitlines())) <= width:
            return table
        kept = [i for i in kept if headings[i] != left_out]
    return "\n\n".join("\n".join(fill(field, width) for field in _fields(headings, row)) for row in rows)


def _fields(headings: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    """Yield `heading: cell` lines. A heading that repeats belongs to the column before it."""
    before = ""
    for heading, cell in zip(headings, row, strict=True):
        is_repeated = headings.count(heading) > 1
        yield f"{before} {heading}: {cell}" if is_repeated else f"{heading}: {cell}"
        before = before if is_repeated else heading


def escape_latex(text: str) -> str:
    """Escape the characters that are special in LaTeX, as tabulate does in cells."""
    from tabulate import LATEX_ESCAPE_RULES

    return "".join(LATEX_ESCAPE_RULES.get(letter, letter) for letter in text)
