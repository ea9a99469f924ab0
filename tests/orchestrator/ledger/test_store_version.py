"""A store of another version is refused, with what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.ledger import opening
from orchestrator.ledger import store as store_module
from orchestrator.ledger.store_version import (
    LEDGER_TAG,
    LEDGER_VERSION,
    check_database,
    check_ledger_version,
    check_schema,
    installed_schemas,
)
from orchestrator.services import sweeps
from orchestrator.settings import Settings
from schemas.errors import StoreError

if TYPE_CHECKING:
    from tests.conftest import Store


def test_the_schemas_are_those_of_the_installed_mlflow(store: Store) -> None:
    with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    assert installed_schemas().newest == found
    check_schema(Path("mlflow.db"), found, installed_schemas())


def test_an_older_schema_comes_with_the_command_that_migrates_it() -> None:
    schemas = installed_schemas()
    older = min(schemas.known - {schemas.newest})
    with pytest.raises(StoreError, match=rf"older MLflow \(schema {older};.*mlflow db upgrade sqlite:////h/mlflow.db"):
        check_schema(Path("/h/mlflow.db"), older, schemas)


def test_a_newer_schema_asks_for_a_newer_mlflow() -> None:
    with pytest.raises(StoreError, match=r"schema 0f0f, which MLflow \S+ does not know.*Install a newer MLflow"):
        check_schema(Path("/h/mlflow.db"), "0f0f", installed_schemas())


def test_a_store_that_does_not_say_its_schema_is_damaged_and_not_of_another_version() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        with pytest.raises(StoreError, match=r"is damaged: it has no schema revision\. Restore"):
            check_database(Path("/h/mlflow.db"), connection)


@pytest.mark.parametrize(("tags", "found"), [({LEDGER_TAG: "9"}, "9"), ({LEDGER_TAG: "1"}, "1"), ({}, "unknown")])
def test_sweeps_of_another_version_are_refused(tags: dict[str, str], found: str) -> None:
    check_ledger_version({LEDGER_TAG: LEDGER_VERSION}, "here")
    with pytest.raises(StoreError, match=f"here holds sweeps of version {found}; this orch reads version 2"):
        check_ledger_version(tags, "here")


@pytest.fixture(scope="module")
def made(new_home: Callable[[], Settings]) -> Settings:
    return new_home()


def change(settings: Settings, sql: str, *values: str) -> None:
    assert settings.database is not None
    with closing(sqlite3.connect(settings.database)) as connection:
        connection.execute(sql, values)
        connection.commit()


def test_every_way_into_the_store_looks_at_its_schema_first(made: Settings) -> None:
    sweeps.list_sweeps(made)
    set_schema = "UPDATE alembic_version SET version_num = ?"
    change(made, set_schema, "0f0f")
    for way_in in (store_module.open_client, sweeps.list_sweeps, opening.open_ledger):
        with pytest.raises(StoreError, match="schema 0f0f"):
            way_in(made)
    change(made, set_schema, installed_schemas().newest)
    sweeps.list_sweeps(made)


def test_every_way_into_the_store_looks_at_the_version_of_its_sweeps(made: Settings) -> None:
    set_version = "UPDATE experiment_tags SET value = ? WHERE key = 'orch.ledger_version'"
    change(made, set_version, "3")
    for way_in in (store_module.open_client, sweeps.list_sweeps, opening.open_ledger):
        with pytest.raises(StoreError, match="sweeps of version 3"):
            way_in(made)
    change(made, set_version, LEDGER_VERSION)
    sweeps.list_sweeps(made)


def test_a_store_behind_a_server_is_asked_too(store: Store) -> None:
    settings = Settings.model_validate({"tracking_uri": store.uri})
    client = store_module.open_client(settings)
    experiment = client.get_experiment_by_name(store_module.EXPERIMENT)
    assert experiment is not None
    client.set_experiment_tag(experiment.experiment_id, LEDGER_TAG, "3")
    try:
        with pytest.raises(StoreError, match="sweeps of version 3"):
            store_module.open_client(settings)
    finally:
        client.set_experiment_tag(experiment.experiment_id, LEDGER_TAG, LEDGER_VERSION)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("CREATE TABLE recipes (name)")
        connection.commit()
    with pytest.raises(StoreError, match="is a database, but not MLflow's"):
        store_module.open_client(Settings.model_validate({"home": tmp_path}))
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]
