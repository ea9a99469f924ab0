"""How an answer reaches the terminal: text on a console for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich.console import Console, RenderableType
from rich.table import Table

LISTED = 12
"""Rows of a list that is shortened for people; JSON always has all of them."""

WIDE = 160
"""Columns of text that does not go to a terminal."""

UNBROKEN = ("key", "status")
"""Headings of columns that are never wrapped, because people copy from them or search in them."""


class JsonModel(BaseModel):
    """The shape of one answer of `--json`: its fields are the keys, in their order."""

    model_config = ConfigDict(from_attributes=True, frozen=True, defer_build=True)

    @classmethod
    def of(cls, answer: object) -> Self:
        """Take every field from the attribute of the same name."""
        return cls.model_validate(answer)


Answer = RenderableType | BaseModel | Sequence[BaseModel]
_JSON: TypeAdapter[Any] = TypeAdapter(Any)


def show(answer: Answer, again: bool = False) -> None:
    """Print text for people, or a model or a list of models as JSON.

    Args:
        answer: text to lay out on the console, or models to print as JSON.
        again: the answer is one of several. JSON then takes one line each, and text replaces the text before it.
    """
    if isinstance(answer, (BaseModel, list, tuple)):
        print(json.dumps(_JSON.dump_python(answer, mode="json"), indent=None if again else 2), flush=True)
        return
    console = _Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    if again:
        console.clear()
    console.print(answer)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Re-raise. Rich would end the process with its own exit code."""
        raise


def plain_table(*headings: str, title: str | None = None) -> Table:
    """A table without borders, whose columns fold rather than shorten their text."""
    table = Table(
        box=None, title=title, title_justify="left", header_style="bold", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading in UNBROKEN)
    return table
