"""Opens the file of the embedded store so that reading it writes nothing, and indexes it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

BUSY_SECONDS = 10.0
"""SQLite timeout: how long another program may lock the database."""


@contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for one reading transaction that leaves every file as it is, also where none can be written."""
    uri = f"{database.as_uri()}?{_mode(database)}"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        yield connection


def _mode(database: Path) -> str:
    """In WAL mode SQLite needs two files beside the database, and only a connection that may write deletes its own."""
    log = database.with_name(f"{database.name}-wal")
    if not os.access(database.parent, os.W_OK):
        return "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    return "mode=ro" if log.exists() else "mode=rw"


def index_tags(database: Path, indexes: Mapping[str, str]) -> None:
    """Index the table of the tags of MLflow's runs.

    If another program locks the database, whoever opens it next tries again.

    Args:
        database: The file.
        indexes: Columns and condition of each index by its name.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection:
        for name, what in indexes.items():
            connection.execute(f"CREATE INDEX IF NOT EXISTS {name} ON tags {what}")
