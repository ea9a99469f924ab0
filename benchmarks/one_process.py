"""What orch's driver, ledger and worker take for a job that does not compute, each by itself and without Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from benchmarks.metering import Cost
from benchmarks.no_op import compute_nothing, finished
from benchmarks.restart import BASE, Silent, multiply
from orchestrator.execution.driver import Driver
from orchestrator.execution.open_pool import OpenPool
from orchestrator.execution.placement import Idle, Wish
from orchestrator.execution.pool import Ended
from orchestrator.execution.work_orders import WorkerPaths, work_order
from orchestrator.ledger import store
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.diff import compare
from orchestrator.planning.request import SweepRequest
from orchestrator.services import sweeps
from orchestrator.settings import Settings
from schemas.job import JobSpec
from schemas.lifecycle import JobState
from schemas.order import Progress, WorkOrder
from schemas.sweep import Needs, SweepSpec

NAME = "measured"


def sweep_of(name: str, category: str, jobs: int) -> SweepSpec:
    """Return the definition of a sweep of so many jobs that differ in their seed."""
    return SweepSpec(name=name, base=BASE, axes={"category": (category,), "seed": tuple(range(jobs))})


@dataclass
class OneProcess:
    """A store, and jobs that are run in this process: what the driver and its worker do, without Ray."""

    folder: Path
    cpu_of_ledger: float = 0.0
    """Seconds."""
    cpu_of_worker: float = 0.0

    def __post_init__(self) -> None:
        from orchestrator.ledger.mlflow_ledger import MlflowLedger

        self.settings = Settings(home=self.folder / "orch")
        store.prepare_home(self.settings)
        self.ledger = MlflowLedger(store.make_client(self.settings), self.settings.store_uri)
        compute_nothing()

    def begin(self, name: str, category: str, jobs: int) -> tuple[JobSpec, ...]:
        """Begin a sweep and return its jobs."""
        request = SweepRequest(sweep=sweep_of(name, category, jobs))
        planned = sweeps.plan_sweep(self.settings, request).sweep
        plan = StoredPlan.of(name, planned.profile, None, planned.jobs, planned.upstream_keys, planned.resources)
        self.ledger.begin_sweep(plan, time.time())
        return planned.jobs

    def run(self, spec: JobSpec, sweep: str) -> None:
        """Run a job as a driver and its worker do, and add up their CPU time."""
        from workers.job import run_job

        settings, began = self.settings, time.process_time()
        folders = (str(settings.cache_dir), str(settings.checkpoint_dir), str(settings.log_dir))
        self.ledger.add(spec, sweep, time.time())
        facts = {"host": "here", "threads": "1", "sweep": sweep, "micro_batches": "1"}
        record = self.ledger.move(spec.key, JobState.RUNNING, time.time(), facts=facts)
        order = work_order(spec, record, None, WorkerPaths(settings.store_uri, *folders, None), 1, 1)
        ordered = time.process_time()
        result = run_job(order, lambda progress: None, lambda: False)
        ended = time.process_time()
        assert result.metrics is not None, result
        self.ledger.get(spec.key)
        self.ledger.move(spec.key, JobState.SUCCEEDED, time.time(), reason=result.stop_reason, result=result)
        self.cpu_of_ledger += time.process_time() - ended + ordered - began
        self.cpu_of_worker += ended - ordered


def preload(folder: Path, jobs: int) -> OneProcess:
    """Return a store with one finished sweep: its first job is run, the rows of its run are multiplied."""
    store = OneProcess(folder)
    if jobs:
        first, *others = store.begin("earlier", "voc_part/cat", jobs)
        store.run(first, "earlier")
        assert store.settings.database is not None
        multiply(store.settings.database, first, others)
    return store


def time_one_process(folder: Path, jobs: int, preloaded: int) -> Cost:
    """Return the milliseconds per job of orch without Ray, in a store with `preloaded` finished jobs."""
    store = preload(folder, preloaded)
    first, *others = store.begin(NAME, "voc_part/dog", jobs + 1)
    store.run(first, NAME)  # caches are filled
    store.cpu_of_ledger = store.cpu_of_worker = 0.0
    began = time.perf_counter()
    for spec in others:
        store.run(spec, NAME)
    found = (time.perf_counter() - began, store.cpu_of_ledger, store.cpu_of_worker)
    return Cost(*(1000 * seconds / jobs for seconds in found))


class InstantPool:
    """Two workers without processes, whose jobs have ended when the driver waits for them."""

    size = cores = 2
    is_private = True
    packs, places = False, 1

    def __init__(self, needs: Needs) -> None:
        """
        Args:
            needs: what the workers have.
        """
        self._needs = needs
        self._busy: dict[int, WorkOrder] = {}

    def ask(self, wishes: Sequence[Wish], barred: Mapping[int, frozenset[str]] = MappingProxyType({})) -> None: ...

    def idle(self) -> list[Idle]:
        """See `WorkerPool.idle`."""
        return [Idle(worker, self._needs, "node") for worker in range(self.size) if worker not in self._busy]

    def nodes(self) -> dict[str, str]:
        """See `WorkerPool.nodes`."""
        return {"node": "host"}

    def waiting(self) -> str:
        """See `WorkerPool.waiting`."""
        return ""

    def start(self, worker: int, order: WorkOrder) -> None:
        """See `WorkerPool.start`."""
        self._busy[worker] = order

    def wait(self, seconds: float) -> list[Ended]:
        """See `WorkerPool.wait`."""
        ended = [Ended(worker, finished(order), "node", is_told=True) for worker, order in self._busy.items()]
        self._busy.clear()
        return ended

    def warnings(self) -> frozenset[str]:
        """See `WorkerPool.warnings`."""
        return frozenset()

    def progress(self) -> dict[int, Progress]:
        """See `WorkerPool.progress`."""
        return {}

    def stop(self) -> None: ...

    def interrupt(self, worker: int) -> None: ...

    def close(self) -> None: ...


def untracked_driver(folder: Path, jobs: int, open_pool: OpenPool | None = None) -> Driver:
    """Return a driver with a ledger in memory.

    Args:
        folder: for its locks.
        jobs: of its sweep.
        open_pool: opens its workers; None for those of `InstantPool`.
    """
    from orchestrator.execution.resources import needs_of

    settings, now = Settings(home=folder / "orch"), time.time()
    planned = sweeps.plan_sweep(settings, SweepRequest(sweep=sweep_of(NAME, "voc_part/dog", jobs))).sweep
    stored = StoredPlan.of(NAME, planned.profile, None, planned.jobs, planned.upstream_keys, planned.resources)
    ledger = InMemoryLedger()
    ledger.begin_sweep(stored, now)
    lease = Lease(host="here", pid=os.getpid(), since=now, sign_at=now)
    ledger.set_lease(NAME, lease)
    return Driver(
        sweep=NAME,
        planned=compare(stored.specs, {}, lambda name: False),
        ledger=ledger,
        pool=open_pool(settings, stored, jobs) if open_pool else InstantPool(needs_of(stored)[0]),
        locks=Locks(settings.lock_dir),
        worker_paths=WorkerPaths("none", "none", "none", "none", None),
        lease=lease,
        display=Silent(),
        clock=time.time,
        driver_is_alive=lambda name: False,
    )


def time_driver(folder: Path, jobs: int, preloaded: int) -> Cost:
    """Return the milliseconds per job that the driver takes by itself, for a sweep of so many jobs."""
    driver = untracked_driver(folder, jobs)
    began, used = time.perf_counter(), time.process_time()
    driver.run()
    assert driver.begun == jobs
    return Cost(1000 * (time.perf_counter() - began) / jobs, 1000 * (time.process_time() - used) / jobs, 0.0)
