"""Renders rows of text cells as a plain, Markdown or LaTeX table."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


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


def escape_latex(text: str) -> str:
    """Escape the characters that are special in LaTeX, as tabulate does in cells."""
    from tabulate import LATEX_ESCAPE_RULES

    return "".join(LATEX_ESCAPE_RULES.get(letter, letter) for letter in text)
