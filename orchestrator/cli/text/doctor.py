"""What `orch doctor` prints: a line per check for people, and the shapes of its `--json`.

orch doctor --json     DoctorJson
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.checkup.result import Checked, Level
from orchestrator.cli.console import JsonModel

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.BAD: "bold red"}
SUBJECT_WIDTH = 28
"""Columns of the subject, so that lines that are printed one by one stand below each other."""


def checked_line(one: Checked) -> RenderableType:
    """Return one result as a line; long texts fold below themselves."""
    line = Table.grid(padding=(0, 1))
    line.add_column(width=len(Level.WARNING.value))
    line.add_column(width=SUBJECT_WIDTH, overflow="fold")
    line.add_column(overflow="fold")
    line.add_row(Text(one.level.value, style=_STYLES[one.level]), Text(one.subject), Text(one.text))
    return line


class CheckedJson(JsonModel):
    """The result of one check."""

    subject: str
    level: Level
    text: str
    exit_code: int
    """Of a command that fails because of it; 0 unless the level is `bad`."""


class DoctorJson(JsonModel):
    """The answer of `orch doctor --json`."""

    is_well: bool
    checks: list[CheckedJson]

    @classmethod
    def of_results(cls, found: Sequence[Checked]) -> Self:
        """Convert the answer of the service."""
        is_well = all(one.level is not Level.BAD for one in found)
        return cls(is_well=is_well, checks=[CheckedJson.of(one) for one in found])
