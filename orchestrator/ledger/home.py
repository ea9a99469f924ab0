"""Recognises ORCH_HOME by its id, wherever it was moved or copied to, and finds the paths below it that were recorded.

MLflow records absolute paths, and so do results and plans. A home is identified by an id, which its store (as a tag of
the experiment) and its folder (in a small file) share. Readers map recorded paths below a former place of the home to
its present one and write nothing. The first command that drives or repairs settles a home: it gives it an id, and
rewrites what MLflow has recorded, so that MLflow's own UI finds the files too.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from pydantic import ValidationError

from orchestrator.ledger.database import BUSY_SECONDS, reading
from orchestrator.ledger.experiment import FORMER_TAG, HOME_ID_TAG, Found, recorded_in
from orchestrator.ledger.lease import Lease, pid_exists
from orchestrator.ledger.lease import here as this_host
from orchestrator.settings import HOME_FOLDERS, Settings
from schemas.errors import StoreError
from workers.files import write_atomically

HOME_FILE = "home.json"
"""File of ORCH_HOME that holds its id."""
MARKER = ".orch-home"
"""File of the folders that `orch gc` cleans; it holds the id of the home that they belong to."""
_URIS = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("model_versions", "source"), ("model_versions", "storage_location"),
)  # fmt: skip
"""Columns in which MLflow keeps URIs of artifacts."""


@dataclass(frozen=True)
class Relocation:
    """Finds recorded paths below the former places of a home at its present one."""

    root: Path
    """The present place."""
    former: tuple[Path, ...] = ()
    """The former places, the latest one last."""

    def path(self, text: str) -> str:
        """Return where a recorded path lies now. A text that is no path below a former place is returned unchanged."""
        if not text.startswith("/") or self._below(text, self.root):
            return text
        for place in reversed(self.former):
            if below := self._below(text, place):
                return str(self.root / below)
        return text

    def uri(self, text: str) -> str:
        """Return where the artifacts of a recorded URI, or path, lie now."""
        parts = urlsplit(text)
        if parts.scheme != "file" or parts.netloc:
            return self.path(text)
        recorded = unquote(parts.path)
        now = self.path(recorded)
        return text if now == recorded else Path(now).as_uri()

    def json(self, text: str) -> str:
        """Return a JSON document with every recorded path in it replaced by `path`."""
        return json.dumps(self.fields(json.loads(text))) if self.former else text

    def fields(self, value: Any) -> Any:
        """Return a value of nested dictionaries and lists with every recorded path in it replaced by `path`."""
        if isinstance(value, str):
            return self.path(value)
        if isinstance(value, dict):
            return {name: self.fields(one) for name, one in value.items()}
        return [self.fields(one) for one in value] if isinstance(value, (list, tuple)) else value

    @staticmethod
    def _below(text: str, place: Path) -> Path | None:
        """The part of a path below a home; None if it is not in one of a home's folders."""
        path = Path(text)
        below = path.relative_to(place) if path.is_relative_to(place) else None
        return below if below is not None and below.parts[:1] and below.parts[0] in HOME_FOLDERS else None


UNMOVED = Relocation(Path("/"))
"""Of a store whose paths are used as they were recorded, such as one behind a server."""


def relocation_of(settings: Settings) -> Relocation:
    """Return how recorded paths of the store are found. Nothing is written.

    Raises:
        StoreError: The database belongs to another home.
    """
    database = settings.database
    if database is None or not database.is_file():
        return UNMOVED
    try:
        with reading(database) as connection:
            found = recorded_in(connection)
    except sqlite3.Error:  # whoever opens the store says what is wrong with it
        return UNMOVED
    return _relocation(settings.root, found) if found is not None else UNMOVED


def _relocation(root: Path, found: Found) -> Relocation:
    _check_id(root, found)
    places = [*map(Path, found.former), *([found.home] if found.home else [])]
    former = [place for place in dict.fromkeys(places) if place != root]
    return Relocation(root, tuple(former))


def _check_id(root: Path, found: Found) -> None:
    """Refuse a database that was put into the folder of another home."""
    file = _read_id(root)
    if found.home_id and file and found.home_id not in (file.get("id"), file.get("copy_of")):
        raise StoreError(
            f"The database in {root} belongs to another home (id {found.home_id[:8]}, recorded at {found.home}) than "
            f"the folder (id {str(file.get('id'))[:8]} in {HOME_FILE}). Put each database back into its own home, or "
            "set ORCH_HOME to the whole folder of that home."
        )


def _read_id(root: Path) -> dict[str, str] | None:
    path = root / HOME_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}). Restore it, or delete it if this home has one.") from error
    if not isinstance(content, dict) or not isinstance(content.get("id"), str):
        raise StoreError(f"{path} holds no id of a home. Restore it, or delete it.")
    return content


def check_folders(settings: Settings) -> None:
    """Check that checkpoints and logs below ORCH_HOME are its own.

    Raises:
        StoreError: A folder belongs to another home.
    """
    own = _read_id(settings.root) or {}
    for folder in (settings.checkpoint_dir, settings.log_dir):
        marker = folder / MARKER
        try:
            found = marker.read_text(encoding="utf-8").strip() if marker.is_file() else ""
        except (OSError, ValueError) as error:
            raise StoreError(f"{marker} cannot be read ({error}). Correct its permissions, or delete it.") from error
        if found and own and found not in (own.get("id"), own.get("copy_of")):
            raise _foreign_folder(folder, f"id {found[:8]}")


def _foreign_folder(folder: Path, whose: str) -> StoreError:
    return StoreError(
        f"The folder {folder} ({folder.resolve()}) belongs to another home ({whose}), so nothing in it is changed. "
        "Give this home a folder of its own."
    )


def settle(settings: Settings) -> None:
    """Give a home its id, and rewrite what MLflow has recorded about a home that was moved or copied.

    Called before a command drives or repairs; repeated calls change nothing.

    Raises:
        StoreError: The database or a folder belongs to another home, or they cannot be written.
    """
    check_folders(settings)
    database, root = settings.database, settings.root
    try:
        if database is None or not database.is_file():
            own = _read_id(root) or {"id": uuid4().hex}
        else:
            with closing(sqlite3.connect(database, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                own = _settle_store(settings, connection)
                connection.execute("COMMIT")
        _write_ids(settings, own)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"The home {root} cannot be written ({error}). Repair its permissions, make room on the disk, or stop the "
            "program that locks the store."
        ) from error


def _settle_store(settings: Settings, connection: sqlite3.Connection) -> dict[str, str]:
    """Rewrite what the database has recorded, and return the id of the home."""
    root, found = settings.root, recorded_in(connection)
    file = _read_id(root)
    if found is None:
        return file or {"id": uuid4().hex}
    here = _relocation(root, found)
    own = file or {"id": found.home_id or uuid4().hex}
    if own["id"] == found.home_id and found.home and _is_copy(found.home, root, own["id"]):
        for folder in (settings.checkpoint_dir, settings.log_dir):
            if not folder.resolve().is_relative_to(root):
                raise _foreign_folder(folder, f"{found.home}, of which {root} is a copy")
        own = {"id": uuid4().hex, "copy_of": found.home_id}
        write_atomically(root / HOME_FILE, json.dumps(own))  # before the store's: a crash in between is made good
    elif found.home and found.home != root:
        _refuse_while_driven(connection, found.home)
    _rewrite(connection, here)
    _set_tag(connection, found.experiment_id, HOME_ID_TAG, own["id"])
    if here.former:
        _set_tag(connection, found.experiment_id, FORMER_TAG, json.dumps(list(map(str, here.former))))
    return own


def _refuse_while_driven(connection: sqlite3.Connection, recorded: Path) -> None:
    """Check that no live driver uses the home under its recorded path, such as outside of a container.

    Raises:
        StoreError: One does.
    """
    for (text,) in connection.execute("SELECT value FROM tags WHERE key = 'orch.lease' AND value <> ''"):
        try:
            lease = Lease.model_validate_json(text)
        except ValidationError:
            continue
        if lease.is_alive(time.time(), this_host(), pid_exists):
            raise StoreError(
                f"A driver (process {lease.pid} on {lease.host}) uses this home as {recorded}. "
                "Wait until it has ended, or run `orch pause`, then try again."
            )


def _is_copy(recorded: Path, root: Path, home_id: str) -> bool:
    """Whether the home still is where it was recorded, so that the one at `root` is a copy."""
    try:
        if recorded == root or not recorded.is_dir() or recorded.samefile(root):
            return False
        there = _read_id(recorded)
    except (OSError, StoreError):  # It may be there, but cannot be seen. A new id is safe for a moved home too.
        return True
    return there is not None and there["id"] == home_id


def _rewrite(connection: sqlite3.Connection, here: Relocation) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, column in _URIS:
        if not here.former or table not in tables:
            continue
        rows = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
        changed = [(now, row) for row, uri in rows if (now := here.uri(uri)) != uri]
        connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changed)


def _set_tag(connection: sqlite3.Connection, experiment_id: str, name: str, value: str) -> None:
    connection.execute(
        "INSERT INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?) "
        "ON CONFLICT (key, experiment_id) DO UPDATE SET value = excluded.value WHERE value <> excluded.value",
        (name, value, experiment_id),
    )


def _write_ids(settings: Settings, own: dict[str, str]) -> None:
    for folder in (settings.checkpoint_dir, settings.log_dir):
        marker = folder / MARKER
        if not marker.is_file() or marker.read_text(encoding="utf-8").strip() != own["id"]:
            write_atomically(marker, own["id"])
    # Last, because it forgets `copy_of`, by which the markers of the original are accepted.
    if _read_id(settings.root) != {"id": own["id"]}:
        write_atomically(settings.root / HOME_FILE, json.dumps({"id": own["id"]}))
