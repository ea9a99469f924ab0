"""Opens the workers of a sweep: starts Ray and one actor per slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.execution.pool import WorkerLayout, WorkerPool
from orchestrator.execution.ray_pool import RayPool
from orchestrator.execution.ray_session import RaySession
from orchestrator.execution.resources import Machine, layout_for, local_machine
from orchestrator.ledger.records import StoredPlan
from orchestrator.settings import Settings

OpenPool = Callable[[Settings, StoredPlan, int], WorkerPool]
"""Opens the workers of a sweep with so many jobs to run; `open_ray_pool` or a test double."""


@dataclass
class _SessionPool(RayPool):
    """A pool that stops its Ray when it is closed."""

    session: RaySession | None = None

    def close(self) -> None:
        """See `WorkerPool.close`; stops Ray too."""
        try:
            super().close()
        finally:
            if self.session is not None:
                self.session.stop()


def open_ray_pool(settings: Settings, stored: StoredPlan, jobs: int) -> WorkerPool:
    """Start Ray with one worker per slot.

    Args:
        settings: Names the Ray to use.
        stored: The sweep; its resources decide the number of slots.
        jobs: Number of jobs to run.

    Raises:
        ResourceError: Ray does not start, or a worker needs more than is available.
    """
    from workers.actor import worker_class
    from workers.code_home import code_home

    session = RaySession(settings.ray_address, cpus=local_machine().cores)
    session.start()
    try:
        layout = _layout(settings, stored, jobs, session.totals())
        return _SessionPool(
            worker_class(),
            layout,
            session.cores_of_a_node(),
            session.revive,
            arguments=(code_home().model_dump_json(),),
            start_seconds=settings.worker_start_seconds,
            end_of_log=session.end_of_worker_log,
            patience=settings.store_patience_minutes * 60,
            session=session,
        )
    except BaseException:
        session.stop()
        raise


def _layout(settings: Settings, stored: StoredPlan, jobs: int, totals: dict[str, float]) -> WorkerLayout:
    machine = local_machine()
    if settings.ray_address != "local":
        machine = Machine(cores=int(totals.get("CPU", 0)), free_gb=totals.get("memory", 0.0) / 2**30)
    return layout_for(stored.resources, machine, jobs, totals.get("GPU", 0.0))
