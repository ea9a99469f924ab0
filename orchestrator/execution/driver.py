"""Drives one sweep: starts jobs on free slots, records how they ended, and stops in order when asked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from orchestrator.execution import retry_policy, scheduler
from orchestrator.execution.control_requests import RequestHandler
from orchestrator.execution.estimate import Pace
from orchestrator.execution.held_lease import HeldLease
from orchestrator.execution.pool import Ended, WorkerPool
from orchestrator.execution.progress import Display, Now
from orchestrator.execution.settlement import Settlement
from orchestrator.execution.shutdown import Shutdown
from orchestrator.execution.stop_request import StopRequest
from orchestrator.execution.sweep_state import SweepState
from orchestrator.execution.unheard import FindEnd
from orchestrator.execution.work_orders import WorkerPaths, work_order
from orchestrator.ledger.base import LedgerWriter
from orchestrator.ledger.lease import Lease, here
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import JobRecord
from orchestrator.planning.diff import PlannedJob, PlanStatus
from schemas.errors import StoreError
from schemas.lifecycle import JobState, StopReason

POLL_SECONDS = 1.0
"""Longest time of one wait for jobs that end."""
DRAIN_SECONDS = 180.0
"""How long running jobs may take to save a checkpoint when the store is lost."""

_S = JobState
_TO_RUNNING = {
    _S.QUEUED: (_S.RUNNING,),
    _S.REQUEUED: (_S.QUEUED, _S.RUNNING),
    _S.RUNNING: (_S.REQUEUED, _S.QUEUED, _S.RUNNING),
}
"""The moves from the state that an earlier driver left to the start of the next attempt."""


@dataclass
class Driver:
    """The loop of one sweep, in one thread. It owns every change of state of the jobs that it runs."""

    sweep: str
    planned: list[PlannedJob]
    """The sweep's jobs in the order in which they should run, with what the ledger had of them."""
    ledger: LedgerWriter
    pool: WorkerPool
    locks: Locks
    worker_paths: WorkerPaths
    lease: Lease
    """The lease with which this process claimed the sweep."""
    display: Display
    clock: Callable[[], float]
    driver_is_alive: Callable[[str], bool]
    """Returns whether the sweep with a given name has a live driver."""
    stop: StopRequest = field(default_factory=StopRequest)
    find_end: FindEnd = lambda record: None
    """Finds the end of an attempt whose worker could not tell it."""

    def __post_init__(self) -> None:
        self._state = SweepState.of(self.planned)
        self._unsettled: list[Ended] = []
        self._lease = HeldLease(self.ledger, self.sweep, self.lease, self.clock)
        self._shutdown = Shutdown(self.sweep, self.stop, self.pool, self.display.say)
        self._settlement = Settlement(
            self.sweep, self._state, self.ledger, self.locks, self._shutdown, self.display.say, self.clock,
            self.find_end,
        )  # fmt: skip
        self._requests = RequestHandler(
            self.sweep, self._state, self.ledger, self.pool, self.locks, self.stop, self.display.say,
            self.driver_is_alive, self.lease.since,
        )  # fmt: skip

    @property
    def begun(self) -> int:
        """Number of jobs of which this driver began an attempt."""
        return len(self._state.attempts)

    @property
    def paused_by(self) -> str:
        """The failure that the first jobs share, if the driver has stopped because of it."""
        return self._shutdown.paused_by

    def run(self) -> None:
        """Run jobs until none is left that can run, or the driver has to stop. No job outlives this call.

        Raises:
            DiskFull: A full disk stopped the sweep.
            StoreError: The ledger cannot be used.
            SweepBusy: Another driver has taken the sweep over.
        """
        with ExitStack() as at_the_end:  # every step is taken, even if an earlier one raises
            steps = (self._lease.try_renew, self.pool.close, self._lease.try_renew, self._abandon_running)
            for step in reversed(steps):
                at_the_end.callback(step)
            try:
                self._lease.renew()  # starting the workers took time
                self._settle_lost()
                while not self._is_over():
                    self._turn()
            except StoreError:
                self._drain()
                raise
        self._shutdown.raise_if_disk_full()

    def _turn(self) -> None:
        now = self.clock()
        self._lease.renew_if_due(now)
        self._requests.poll(now)
        self._shutdown.check_request()
        if not self._shutdown.is_stopping:
            self._fill_slots(now)
        self._wait_for_workers()
        self._settle_ended()
        self._show()

    def _is_over(self) -> bool:
        return not self._state.running if self._shutdown.is_stopping else scheduler.is_over(self._state.board)

    def _wait_for_workers(self) -> None:
        ended = self.pool.wait(POLL_SECONDS)
        self._state.at_work -= {one.slot for one in ended}
        self._unsettled += ended

    def _settle_ended(self) -> None:
        while self._unsettled:
            self._settlement.settle(self._unsettled[0])
            del self._unsettled[0]

    def _drain(self) -> None:
        """Let running jobs save a checkpoint when the store is lost, and record what can be recorded.

        The next driver finds jobs whose end was not recorded as lost, and resumes them from their checkpoints.
        """
        self._shutdown.store_is_lost()
        until = self.clock() + DRAIN_SECONDS
        while self._state.at_work and self.clock() < until:
            self._wait_for_workers()
        with suppress(StoreError):
            self._settle_ended()

    def _abandon_running(self) -> None:
        self._settlement.abandon_running(self._lease.check)

    def _settle_lost(self) -> None:
        """Settle what a dead driver left running before anything else, so that the store is right."""
        for job in self.planned:
            if job.status is PlanStatus.LOST and self.locks.take_job(job.spec.key):
                current = self.ledger.get(job.spec.key)
                is_same = job.record is not None and current.attempt == job.record.attempt
                if current.state is _S.RUNNING and is_same and not self._settlement.settle_unheard(current):
                    self.ledger.move(job.spec.key, _S.REQUEUED, self.clock(), reason=StopReason.WORKER_LOST)
                self.locks.release_job(job.spec.key)

    def _fill_slots(self, now: float) -> None:
        free = [slot for slot in range(self.pool.slots) if slot not in self._state.running]
        for key in scheduler.ready(self._state.board, now):
            if not free:
                return
            if self._start(key, free[0], now):
                free.pop(0)

    def _start(self, key: str, slot: int, now: float) -> bool:
        """Start an attempt. Returns False if another driver runs the job or has just ended it."""
        state = self._state
        self._lease.renew_if_due(self.clock())  # this machine may have been suspended
        if not self.locks.take_job(key):
            state.check_later(key, now)
            return False
        record = self.ledger.add(state.specs[key], self.sweep, now)
        self._lease.renew_if_due(self.clock())  # the store may have kept us waiting
        if not self._is_free(record) or self._settlement.settle_unheard(record):
            self.locks.release_job(key)
            return False
        threads = record.threads or scheduler.threads_for(
            state.board, key, self.worker_paths.cpus_per_worker, self.worker_paths.cores
        )
        micro_batches = retry_policy.micro_batches_after(record.result, state.specs[key].train.batch_size)
        facts = {"host": here(), "threads": str(threads), "sweep": self.sweep, "micro_batches": str(micro_batches)}
        state.attempts[key] = record.attempt + 1
        state.paces[key] = Pace(now)
        state.running[slot] = key  # before the ledger is written, so that the job is requeued whatever fails here
        for to in _TO_RUNNING[record.state]:
            record = self.ledger.move(key, to, now, facts=facts)
        state.set_state(key, _S.RUNNING)
        upstream = state.specs[key].upstream
        upstream_record = self.ledger.get(upstream.key) if upstream else None
        order = work_order(state.specs[key], record, upstream_record, self.worker_paths, threads, micro_batches)
        self.pool.start(slot, order)
        state.at_work.add(slot)
        return True

    def _is_free(self, record: JobRecord) -> bool:
        key, now = record.key, self.clock()
        if record.state.has_ended:
            self._state.set_state(key, record.state)
            return False
        is_held = record.state in (_S.RUNNING, _S.QUEUED) and record.driven_by != self.sweep
        if is_held and self.driver_is_alive(record.driven_by):
            self._state.check_later(key, now)
            return False
        return True

    def _show(self) -> None:
        state, progress = self._state, self.pool.progress()
        running = tuple((state.specs[key].title, progress.get(slot)) for slot, key in state.running.items())
        left = state.time_left(progress, self.pool.slots, self.clock())
        self.display.show(Now(state.ended, len(state.board), running, left))
