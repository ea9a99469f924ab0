"""Every message that docs/troubleshooting.md quotes is one that the code prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("orch", "schemas", "interp_model", "workers", "orchestrator")
QUOTED = re.findall(r"^```text\n(.*?)\n```$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE | re.DOTALL)
ANYTHING = "…"
"""Stands for what a message takes from the case, in the page and in `template_of`."""


@cache
def templates() -> tuple[str, ...]:
    """Return the texts of the code, with `ANYTHING` for what is filled in."""
    paths = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return tuple(text for path in paths for text in templates_of(path.read_text()))


def templates_of(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else ANYTHING for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_printed(message: str, texts: tuple[str, ...]) -> bool:
    """Return whether a text of the code reads so; `ANYTHING` at an end of the message stands for the rest."""
    return any(message.strip(ANYTHING + " ") in text for text in texts)


def test_the_page_quotes_twenty_messages() -> None:
    assert len(QUOTED) >= 20
    assert all(len(message.replace(ANYTHING, "").strip()) > 10 for message in QUOTED)


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_printed(message: str) -> None:
    assert is_printed(message, templates())


def test_a_message_that_was_reworded_is_noticed() -> None:
    texts = tuple(templates_of('raise E(f"No grid is called {name!r}. Try " f"{other}.")'))
    assert is_printed("No grid is called …. Try ….", texts)
    assert not is_printed("No grid has the name …. Try ….", texts)
