"""What the shell offers for names that only the store knows, and for fields. It never fails and starts no MLflow."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from orchestrator.ledger import sqlite_reader
from orchestrator.planning import typed
from orchestrator.settings import Settings
from schemas.errors import OrchError
from schemas.sweep import AXIS_ALIASES

if TYPE_CHECKING:
    from orchestrator.ledger.base import LedgerReader
    from orchestrator.ledger.records import JobRecord

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
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in (*AXIS_ALIASES, *typed.SETTABLE) if name.startswith(last)]


def complete_assignment(incomplete: str) -> list[str]:
    """Fields of a job with the `=` that a value follows."""
    return [f"{name}=" for name in (*AXIS_ALIASES, *typed.SETTABLE) if name.startswith(incomplete)]


def _jobs() -> list[JobRecord]:
    reader = _reader()
    try:
        return list(reader.jobs().values()) if reader else []
    except UNREADABLE:
        return []


def _reader() -> LedgerReader | None:
    """The embedded store; None if there is none, or only MLflow can read it, which would take seconds."""
    try:
        return sqlite_reader.open_sqlite_reader(Settings())
    except OrchError:
        return None
