"""How an answer reaches the terminal: text on a console for people, JSON for programs."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich.console import Console, RenderableType
from rich.live import Live

from orchestrator.cli import streams

LISTED = 12
"""Rows of a list that is shortened for people; JSON always has all of them."""

WIDE = 160
"""Columns of text that does not go to a terminal. The environment variable COLUMNS overrides it."""

ENDLESS = 1_000_000
"""Lines of a page that ends nowhere."""

NARROWEST = 20
"""Smallest number of columns that text is laid out for."""


class JsonModel(BaseModel):
    """The shape of one answer of `--json`: its fields are the keys, in their order."""

    model_config = ConfigDict(from_attributes=True, frozen=True, defer_build=True)

    @classmethod
    def of(cls, answer: object) -> Self:
        """Take every field from the attribute of the same name."""
        return cls.model_validate(answer)


class ErrorFacts(JsonModel):
    """What ended a command."""

    kind: str
    """Class of the error, such as `SpecError`."""
    message: str
    exit_code: int


class ErrorJson(JsonModel):
    """What a command with `--json` prints if an error ends it before it has an answer."""

    error: ErrorFacts


Answer = RenderableType | BaseModel | Sequence[BaseModel] | dict[str, Any]
_JSON: TypeAdapter[Any] = TypeAdapter(Any)
_has_document = False
"""Whether this command has printed a whole JSON document, after which a second one would spoil the first."""


def begin() -> None:
    """Forget what an earlier command of this process has printed."""
    global _has_document
    _has_document = False


def show(answer: Answer, again: bool = False) -> None:
    """Print text for people, or a model, a list of models or a dictionary as JSON.

    Args:
        answer: text to lay out on the console, or what to print as JSON.
        again: the answer is one of several. JSON then takes one line each, and text replaces the text before it.
    """
    global _has_document
    if isinstance(answer, (BaseModel, list, tuple, dict)):
        _has_document = not again
        print(json.dumps(_finite(_JSON.dump_python(answer, mode="json")), indent=None if again else 2), flush=True)
        return
    console = Console(width=width(), highlight=False, markup=False, emoji=False)
    if again:
        console.clear()
    console.print(answer)


def show_error(error: ErrorJson) -> None:
    """Print an error as one line of JSON, unless the command has printed its answer already."""
    if not _has_document:
        print(json.dumps(error.model_dump(mode="json")), flush=True)


def show_plain(text: str) -> None:
    """Print text that is laid out already, such as a log or a report in a file format."""
    print(text, end="", flush=True)


def width() -> int:
    """Columns that text may take: those of COLUMNS or of the terminal, else `WIDE`."""
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given) > 0:
        return max(NARROWEST, int(given))
    return max(NARROWEST, Console().width) if sys.stdout.isatty() else WIDE


def is_read() -> bool:
    """Whether what is printed can still reach a reader; an open-ended command then goes on."""
    return streams.failure("stdout") is None


class Picture:
    """Text that is redrawn in place on a terminal; elsewhere lines, each printed only if it says something new."""

    def __init__(self, once: bool) -> None:
        """
        Args:
            once: print a single picture, as wide as `width()` says, also where there is no terminal.
        """
        self._console = Console(highlight=False, markup=False, emoji=False, width=width() if once else None)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._once, self._said = once, ""

    def __enter__(self) -> Self:
        if self.is_drawn and not self._once:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    @property
    def is_drawn(self) -> bool:
        """Whether there is a place to draw."""
        return self._once or (self._console.is_terminal and not self._console.is_dumb_terminal)

    @property
    def is_seen(self) -> bool:
        """Whether what is printed can still reach a reader."""
        return is_read()

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._console.width

    @property
    def height(self) -> int:
        """Most lines of the picture; those of a file have no limit."""
        return self._console.height - 1 if self._console.is_terminal else ENDLESS

    def draw(self, picture: RenderableType) -> None:
        """Show a picture in place of the one before."""
        if self._once:
            self._console.print(picture)
        else:
            self._live.update(picture, refresh=True)

    def log(self, line: str) -> None:
        """Print a line, unless it repeats the one before but for its time."""
        said = line.partition(": ")[2]
        if said != self._said:
            self._said = said
            print(line, flush=True)


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON cannot express: infinities and not-a-number."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
