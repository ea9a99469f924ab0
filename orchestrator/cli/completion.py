"""What the shell offers for names that only the store knows, and for fields. It never fails and starts no MLflow."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING

from orchestrator import settings as env
from orchestrator.ledger import sqlite_reader
from orchestrator.planning import request, setting_layers, typed
from schemas.categories import CATEGORIES
from schemas.errors import OrchError
from schemas.model_spec import TABLE
from schemas.sweep import AXIS_ALIASES

if TYPE_CHECKING:
    from orchestrator.ledger.base import LedgerReader
    from orchestrator.ledger.records import JobRecord

CATEGORY_WORDS = tuple(dict.fromkeys(word for c in CATEGORIES for word in (c.name, c.label, c.id)))
"""Words that name a category."""
BASH_FIELD = "COMP_FIELD"
"""Variable with the field whose value bash wants completed; see `join_assignments`."""
COMPLETE = "_ORCH_COMPLETE"
"""Variable that is set if a shell asks for completions."""
UNREADABLE = (OrchError, sqlite3.Error)

Offer = tuple[str, str]
"""A word, and what shells with room for it show beside it."""


def complete_sweep(incomplete: str) -> list[Offer]:
    """Sweeps of the store, newest first."""
    reader = _reader()
    try:
        return [(sweep.name, "") for sweep in reader.sweeps() if sweep.name.startswith(incomplete)] if reader else []
    except UNREADABLE:
        return []


def complete_job(incomplete: str) -> list[Offer]:
    """Keys of jobs; the title is shown beside them."""
    return [(record.key, record.title) for record in _jobs() if record.key.startswith(incomplete)]


def complete_target(incomplete: str) -> list[Offer]:
    """Sweeps, then jobs."""
    return [*complete_sweep(incomplete), *complete_job(incomplete)]


def complete_field(incomplete: str) -> list[str]:
    """Fields of a job, the last of several that are separated by commas."""
    return completer((*AXIS_ALIASES, *typed.SETTABLE))(incomplete)


def complete_assignment(incomplete: str) -> list[str]:
    """Fields of a job with the `=` that a value follows, and the values of a field that takes only some."""
    field, equals, value = incomplete.partition("=")
    if BASH_FIELD in os.environ:  # the word is only what follows the `=`
        return [word for word in _values(os.environ[BASH_FIELD]) if word.startswith(incomplete)]
    if equals:
        return [f"{field}={word}" for word in _values(field) if word.startswith(value)]
    fields = [name for name in (*AXIS_ALIASES, *typed.SETTABLE) if name.startswith(incomplete)]
    # A shell ends a word that it offers alone with a space, so the values of a single field are offered at once.
    values = _values(fields[0]) if len(fields) == 1 else ()
    return [f"{fields[0]}={word}" for word in values] or [f"{name}=" for name in fields]


def _values(name: str) -> tuple[str, ...]:
    field = setting_layers.field_of(name)
    named = {typed.CATEGORIES_FIELD: CATEGORY_WORDS, request.BACKBONE_FIELD: TABLE}
    return named.get(field) or typed.choices(field)


def answer_in_lines(environment: MutableMapping[str, str]) -> None:
    """Have typer write what it shows beside a word on one line: it wraps it to the width of the terminal otherwise.

    Args:
        environment: that of the process; unchanged if no shell asks for anything.
    """
    if COMPLETE in environment:
        environment["COLUMNS"] = "10000"


def join_assignments(environment: MutableMapping[str, str]) -> None:
    """Undo bash's cuts at `=` in the words that it wants completed.

    Bash makes `--set loss=soft` four words, and takes answers for the last one only. So the last word stays what it
    is, and its field is kept under `BASH_FIELD`.

    Args:
        environment: that of the process; unchanged if bash asks for nothing, or there is no `=`.
    """
    words = environment.get("COMP_WORDS", "").split("\n")[: int(environment.get("COMP_CWORD", 0)) + 1]
    joined: list[str] = []
    for word in words:
        goes_on = word == "=" or (joined and joined[-1].endswith("=") and not word.startswith("-"))
        if joined and goes_on and not joined[-1].startswith("-"):
            joined[-1] += word
        else:
            joined.append(word)
    if len(joined) == len(words):
        return
    field, equals, value = joined[-1].partition("=")
    if equals:
        environment[BASH_FIELD] = field
        joined[-1] = value
    environment["COMP_WORDS"] = "\n".join(joined)
    environment["COMP_CWORD"] = str(len(joined) - 1)


def completer(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Shell completion of one name, or of the last of several that are separated by commas."""
    known = tuple(names)

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in known if name.startswith(last)]

    return complete


complete_category = completer(CATEGORY_WORDS)


def _jobs() -> list[JobRecord]:
    reader = _reader()
    try:
        return list(reader.jobs().values()) if reader else []
    except UNREADABLE:
        return []


def _reader() -> LedgerReader | None:
    """The embedded store; None if there is none, or only MLflow can read it, which would take seconds."""
    try:
        return sqlite_reader.open_sqlite_reader(env.Settings())
    except OrchError:
        return None
