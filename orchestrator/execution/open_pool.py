"""Opens the workers of a sweep: starts a private Ray, or joins a cluster in the background."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.execution.in_time import Hung, within
from orchestrator.execution.pool import WorkerPool
from orchestrator.execution.ray_pool import RayPool
from orchestrator.execution.ray_session import RaySession
from orchestrator.execution.resources import layouts_for, local_machine, needs_of
from orchestrator.ledger.records import StoredPlan
from orchestrator.settings import Settings
from schemas.job import JobSpec
from schemas.packs import Packing, packing_of

OpenPool = Callable[[Settings, StoredPlan, int], WorkerPool]
"""Opens the workers of a sweep with so many jobs to run; `open_ray_pool` or a test double."""
LEAVE_SECONDS = 3.0
"""Longest time in which a cluster is left; what it does not hear then, it notices itself."""


@dataclass
class _SessionPool(RayPool):
    """A pool that stops its Ray when it is closed."""

    session: RaySession | None = None

    def close(self) -> None:
        """See `WorkerPool.close`; stops Ray too."""
        try:
            super().close()
        finally:
            if self.session is not None and self.is_private:
                self.session.stop()
            elif self.session is not None:
                with suppress(Hung):
                    within(LEAVE_SECONDS, self.session.stop)


def open_ray_pool(settings: Settings, stored: StoredPlan, jobs: int) -> WorkerPool:
    """Start a private Ray with its workers, or begin to join a cluster, which `WorkerPool.wait` ends.

    Args:
        settings: Names the Ray to use.
        stored: The sweep; its resources decide the number of workers.
        jobs: Number of jobs to run.

    Raises:
        ResourceError: Ray does not start, or a worker needs more than this machine has.
    """
    from workers.actor import worker_class
    from workers.code_home import code_home

    machine = local_machine()
    session = RaySession(settings.ray_address, cpus=machine.cores, memory_gb=machine.free_gb)
    needs, limit, at_once = needs_of(stored), min(stored.resources.workers or jobs, jobs), 0
    gpus: float | None = None
    if session.is_private:
        session.start()
    try:
        if session.is_private:
            gpus = session.totals().get("GPU", 0.0)
            limit = max(layout.slots for layout in layouts_for(stored, machine, jobs, gpus).values())
            at_once = limit if len(needs) == 1 else 0
        packing = _packing(stored, gpus)
        return _SessionPool(
            worker_class,
            session,
            limit,
            needs,
            cores=session.cpus if session.is_private else 0,
            at_once=at_once,
            arguments=(
                code_home().model_copy(update={"may_differ": settings.code_check == "warn"}).model_dump_json(),
                packing.model_dump_json() if packing else "",
            ),
            places=packing.setting if packing and isinstance(packing.setting, int) else 1,
            most_places=packing.most if packing else 1,
            start_seconds=settings.worker_start_seconds,
            patience=settings.store_patience_minutes * 60,
            default_gpus=None if gpus is None else float(gpus > 0),
            is_joined=session.is_private,
            session=session,
        )
    except BaseException:
        session.stop()
        raise


def _packing(stored: StoredPlan, gpus: float | None) -> Packing | None:
    """Return what workers have to know of a sweep's packs; None if there can be none.

    Args:
        stored: The sweep.
        gpus: Number of GPUs; None if it is unknown.
    """
    if gpus == 0 and stored.resources.pack == "auto":
        return None
    frozen = (job for job in stored.jobs if job["train"]["freeze_below"] is not None)
    return packing_of(stored.resources.pack, map(JobSpec.model_validate, frozen))
