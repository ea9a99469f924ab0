"""Which ledger a command opens: MLflow, the embedded database without MLflow, or an empty one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.ledger import store
from orchestrator.ledger.base import Ledger, LedgerReader
from orchestrator.ledger.experiment import NoExperiment
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.sqlite_reader import open_sqlite_reader
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.ledger.home_client import HomeClient
    from orchestrator.ledger.mlflow_ledger import MlflowLedger


def open_ledger(settings: Settings) -> Ledger:
    """Open the ledger, or an empty one in memory if there is no store yet, so that reading creates none.

    Raises:
        StoreError: The store cannot be reached or read, or is of another version.
    """
    try:
        return open_existing(settings)
    except NoExperiment:
        return InMemoryLedger()


def open_existing(settings: Settings) -> Ledger:
    """Open the ledger of a store that holds sweeps, for commands that decide by it what to delete or repair.

    Raises:
        NoExperiment: There is no store, or no sweep was begun in it.
        StoreError: The store cannot be reached or read, or is of another version.
    """
    if settings.database is not None and not settings.database.exists():  # without importing MLflow
        raise NoExperiment(f"There is no store at {settings.database} yet. To create one, run: orch sweep --grid first")
    return _ledger_of(store.open_client(settings), settings)


def open_or_create(settings: Settings) -> MlflowLedger:
    """Open the ledger for commands that begin or drive a sweep: what does not exist is created first.

    Raises:
        StoreError: The store cannot be reached, read or written, is of another version or belongs to another home.
    """
    return _ledger_of(store.make_client(settings), settings)


def _ledger_of(client: HomeClient, settings: Settings) -> MlflowLedger:
    from orchestrator.ledger.mlflow_ledger import MlflowLedger

    return MlflowLedger(client, settings.store_uri, here=client.here)


def open_reader(settings: Settings) -> LedgerReader:
    """Open the ledger for reading only: the embedded store without importing MLflow, which takes seconds.

    Raises:
        StoreError: The store cannot be reached or read, or is of another version.
    """
    try:
        return open_sqlite_reader(settings) or open_ledger(settings)
    except NoExperiment:
        return InMemoryLedger()
