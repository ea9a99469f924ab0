"""MLflow's sessions cost fewer statements, and its connections have the options that MLflow wants."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.store.db import utils
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from workers.tracking.sessions import OPTIONS, set_options_once


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, whose creation takes seconds."""
    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    store_of(MlflowClient(f"sqlite:///{path}")).engine.dispose()
    return path


@pytest.fixture
def client(made: Path, tmp_path: Path) -> MlflowClient:
    """A client of a store that nothing else in this process uses."""
    return MlflowClient(f"sqlite:///{shutil.copy(made, tmp_path)}")


def statements_of_a_request(client: MlflowClient) -> list[str]:
    engine, seen = store_of(client).engine, []

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    run = client.create_run("0", tags={"a": "b"})
    client.log_metric(run.info.run_id, "m", 1.0)
    event.remove(engine, "before_cursor_execute", note)
    assert client.get_run(run.info.run_id).data.metrics == {"m": 1.0}
    return seen


def store_of(client: MlflowClient) -> Any:
    return client._tracking_client.store


def test_no_session_sets_an_option_again(client: MlflowClient) -> None:
    before = statements_of_a_request(client)
    set_options_once(client)
    after = statements_of_a_request(client)
    assert {line.removeprefix("PRAGMA ").rstrip(";") for line in before if "PRAGMA" in line} == set(OPTIONS)
    assert after == [line for line in before if "PRAGMA" not in line]


def test_every_connection_has_the_options(client: MlflowClient) -> None:
    with store_of(client).engine.connect():  # one that the pool keeps from before
        set_options_once(client)
    with store_of(client).engine.connect() as one, store_of(client).engine.connect() as other:
        for connection in (one, other):
            assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
            assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 20000
            assert connection.execute(text("SELECT 'a' LIKE 'A'")).scalar() == 0
    with store_of(client).engine.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(text("INSERT INTO tags (key, value, run_uuid) VALUES ('a', 'b', 'no run')"))


@pytest.mark.parametrize(
    ("journal", "flush", "synchronous"), [("wal", True, 2), ("wal", False, 1), ("delete", False, 2)]
)
def test_only_a_worker_and_only_in_wal_mode_leaves_commits_unflushed(
    client: MlflowClient, journal: str, flush: bool, synchronous: int
) -> None:
    with store_of(client).engine.connect() as connection:
        connection.execute(text(f"PRAGMA journal_mode = {journal}"))
    set_options_once(client, flush=flush)
    with store_of(client).engine.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == synchronous
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_a_worker_in_the_process_of_a_driver_flushes_like_the_driver(client: MlflowClient) -> None:
    for flush in (True, False):
        set_options_once(client, flush=flush)
    with store_of(client).engine.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2


def test_a_second_call_changes_nothing(client: MlflowClient) -> None:
    set_options_once(client)
    sessions = store_of(client).ManagedSessionMaker
    set_options_once(MlflowClient(client.tracking_uri))
    assert store_of(client).ManagedSessionMaker is sessions


def test_another_mlflow_is_left_as_it_is(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(utils, "_get_managed_session_maker")
    set_options_once(client)
    assert any("PRAGMA" in line for line in statements_of_a_request(client))


def test_a_server_is_left_as_it_is() -> None:
    client = MlflowClient("http://127.0.0.1:9")
    set_options_once(client)
    assert not hasattr(store_of(client), "ManagedSessionMaker")
