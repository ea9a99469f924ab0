"""Whether a store has the versions that this orch can use: MLflow's database schema, and the meaning of the tags."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from orchestrator.settings import sqlite_uri
from schemas.errors import StoreError

EXPERIMENT = "orch"
"""Name of the experiment when it is created; people may rename it."""
LEDGER_TAG, LEDGER_VERSION = "orch.ledger_version", "2"
"""A tag of the experiment, and its current value, which is raised when the meaning of the runs' tags changes."""


class Schemas(NamedTuple):
    """The database schemas of the installed MLflow, by alembic revision."""

    known: frozenset[str]
    """All revisions."""
    newest: str
    """The one that it reads and writes."""


def check_database(database: Path, connection: sqlite3.Connection) -> bool:
    """Check a database file. An empty one passes: MLflow fills it later.

    Args:
        database: Path of the file, for messages.
        connection: A connection to it.

    Returns:
        False if the database is empty.

    Raises:
        StoreError: The database is not MLflow's, has another schema, or its runs have tags of another version.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return False
    if "alembic_version" not in tables:
        raise StoreError(f"{database} is a database, but not MLflow's. Move it away, or set ORCH_HOME.")
    found = [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")]
    if not found:
        raise StoreError(
            f"The store {database} is damaged: it has no schema revision. Restore it from a copy, or "
            "set ORCH_HOME to another store."
        )
    check_schema(database, found[0], installed_schemas())
    if "experiment_tags" in tables:
        tags = connection.execute("SELECT key, value FROM experiment_tags WHERE key = ?", (LEDGER_TAG,))
        of_orch = dict(tags.fetchall())
        if of_orch or connection.execute("SELECT 1 FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone():
            check_ledger_version(of_orch, str(database))
    return True


def check_schema(database: Path, found: str, schemas: Schemas) -> None:
    """Check the schema of a database.

    Args:
        database: Path of the file, for messages.
        found: Its schema.
        schemas: Those of the installed MLflow.

    Raises:
        StoreError: The installed MLflow would have to migrate the database, or cannot read it.
    """
    if found == schemas.newest:
        return
    if found in schemas.known:
        raise StoreError(
            f"The store {database} was created by an older MLflow (schema {found}; MLflow {version('mlflow')} has "
            f"{schemas.newest}). Copy the file, then migrate it with: mlflow db upgrade {quote(sqlite_uri(database))}"
        )
    raise StoreError(
        f"The store {database} has schema {found}, which MLflow {version('mlflow')} does not know. It was probably "
        "created by a newer MLflow. Install a newer MLflow, or set ORCH_HOME to another store."
    )


def check_ledger_version(tags: Mapping[str, str], where: str) -> None:
    """Check the version of the runs' tags.

    Args:
        tags: The tags of the experiment that holds the runs.
        where: The store, for messages.

    Raises:
        StoreError: Another version of orch wrote them.
    """
    found = tags.get(LEDGER_TAG, "unknown")
    if found != LEDGER_VERSION:
        raise StoreError(
            f"The store {where} holds sweeps of version {found}; this orch reads version {LEDGER_VERSION}. "
            "Use the orch that wrote them, or set ORCH_HOME to another store."
        )


@cache
def installed_schemas() -> Schemas:
    """Read the schemas from MLflow's migration files, because importing MLflow takes seconds."""
    package = find_spec("mlflow")
    assert package is not None
    assert package.origin is not None
    texts = [path.read_text() for path in (Path(package.origin).parent / "store/db_migrations/versions").glob("*.py")]
    known = frozenset(number for text in texts for number in re.findall(r'^revision = "(\w+)"', text, re.MULTILINE))
    lines = (line for text in texts for line in re.findall(r"^down_revision = (.*)", text, re.MULTILINE))
    earlier = {number for line in lines for number in re.findall(r'"(\w+)"', line)}
    (newest,) = known - earlier
    return Schemas(known, newest)
