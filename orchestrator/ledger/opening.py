"""Which ledger a command reads: MLflow, the embedded database itself, or an empty one."""

from __future__ import annotations

from orchestrator.ledger import store
from orchestrator.ledger.base import Ledger, LedgerReader
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.sqlite_reader import glance
from orchestrator.settings import Settings


def open_ledger(settings: Settings) -> Ledger:
    """The ledger to read: an empty one where there is no store yet, so that reading makes none."""
    if not store.exists(settings):
        return InMemoryLedger()
    from orchestrator.ledger.mlflow_ledger import MlflowLedger

    return MlflowLedger(store.open_client(settings), settings.store_uri)


def open_reader(settings: Settings) -> LedgerReader:
    """The ledger of those who only look: of the embedded store without MLflow, which takes seconds to load."""
    return glance(settings) or open_ledger(settings)
