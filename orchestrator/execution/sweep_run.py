"""One run of a sweep, from its claim to its results; what can be refused is refused before the first job starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from orchestrator.execution.absence import read_pushed
from orchestrator.execution.driver import Driver
from orchestrator.execution.early_start import EarlyPool
from orchestrator.execution.in_time import Background
from orchestrator.execution.notifications import Notification, ended, send
from orchestrator.execution.open_pool import OpenPool, open_ray_pool
from orchestrator.execution.past_jobs import past_of
from orchestrator.execution.progress import Display
from orchestrator.execution.ray_session import ray_errors_named
from orchestrator.execution.resources import layouts_for, local_machine, needs_of
from orchestrator.execution.stop_request import StopRequest
from orchestrator.execution.sweep_outcome import SweepOutcome, metrics_of, opening_line, outcome_of
from orchestrator.execution.unheard import find_end
from orchestrator.execution.work_orders import WorkerPaths, absolute_uri
from orchestrator.ledger import opening, store
from orchestrator.ledger.base import Ledger, LedgerReader
from orchestrator.ledger.claim import busy, check_claim, renew
from orchestrator.ledger.job_moves import repair_torn_moves
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.liveness import Liveness, is_driven
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.outages import Patience, patient
from orchestrator.ledger.records import StoredPlan, records_of
from orchestrator.ledger.shared_prefix import claim_prefix
from orchestrator.planning.diff import PlanStatus, check_same_sweep, compare
from orchestrator.planning.resolver import check_all_data, check_all_weights, push_all_weights
from orchestrator.report.summary import as_markdown
from orchestrator.settings import Settings
from schemas.errors import OrchError, ResourceError, StoreUnreachable, SweepBusy


@dataclass
class SweepRun:
    """Claims a sweep, drives it, and stores its results."""

    settings: Settings
    stored: StoredPlan
    display: Display
    open_pool: OpenPool = open_ray_pool
    left: int = 0
    """Number of jobs that will run, if workers are to start before the store is opened for writing."""
    stop: StopRequest = field(default_factory=StopRequest)
    _has_begun: bool = False
    """Whether the sweep was claimed, so that its end is told to who does not look."""

    def __post_init__(self) -> None:
        self._pools = EarlyPool(self.open_pool)

    def execute(self, prepare: Callable[[], None] = lambda: None) -> SweepOutcome:
        """Run the jobs of the sweep that are left.

        Args:
            prepare: Called after the checks that need no claim, and before the claim.

        Returns:
            The outcome, also of a run that was interrupted or paused.

        Raises:
            SweepBusy: Another driver runs the sweep.
            SpecError: The sweep's name is taken by other jobs.
            DataError: Images or annotations are missing.
            WeightsError: A weights file is missing or does not fit.
            ResourceError: Ray does not start, or a worker needs more than is available.
            DiskFull: A full disk stopped the sweep.
            StoreError: The store cannot be used.
        """
        try:
            outcome = self._execute(prepare)
        except SweepBusy:
            raise  # the sweep goes on elsewhere
        except OrchError as error:
            if self._has_begun:
                text = f"Sweep {self.stored.name} was stopped. {error}"
                self._tell(Notification(text=text, event="stopped", sweep=self.stored.name))
            raise
        self._tell(ended(outcome))
        return outcome

    def _execute(self, prepare: Callable[[], None]) -> SweepOutcome:
        started = time.time()
        self._check_early()
        locks = Locks(self.settings.lock_dir)
        with self.stop.listening(), self._pools:
            if self.left:
                self._pools.begin(self.settings, self.stored, self.left)
            prepare()
            return self._claim_and_drive(locks, started)

    def _claim_and_drive(self, locks: Locks, started: float) -> SweepOutcome:
        with locks.sweep(self.stored.name, started) as lease:
            ledger = self._open_ledger()
            self._refuse_taken(ledger, started)
            ledger.begin_sweep(self.stored, started)
            lease = lease.model_copy(update={"sign_at": time.time()})
            ledger.set_lease(self.stored.name, lease)  # any driver that had signed is dead, or was refused above
            try:
                return self._drive(patient(ledger, self._patience()), locks, lease, started)
            except ResourceError as error:
                raise ResourceError(f"{error} Then run: {self._resume}") from error
            except StoreUnreachable as error:
                raise StoreUnreachable(
                    f"{error} Running jobs were stopped and saved. When the store answers again, run: {self._resume}"
                ) from error

    def _drive(self, ledger: Ledger, locks: Locks, lease: Lease, started: float) -> SweepOutcome:
        ran, paused_by = 0, ""
        self._has_begun = True
        try:
            with ray_errors_named():
                ran, paused_by = self._run_jobs(ledger, locks, lease)
        except KeyboardInterrupt:
            self.stop.asked = True
        finally:
            self.display.close()
            outcome = self._outcome(ledger, ran, paused_by, time.time() - started)
            with suppress(SweepBusy):  # lease and results then belong to another driver
                check_claim(ledger, outcome.name, lease)
                note, metrics = as_markdown(outcome.table), metrics_of(outcome)
                ledger.conclude_sweep(outcome.name, note, metrics, outcome.run_status)
                ledger.set_lease(outcome.name, None)
        return outcome

    def _tell(self, notification: Notification) -> None:
        target = self.settings.notify
        if target is not None and (problem := send(target.get_secret_value(), notification)):
            self.display.say(f"warning: nobody was notified: {problem}")

    def _tell_waiting(self, reason: str) -> None:
        """Tell it in a thread, so that the driver's lease does not lapse meanwhile."""
        text = f"Sweep {self.stored.name} has waited long: {reason}"
        Background(partial(self._tell, Notification(text=text, event="waiting", sweep=self.stored.name)))

    @property
    def _resume(self) -> str:
        return self.settings.resume_command(self.stored.name)

    def _patience(self) -> Patience:
        minutes = self.settings.store_patience_minutes
        return Patience(minutes * 60, time.time, time.sleep, self.display.say, is_hurried=lambda: self.stop.asked)

    def _check_early(self) -> None:
        store.prepare_home(self.settings)
        check_all_weights(self.stored.specs)
        push_all_weights(self.settings, self.stored.specs, self.display.say)
        check_all_data(self.settings, self.stored.specs, self.stored.data_root)
        if self.settings.ray_address == "local" and not any(needs.gpus for needs in needs_of(self.stored)):
            layouts_for(self.stored, local_machine(), len(self.stored.jobs))

    def _open_ledger(self) -> Ledger:
        store.check_writable(self.settings)
        ledger = opening.open_or_create(self.settings)
        claim_prefix(self.settings, ledger.client)
        return ledger

    def _refuse_taken(self, ledger: LedgerReader, now: float) -> None:
        """Refuse a name that means other jobs and, in a shared store, a sweep that another machine drives."""
        existing = ledger.sweep(self.stored.name)
        if existing is None:
            return
        if self.settings.database is None and is_driven(existing, now):
            raise busy(self.stored.name, existing.lease)
        if existing.plan is not None:
            check_same_sweep(existing.plan, self.stored.specs, self._resume)

    def _run_jobs(self, ledger: Ledger, locks: Locks, lease: Lease) -> tuple[int, str]:
        """Return how many jobs were begun, and the common failure that paused the sweep, if any."""
        driver = self._driver(ledger, locks, lease)
        if driver is None:
            return 0, ""
        driver.run()
        return driver.begun, driver.paused_by

    def _driver(self, ledger: Ledger, locks: Locks, lease: Lease) -> Driver | None:
        """Return the driver of the jobs that are left; None if there are none. It keeps no records of the others."""
        elsewhere = partial(self._is_elsewhere, Liveness(ledger))
        runs = ledger.job_runs()
        keys = {spec.key for spec in self.stored.specs}
        repair_torn_moves(ledger, runs, lambda record: record.key in keys and not elsewhere(record.driven_by))
        records = records_of(runs)
        jobs = compare(self.stored.specs, records, elsewhere)
        left = [job for job in jobs if job.will_run or job.status is PlanStatus.RUNNING]
        self.display.say(opening_line(self.stored, jobs, len(left)))
        if not left or self.stop.asked:
            return None
        lease = renew(ledger, self.stored.name, lease, time.time())  # starting Ray takes time
        pool = self._pools(self.settings, self.stored, len(left))
        return Driver(
            sweep=self.stored.name,
            planned=jobs,
            ledger=ledger,
            pool=pool,
            locks=locks,
            worker_paths=self._worker_paths(),
            resources=self.stored.resources,
            lease=lease,
            display=self.display,
            clock=time.time,
            driver_is_alive=lambda name: is_driven(ledger.sweep(name), time.time()),
            stop=self.stop,
            find_end=partial(find_end, self.settings),
            read_pushed=partial(read_pushed, self.settings),
            resume=self._resume,
            tell_waiting=self._tell_waiting,
            past=past_of(records.values()),
        )

    def _is_elsewhere(self, is_alive: Liveness, name: str) -> bool:
        return name != self.stored.name and is_alive(name)

    def _worker_paths(self) -> WorkerPaths:
        return WorkerPaths(
            tracking_uri=absolute_uri(self.settings.store_uri),
            cache_dir=str(self.settings.cache_dir),
            checkpoint_dir=str(self.settings.checkpoint_dir),
            log_dir=str(self.settings.log_dir),
            data_root=self.stored.data_root,
            object_store=self.settings.object_store,
            is_clustered=self.settings.ray_address != "local",
            cache_gb=self.settings.cache_gb,
            features_gb=self.settings.features_gb,
            system_metrics_seconds=self.settings.system_metrics_seconds,
            store_patience=self.settings.store_patience_minutes * 60,
        )

    def _outcome(self, ledger: LedgerReader, ran: int, paused_by: str, seconds: float) -> SweepOutcome:
        records = ledger.jobs([spec.key for spec in self.stored.specs])
        jobs = compare(self.stored.specs, records, partial(self._is_elsewhere, Liveness(ledger)))
        return outcome_of(self.stored, jobs, ran=ran, interrupted=self.stop.asked, seconds=seconds, paused_by=paused_by)
