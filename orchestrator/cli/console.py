"""How an answer reaches the terminal: text on a console for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

Answer = RenderableType | dict[str, Any] | list[Any]

LISTED = 12

WIDE = 160

UNBROKEN = ("key", "status")
"""Headings of columns that people copy from, or look for words in."""


def show(answer: Answer, again: bool = False) -> None:
    """
    Args:
        again: it is one of several: JSON takes a line each, and text the place of the one before.
    """
    if isinstance(answer, (dict, list)):
        print(json.dumps(answer, indent=None if again else 2, default=str), flush=True)
        return
    console = _Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    if again:
        console.clear()
    console.print(answer)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process here, with a code of its own."""
        raise


def plain_table(*headings: str, title: str | None = None) -> Table:
    table = Table(
        box=None, title=title, title_justify="left", header_style="bold", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading in UNBROKEN)
    return table
