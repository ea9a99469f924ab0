"""Does side by side what takes long when a driver starts: Ray and its workers start while MLflow is imported."""

from __future__ import annotations

import importlib
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

from orchestrator.execution.in_time import Background
from orchestrator.execution.ray_session import ray_errors_named
from orchestrator.ledger import store
from orchestrator.ledger.base import LedgerReader
from orchestrator.ledger.liveness import Liveness
from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.diff import PlanStatus, statuses
from orchestrator.settings import Settings
from schemas.errors import ResourceError

if TYPE_CHECKING:
    from orchestrator.execution.open_pool import OpenPool
    from orchestrator.execution.pool import WorkerPool
    from orchestrator.execution.selection import Which

_MLFLOW = ("mlflow", "mlflow.store.tracking.sqlalchemy_store")
"""What a client of the embedded store imports."""


class Outlook(NamedTuple):
    """What is known of a sweep before its store is opened for writing, which takes seconds."""

    left: int = 0
    """Number of jobs that will run, if workers may start now; 0 if that is not known yet."""
    has_ended_badly: bool = True
    """Whether jobs may have failed or been cancelled, so that some may have to be requeued."""


def outlook(settings: Settings, ledger: LedgerReader, stored: StoredPlan, again: Which) -> Outlook:
    """Look at a sweep as far as that is quick: in the embedded store, for workers of a private Ray.

    Args:
        settings: Names the store and the Ray.
        ledger: Reads the store.
        stored: The sweep.
        again: Its ended jobs that are requeued.
    """
    if settings.database is None or settings.ray_address != "local":
        return Outlook()
    alive = Liveness(ledger)
    found = Counter(statuses(stored.all_names, ledger.standings(), alive).values())
    is_open = alive(stored.name) or found[PlanStatus.CANCELLED] or (again.failed and found[PlanStatus.FAILED])
    ended = found[PlanStatus.DONE] + found[PlanStatus.FAILED] + found[PlanStatus.BLOCKED]
    return Outlook(
        left=0 if is_open else found.total() - ended,
        has_ended_badly=bool(found[PlanStatus.CANCELLED] or found[PlanStatus.FAILED]),
    )


class EarlyPool:
    """Opens a pool, before the driver asks for it if `begin` is called; closes it if the driver never does."""

    def __init__(self, open_pool: OpenPool) -> None:
        self._open_pool = open_pool
        self._pool: WorkerPool | None = None
        self._problem: ResourceError | None = None

    def begin(self, settings: Settings, stored: StoredPlan, jobs: int) -> None:
        """Open the pool now; an error is raised where the driver asks for it."""
        store.quiet_mlflow()
        Background(_import_mlflow)  # while this thread waits for Ray's processes
        try:
            with ray_errors_named():
                self._pool = self._open_pool(settings, stored, jobs)
        except ResourceError as error:
            self._problem = error

    def __call__(self, settings: Settings, stored: StoredPlan, jobs: int) -> WorkerPool:
        """Return the pool; the caller then closes it. Arguments as for `OpenPool`."""
        if self._problem is not None:
            raise self._problem
        pool, self._pool = self._pool, None
        return pool or self._open_pool(settings, stored, jobs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.close()


def _import_mlflow() -> None:
    """Import what a client of the store imports; an error is raised where it is imported in earnest."""
    with suppress(Exception):
        for name in _MLFLOW:
            importlib.import_module(name)
