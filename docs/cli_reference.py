"""Writes the reference at the end of docs/cli.md from the commands themselves: `python docs/cli_reference.py`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from orchestrator.cli.main import app

PAGE = Path(__file__).with_name("cli.md")
START = "<!-- From here on, `python docs/cli_reference.py` writes this page from the texts of `--help`. -->\n"
"""Last line of the page that is written by hand."""
COLUMNS = 100
PROGRAM = "Program"
"""Panel of the program's own options."""


def with_reference(page: str) -> str:
    """Return the page with its reference made anew.

    Args:
        page: text of docs/cli.md; what is above `START` is kept.
    """
    by_hand, start, _ = page.partition(START)
    return by_hand + start + "\n" + "\n".join(reference())


def reference() -> Iterator[str]:
    """Return the lines of the reference: an index, and a section for each command that `--help` shows."""
    commands = list(_commands(typer.main.get_command(app), "orch"))
    yield "## Reference\n"
    yield "[Exit codes](#exit-codes) are the same for every command, and every command takes `--help`.\n"
    panels = dict.fromkeys(panel for panel, _, _ in commands)
    for panel in panels:
        links = [f"[{name}](#{name.replace(' ', '-')})" for found, name, _ in commands if found == panel]
        yield f"* {panel}: " + ",\n  ".join(links)
    for _, name, command in commands:
        yield f"\n### {name}\n"
        yield from _section(command, name)


def _commands(command: Any, name: str, panel: str = PROGRAM) -> Iterator[tuple[str, str, Any]]:
    """Yield panel, full name and command, for a command and those below it."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None or name == "orch":
        yield panel, name, command
    for word, one in (subcommands or {}).items():
        if not one.hidden:
            yield from _commands(one, f"{name} {word}", panel if panel != PROGRAM else one.rich_help_panel)


def _section(command: Any, name: str) -> Iterator[str]:
    for paragraph in command.help.split("\n\n"):
        if paragraph.startswith("orch "):
            yield f"```bash\n{paragraph}\n```\n"
        else:
            yield _wrapped(paragraph) + "\n"
    context = command.context_class(command, info_name=name)
    rows = [_row(one, context) for one in command.get_params(context) if "--help" not in one.opts]
    if rows:
        yield "| option | meaning |\n|---|---|\n" + "\n".join(rows)


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, COLUMNS, break_long_words=False, break_on_hyphens=False)


def _row(parameter: Any, context: Any) -> str:
    """Return a row of the table for an argument or option, with what `--help` says about it."""
    written, meaning = parameter.get_help_record(context)
    if parameter.param_type_name == "argument":
        written = parameter.name.rstrip("_").upper()
    cells = (f"`{written}`", " ".join(meaning.split()))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text()))
