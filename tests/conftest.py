"""What every test shares: one thread, no telemetry, and one MLflow store for the whole session."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

# Before torch, ray and mlflow are imported anywhere.
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
)

import pytest

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tests.support.object_store import ObjectStore


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, but not those that MLflow causes in SQLAlchemy."""
    config.addinivalue_line("filterwarnings", "ignore:The ``noload`` loader strategy:DeprecationWarning")


SESSION = pytest.StashKey[pytest.Session]()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[SESSION] = session


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End with the status that the tests have earned, before Python takes itself apart.

    Threads of Ray's library outlive `ray.shutdown()`, and have ended the process with a segmentation fault after
    every test had passed and all was said.
    """
    if "ray" in sys.modules and SESSION in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(config.stash[SESSION].exitstatus))


class Store(NamedTuple):
    """A real MLflow store on sqlite, with one experiment."""

    uri: str
    experiment_id: str

    @property
    def client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(self.uri)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Creating one takes seconds, so tests share it and each makes runs of its own."""
    from mlflow import MlflowClient

    from orchestrator.ledger.store_version import LEDGER_TAG, LEDGER_VERSION
    from orchestrator.settings import sqlite_uri

    folder: Path = tmp_path_factory.mktemp("mlflow")
    uri = sqlite_uri(folder / "mlflow.db")
    experiment_id = MlflowClient(uri).create_experiment("tests", artifact_location=str(folder / "artifacts"))
    MlflowClient(uri).create_experiment("orch", str(folder / "orch"), tags={LEDGER_TAG: LEDGER_VERSION})
    with sqlite3.connect(folder / "mlflow.db") as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    return Store(uri, experiment_id)


@pytest.fixture
def new_run(store: Store) -> Callable[[], str]:
    """Makes an empty run in the shared store and gives its id."""
    return lambda: store.client.create_run(store.experiment_id).info.run_id


@pytest.fixture
def object_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An S3-compatible object store, which the environment names."""
    from tests.support.object_store import ObjectStore

    made = ObjectStore()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.stop()
