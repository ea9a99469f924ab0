"""Which ledger a command opens: MLflow, the embedded database without MLflow, or an empty one."""

from __future__ import annotations

from orchestrator.ledger import store
from orchestrator.ledger.base import Ledger, LedgerReader
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.sqlite_reader import open_sqlite_reader
from orchestrator.settings import Settings


def open_ledger(settings: Settings) -> Ledger:
    """Open the ledger, or an empty one in memory if there is no store yet, so that reading creates none.

    Raises:
        StoreError: The store cannot be reached or read, or is of another version.
    """
    if not store.exists(settings):
        return InMemoryLedger()
    from orchestrator.ledger.mlflow_ledger import MlflowLedger

    return MlflowLedger(store.open_client(settings), settings.store_uri)


def open_reader(settings: Settings) -> LedgerReader:
    """Open the ledger for reading only: the embedded store without importing MLflow, which takes seconds.

    Raises:
        StoreError: The store cannot be reached or read, or is of another version.
    """
    return open_sqlite_reader(settings) or open_ledger(settings)
