"""Finds orch's experiment in a store by its tag, whatever it is called, and says what is wrong if there is no one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from orchestrator.ledger.store_version import EXPERIMENT, LEDGER_TAG
from schemas.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

HOME_ID_TAG, FORMER_TAG = "orch.home_id", "orch.former_homes"
"""Tags of the experiment: the id of the home that the store belongs to, and the places where it was before."""


class NoExperiment(StoreError):
    """The store has no experiment of orch, so no sweep was begun in it. Exit code 4."""


@dataclass(frozen=True)
class Found:
    """An experiment that is, or may be, orch's."""

    experiment_id: str
    name: str
    is_deleted: bool
    location: str
    """Where MLflow keeps its artifacts, as recorded."""
    tags: Mapping[str, str]

    @property
    def home_id(self) -> str:
        """Id of the home that the store belongs to; empty if it has none yet."""
        return self.tags.get(HOME_ID_TAG, "")

    @property
    def home(self) -> Path | None:
        """The folder of the home as recorded; None for a store whose artifacts are elsewhere."""
        parts = urlsplit(self.location)
        path = Path(unquote(parts.path) if parts.scheme == "file" else self.location)
        return path.parent if path.is_absolute() and path.name == "artifacts" else None

    @property
    def former(self) -> tuple[str, ...]:
        """Folders where the home was before it was moved or copied."""
        try:
            return tuple(map(str, json.loads(self.tags.get(FORMER_TAG, "[]"))))
        except ValueError:
            return ()


def choose(found: Iterable[Found], where: str) -> Found:
    """Return orch's experiment.

    Args:
        found: The experiments of the store that have orch's tag or its first name, deleted ones included.
        where: The store, for messages, without a password.

    Raises:
        NoExperiment: There is none.
        StoreError: It was deleted, or there are several.
    """
    among = list(found)
    tagged = [one for one in among if LEDGER_TAG in one.tags]
    candidates = tagged or among
    active = [one for one in candidates if not one.is_deleted]
    if len(active) == 1:
        return active[0]
    if active:
        names = ", ".join(f"{one.name!r} (id {one.experiment_id})" for one in active)
        raise StoreError(
            f"The store {where} has {len(active)} experiments of orch: {names}. Keep the one that holds your sweeps, "
            "and delete the others: " + _command(where, "delete", "ID")
        )
    if candidates:
        newest = candidates[-1]
        raise StoreError(
            f"The experiment {newest.name!r} (id {newest.experiment_id}) of the store {where}, which holds all sweeps, "
            f"was deleted. Restore it with: {_command(where, 'restore', newest.experiment_id)}"
        )
    raise NoExperiment(f"The store {where} has no experiment of orch yet. Run a sweep first: orch sweep --grid first")


def _command(where: str, verb: str, experiment_id: str) -> str:
    return f"MLFLOW_TRACKING_URI={quote(where)} mlflow experiments {verb} --experiment-id {experiment_id}"


def candidates_in(client: MlflowClient) -> list[Found]:
    """Return the experiments of a store that have orch's tag or its first name, deleted ones included."""
    from mlflow.entities import ViewType

    conditions = (f"tags.`{LEDGER_TAG}` LIKE '%'", f"name = '{EXPERIMENT}'")
    found = {
        one.experiment_id: Found(
            str(one.experiment_id), one.name, one.lifecycle_stage == "deleted", one.artifact_location or "", one.tags
        )
        for condition in conditions
        for one in client.search_experiments(view_type=ViewType.ALL, filter_string=condition)
    }
    return sorted(found.values(), key=lambda one: int(one.experiment_id) if one.experiment_id.isdigit() else 0)


def candidates_of(connection: sqlite3.Connection) -> list[Found]:
    """Return the same as `candidates_in` from MLflow's database."""
    rows = connection.execute(
        "SELECT experiment_id, name, lifecycle_stage, artifact_location FROM experiments WHERE name = ? OR "
        "experiment_id IN (SELECT experiment_id FROM experiment_tags WHERE key = ?) ORDER BY experiment_id",
        (EXPERIMENT, LEDGER_TAG),
    ).fetchall()
    tags: dict[int, dict[str, str]] = {row[0]: {} for row in rows}
    for number, name, value in connection.execute("SELECT experiment_id, key, value FROM experiment_tags"):
        if number in tags:
            tags[number][name] = value
    return [Found(str(row[0]), row[1], row[2] == "deleted", row[3] or "", tags[row[0]]) for row in rows]


def recorded_in(connection: sqlite3.Connection) -> Found | None:
    """Return the experiment of a database that records where its home is; None if there is none, or no one."""
    try:
        return choose(candidates_of(connection), "")
    except StoreError:
        return None
