"""One run of a sweep from claim to report: everything that can be refused is refused before the first job starts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

from orchestrator.execution.driver import Driver, WorkerPaths
from orchestrator.execution.pool import WorkerLayout, WorkerPool
from orchestrator.execution.progress import Display
from orchestrator.execution.ray_pool import RayPool, RaySession
from orchestrator.execution.resources import Machine, local_machine, shape_for
from orchestrator.execution.stop_request import StopRequest
from orchestrator.ledger import store
from orchestrator.ledger.base import Ledger, RunStatus, records_of, repair_torn_moves
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.liveness import Liveness, is_driven
from orchestrator.ledger.locks import Locks, busy, check_claim, renew
from orchestrator.ledger.records import StoredPlan
from orchestrator.ledger.retrying import Patience, patient
from orchestrator.planning.diff import PlannedJob, PlanStatus, check_same_sweep, compare
from orchestrator.planning.resolver import check_all_data, check_all_weights
from orchestrator.report.summary import VARIANTS, ResultTable, as_markdown, result_table
from orchestrator.settings import Settings
from schemas.errors import StoreUnreachable, SweepBusy

OpenPool = Callable[[Settings, StoredPlan, int], WorkerPool]
"""Makes the slots for a sweep that has so many jobs to run; the real one starts Ray."""


@dataclass(frozen=True)
class SweepOutcome:
    name: str
    table: ResultTable
    counts: dict[str, int]
    """Jobs by what became of them."""
    ran: int
    """Jobs that this run began."""
    interrupted: bool
    seconds: float
    paused_by: str = ""
    """The failure that the first jobs shared, so that the rest were not begun."""

    @property
    def is_complete(self) -> bool:
        return set(self.counts) <= {PlanStatus.DONE.value}

    @property
    def run_status(self) -> RunStatus:
        if self.is_complete:
            return "FINISHED"
        return "KILLED" if self.interrupted else "FAILED"


@dataclass
class _SessionPool(RayPool):
    """A pool that takes its Ray down with it."""

    session: RaySession | None = None

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self.session is not None:
                self.session.stop()


def open_ray_pool(settings: Settings, stored: StoredPlan, jobs: int) -> WorkerPool:
    """Ray with one worker per slot.

    Raises:
        ResourceError: Ray does not start, or a slot needs more than there is.
    """
    from workers.actor import worker_class

    session = RaySession(settings.ray_address, cpus=local_machine().cores)
    session.start()
    try:
        shape = _shape(settings, stored, jobs, session.totals())
        return _SessionPool(worker_class(), shape, session.cores_of_a_node(), session.revive, session=session)
    except BaseException:
        session.stop()
        raise


def _shape(settings: Settings, stored: StoredPlan, jobs: int, totals: dict[str, float]) -> WorkerLayout:
    machine = local_machine()
    if settings.ray_address != "local":
        machine = Machine(cores=int(totals.get("CPU", 0)), free_gb=totals.get("memory", 0.0) / 2**30)
    return shape_for(stored.resources, machine, jobs, totals.get("GPU", 0.0))


@dataclass
class SweepRun:
    settings: Settings
    stored: StoredPlan
    display: Display
    open_pool: OpenPool = open_ray_pool
    stop: StopRequest = field(default_factory=StopRequest)

    def execute(self, prepare: Callable[[], None] = lambda: None) -> SweepOutcome:
        """
        Args:
            prepare: what is to be done first, once nothing of this machine stands against the run.
        """
        started = time.time()
        self._refuse_early()
        prepare()
        locks = Locks(self.settings.lock_dir)
        with locks.sweep(self.stored.name, started) as lease, self.stop.listening():
            ledger = self._open_ledger()
            self._refuse_foreign(ledger, started)
            ledger.begin_sweep(self.stored, started)
            lease = lease.model_copy(update={"sign_at": time.time()})
            ledger.stamp(self.stored.name, lease)  # whoever signed before is dead, or was refused above
            try:
                return self._drive(patient(ledger, self._patience()), locks, lease, started)
            except StoreUnreachable as error:
                raise StoreUnreachable(
                    f"{error} Jobs that ran were stopped and saved; when the store is back, go on with: "
                    f"orch resume {self.stored.name}"
                ) from error

    def _drive(self, ledger: Ledger, locks: Locks, lease: Lease, started: float) -> SweepOutcome:
        ran, paused_by = 0, ""
        try:
            ran, paused_by = self._run_jobs(ledger, locks, lease)
        except KeyboardInterrupt:
            self.stop.asked = True
        finally:
            self.display.close()
            report = self._report(ledger, ran, paused_by, time.time() - started)
            with suppress(SweepBusy):  # another driver's claim and conclusion these would be
                check_claim(ledger, report.name, lease)
                ledger.conclude(report.name, as_markdown(report.table), _metrics(report), report.run_status)
                ledger.stamp(report.name, None)
        return report

    def _patience(self) -> Patience:
        minutes = self.settings.store_patience_minutes
        return Patience(minutes * 60, time.time, time.sleep, self.display.say, is_hurried=lambda: self.stop.asked)

    def _refuse_early(self) -> None:
        store.prepare_home(self.settings)
        check_all_weights(self.stored.specs)
        check_all_data(self.stored.specs, self.stored.data_root, self.settings.cache_dir)
        if self.settings.ray_address == "local" and not self.stored.resources.gpus_per_worker:
            shape_for(self.stored.resources, local_machine(), len(self.stored.jobs))

    def _open_ledger(self) -> Ledger:
        from orchestrator.ledger.mlflow_ledger import MlflowLedger

        store.check_writable(self.settings)
        return MlflowLedger(store.open_client(self.settings), self.settings.store_uri)

    def _refuse_foreign(self, ledger: Ledger, now: float) -> None:
        """A name that means other jobs; or, in a store that other machines share, a driver elsewhere."""
        existing = ledger.sweep(self.stored.name)
        if existing is None:
            return
        if self.settings.database is None and is_driven(existing, now):
            raise busy(self.stored.name, existing.lease)
        if existing.plan is not None:
            check_same_sweep(existing.plan, self.stored.specs)

    def _run_jobs(self, ledger: Ledger, locks: Locks, lease: Lease) -> tuple[int, str]:
        """How many jobs were begun, and what paused the sweep, if anything did."""
        elsewhere = partial(self._is_elsewhere, Liveness(ledger))
        runs = ledger.job_runs()
        keys = {spec.key for spec in self.stored.specs}
        repair_torn_moves(ledger, runs, lambda record: record.key in keys and not elsewhere(record.driven_by))
        jobs = compare(self.stored.specs, records_of(runs), elsewhere)
        left = [job for job in jobs if job.will_run or job.status is PlanStatus.RUNNING]
        self.display.say(_opening(self.stored, jobs, len(left)))
        if not left or self.stop.asked:
            return 0, ""
        lease = renew(ledger, self.stored.name, lease, time.time())  # Ray takes its time to start
        pool = self.open_pool(self.settings, self.stored, len(left))
        driver = Driver(
            sweep=self.stored.name,
            planned=jobs,
            ledger=ledger,
            pool=pool,
            locks=locks,
            worker_paths=self._worker_paths(pool.cores),
            lease=lease,
            display=self.display,
            clock=time.time,
            driver_is_alive=lambda name: is_driven(ledger.sweep(name), time.time()),
            stop=self.stop,
        )
        driver.run()
        return driver.begun, driver.paused_by

    def _is_elsewhere(self, alive: Liveness, name: str) -> bool:
        return name != self.stored.name and alive(name)

    def _worker_paths(self, cores: int) -> WorkerPaths:
        return WorkerPaths(
            tracking_uri=self.settings.store_uri,
            cache_dir=str(self.settings.cache_dir),
            checkpoint_dir=str(self.settings.checkpoint_dir),
            log_dir=str(self.settings.log_dir),
            data_root=self.stored.data_root,
            cpus_per_worker=self.stored.resources.cpus_per_worker,
            cores=cores,
            store_patience=self.settings.store_patience_minutes * 60,
        )

    def _report(self, ledger: Ledger, ran: int, paused_by: str, seconds: float) -> SweepOutcome:
        records = ledger.jobs([spec.key for spec in self.stored.specs])
        jobs = compare(self.stored.specs, records, partial(self._is_elsewhere, Liveness(ledger)))
        return SweepOutcome(
            name=self.stored.name,
            table=result_table([job.record for job in jobs if job.record], self.stored.upstream_keys),
            counts=dict(Counter(job.status.value for job in jobs)),
            ran=ran,
            interrupted=self.stop.asked,
            seconds=seconds,
            paused_by=paused_by,
        )


def _opening(stored: StoredPlan, jobs: list[PlannedJob], left: int) -> str:
    done = sum(job.status is PlanStatus.DONE for job in jobs)
    lending = sum(job.spec.key in stored.upstream_keys for job in jobs)
    what = f"{len(jobs) - lending} jobs" + (f" and {lending} pre-training" if lending else "")
    ended = Counter(job.status.value for job in jobs if job.status in (PlanStatus.FAILED, PlanStatus.CANCELLED))
    others = "".join(f", {number} {status} and left alone" for status, number in ended.items())
    if not left:
        return f"Sweep {stored.name}: nothing to run, {done} of {len(jobs)} are done{others}."
    return f"Sweep {stored.name}: {what}; {done} done, {left} to run{others}. Starting the workers."


def _metrics(report: SweepOutcome) -> dict[str, float]:
    """The key numbers of a sweep, as columns beside its name."""
    values = {"jobs_done": float(report.counts.get(PlanStatus.DONE.value, 0)),
              "jobs_failed": float(report.counts.get(PlanStatus.FAILED.value, 0))}  # fmt: skip
    for variant in VARIANTS:
        cells = [row.cells[variant] for row in report.table.rows if variant in row.cells]
        measured = [cell.instability for cell in cells if cell.instability is not None]
        if cells:
            values[f"accuracy/{variant}"] = fmean(cell.accuracy for cell in cells)
        if measured:
            values[f"location_instability/{variant}"] = fmean(measured)
    return values
