"""Drives one sweep: starts jobs on idle workers, records how they ended, and stops in order when asked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import InitVar, dataclass, field

from orchestrator.execution import retry_policy, scheduler
from orchestrator.execution.absence import Absence, Pushes, ReadPushed, data_sets_among, sentence
from orchestrator.execution.control_requests import RequestHandler
from orchestrator.execution.estimate import Finished, Pace
from orchestrator.execution.held_lease import HeldLease
from orchestrator.execution.leftovers import Leftovers
from orchestrator.execution.placement import Wish, assign
from orchestrator.execution.pool import Ended, WorkerPool
from orchestrator.execution.progress import Display, Now
from orchestrator.execution.progress_notice import MOST_JOBS, ProgressNotice
from orchestrator.execution.settlement import Settlement
from orchestrator.execution.shutdown import Shutdown
from orchestrator.execution.stop_request import StopRequest
from orchestrator.execution.sweep_state import SweepState
from orchestrator.execution.unheard import FindEnd
from orchestrator.execution.waiting_notice import WaitingNotice
from orchestrator.execution.work_orders import WorkerPaths, work_order
from orchestrator.ledger.base import LedgerWriter
from orchestrator.ledger.lease import Lease, here
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.outages import impatient
from orchestrator.ledger.records import JobRecord
from orchestrator.planning.diff import PlannedJob, PlanStatus
from schemas.errors import IllegalTransition, StoreError, SweepBusy
from schemas.lifecycle import JobState, StopReason
from schemas.packs import pack_shape
from schemas.results import JobResult
from schemas.sweep import Resources

POLL_SECONDS = 1.0
"""Longest time of one wait for jobs that end."""
MOST_WISHES = 2000
"""Waiting jobs that are told to the pool at a time, where all jobs want equal workers."""
SHOW_SECONDS, SHOW_SECONDS_A_JOB = 0.25, 1e-4
"""Least time between two pictures of the sweep, and per job: drawing one takes a few microseconds per job."""
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
    planned: InitVar[list[PlannedJob]]
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
    resources: Resources = field(default_factory=Resources)
    """What workers take of a machine."""
    find_end: FindEnd = lambda record: None
    """Finds the end of an attempt whose worker could not tell it."""
    read_pushed: ReadPushed = lambda name: ""
    """Names the copy of a data set that was pushed to the object store."""
    resume: str = ""
    """The command that continues the sweep, if it is not `orch resume` alone."""
    tell_waiting: Callable[[str], None] = lambda reason: None
    """Tells a user who does not look why jobs have waited long for machines."""
    past: Finished = field(default_factory=Finished)
    """What the store's finished jobs took of their worker process, for estimates."""

    def __post_init__(self, planned: list[PlannedJob]) -> None:
        self._state = SweepState.of(planned)
        self._lost = [job.record for job in planned if job.status is PlanStatus.LOST and job.record is not None]
        self._state.past = self.past
        self._unsettled: list[Ended] = []
        self._warned: set[str] = set()
        self._shown_at = -math.inf
        self._absence, self._pushes = Absence(), Pushes(self.read_pushed)
        self._leftovers = Leftovers()
        self._wishes: dict[str, Wish] = {}
        self._unpacked: set[str] = set()
        self._lost_workers: Counter[str] = Counter()
        for job in planned:
            if job.record and job.record.result:
                self._note_result(job.record.result)
        backbones = {spec.model.backbone for spec in self._state.specs.values()}
        self._needs = {backbone: self.resources.needs(backbone) for backbone in backbones}
        self._notice = WaitingNotice(self.sweep, self.ledger, self.display.say, self.tell_waiting)
        self._progress = ProgressNotice(self.sweep, impatient(self.ledger))
        self._lease = HeldLease(self.ledger, self.sweep, self.lease, self.clock)
        self._shutdown = Shutdown(
            self.sweep, self.stop, self.pool, self.display.say, self.resume or f"orch resume {self.sweep}"
        )
        self._settlement = Settlement(
            self.sweep, self._state, self.ledger, self.locks, self._shutdown, self.display.say, self.clock,
            self.find_end, waits_for_data=not self.pool.is_private,
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
            AccessDenied: The store does not accept a worker's credentials.
            StoreError: The ledger cannot be used.
            SweepBusy: Another driver has taken the sweep over.
        """
        with ExitStack() as at_the_end:  # every step is taken, even if an earlier one raises
            steps = (
                self._lease.try_renew, self.pool.close, self._lease.try_renew, self._abandon_running,
                self._withdraw_notices,
            )  # fmt: skip
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
        self._shutdown.raise_error()

    def _turn(self) -> None:
        now = self.clock()
        self._lease.renew_if_due(now)
        self._requests.poll(now)
        self._shutdown.check_request()
        if not self._shutdown.is_stopping:
            self._fill_workers(now)
        self._wait_for_workers()
        self._settle_ended()
        self._show_if_due(now)

    def _is_over(self) -> bool:
        return not self._state.running if self._shutdown.is_stopping else self._state.board.is_over

    def _wait_for_workers(self) -> None:
        ended = self.pool.wait(POLL_SECONDS)
        for warning in sorted(self.pool.warnings() - self._warned):
            self._warned.add(warning)
            self.display.say(f"warning: {warning}")
        self._state.at_work -= {one.worker for one in ended}
        self._unsettled += ended
        for one in ended:
            self._note_result(one.result)
            if one.result.stop_reason is StopReason.DATA_ABSENT and not self.pool.is_private:
                self._absence.note(self._state.specs[one.result.job_key], one.result.failure, one.node, self.clock())

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

    def _withdraw_notices(self) -> None:
        """Withdraw what was told of the sweep, unless a driver that took it over has told something since."""
        with suppress(StoreError, SweepBusy):
            self._lease.check()
            self._notice.withdraw()
            self._progress.withdraw()

    def _settle_lost(self) -> None:
        """Settle what a dead driver left running before anything else, so that the store is right."""
        for lost in self._lost:
            self._lease.renew_if_due(self.clock())  # checking an end may fetch its checkpoint
            if self.locks.take_job(lost.key):
                current = self.ledger.get(lost.key)
                is_same = current.attempt == lost.attempt
                if current.state is _S.RUNNING and is_same and not self._settlement.settle_unheard(current):
                    with suppress(IllegalTransition):  # the driver of another machine was faster
                        self.ledger.move(lost.key, _S.REQUEUED, self.clock(), reason=StopReason.WORKER_LOST)
                self.locks.release_job(lost.key)

    def _fill_workers(self, now: float) -> None:
        """Start the jobs for which there is an idle worker, and ask for workers for the others."""
        run_anywhere = not self._absence.is_known(now) and not self._leftovers.is_known
        are_equal = run_anywhere and len(set(self._needs.values())) == 1
        if are_equal and not self.pool.packs:
            self._fill_equal_workers(now)
            return
        nodes = self.pool.nodes()
        most = len(self.pool.idle()) + MOST_WISHES if are_equal else None
        ready = self._state.board.ready(now, most)
        wishes = {key: self._plain_wish(key) if run_anywhere else self._wish(key, nodes, now) for key in ready}
        while pairs := assign(wishes, self.pool.idle()):
            for key, idle in pairs:
                self._start(key, idle.worker, now)
                del wishes[key]
        running = self._state.running.items()
        barred = {worker: self._absence.avoided(self._state.specs[key], now) for worker, key in running}
        self.pool.ask(list(wishes.values()), barred)
        jobs = [self._state.specs[key] for key in wishes]
        lacked = self._absence.nowhere(jobs, nodes, now)
        self._notice.set(sentence(lacked, jobs) if lacked else self.pool.waiting(), now)
        if names := data_sets_among(lacked):
            self._absence.forget(self._pushes.news(names, now))

    def _fill_equal_workers(self, now: float) -> None:
        """Do the same where any worker can run any job, without a look at jobs that cannot start now."""
        (needs,), board = set(self._needs.values()), self._state.board
        wish = Wish(needs)
        tried = set[str]()
        while pairs := assign(dict.fromkeys(self._untried(tried, now), wish), self.pool.idle()):
            for key, idle in pairs:
                tried.add(key)
                self._start(key, idle.worker, now)
        self.pool.ask([wish] * board.count_ready(now, MOST_WISHES))
        self._notice.set(self.pool.waiting(), now)

    def _untried(self, tried: Collection[str], now: float) -> list[str]:
        """As many jobs that can start as there are idle workers, without those that were tried in this turn."""
        idle = len(self.pool.idle())
        found = self._state.board.ready(now, idle + len(tried)) if idle else []
        return [key for key in found if key not in tried]

    def _wish(self, key: str, nodes: Mapping[str, str], now: float) -> Wish:
        avoid = self._absence.avoided(self._state.specs[key], now) | self._leftovers.others(key, nodes, now)
        return self._plain_wish(key)._replace(avoid=avoid)

    def _plain_wish(self, key: str) -> Wish:
        if key not in self._wishes:
            spec = self._state.specs[key]
            is_alone = self.resources.pack == "off" or key in self._unpacked
            self._wishes[key] = Wish(self._needs[spec.model.backbone], shape="" if is_alone else pack_shape(spec))
        return self._wishes[key]

    def _note_result(self, result: JobResult) -> None:
        """Note what the end of an attempt means for where the job may run next."""
        self._leftovers.note(result)
        if result.stop_reason is StopReason.WORKER_LOST:
            self._lost_workers[result.job_key] += 1
        is_suspect = self._lost_workers[result.job_key] > 1  # it may be what kills the process of its pack
        if result.stop_reason is StopReason.OUT_OF_MEMORY or result.micro_batches > 1 or is_suspect:
            self._unpacked.add(result.job_key)
            self._wishes.pop(result.job_key, None)

    def _start(self, key: str, worker: int, now: float) -> None:
        """Start an attempt on an idle worker, unless another driver runs the job or has just ended it."""
        state = self._state
        self._lease.renew_if_due(self.clock())  # this machine may have been suspended
        if not self.locks.take_job(key):
            state.check_later(key, now)
            return
        record = self.ledger.add(state.specs[key], self.sweep, now)
        self._lease.renew_if_due(self.clock())  # the store may have kept us waiting
        if not self._is_free(record) or self._settlement.settle_unheard(record):
            self.locks.release_job(key)
            return
        cpus = self._needs[state.specs[key].model.backbone].cpus
        threads = record.threads or scheduler.threads_for(state.board, key, cpus, self.pool.cores or cpus)
        micro_batches = retry_policy.micro_batches_after(record.result, state.specs[key].train.batch_size)
        facts = {"host": here(), "threads": str(threads), "sweep": self.sweep, "micro_batches": str(micro_batches)}
        before = state.attempts.get(key)
        state.attempts[key] = record.attempt + 1
        state.paces[key] = Pace(now)
        state.running[worker] = key  # before the ledger is written, so that the job is requeued whatever fails here
        try:
            for to in _TO_RUNNING[record.state]:
                record = self.ledger.move(key, to, now, facts=facts)
        except IllegalTransition:  # the driver of another machine has moved it in this moment
            del state.running[worker], state.paces[key], state.attempts[key]
            if before is not None:
                state.attempts[key] = before
            self.locks.release_job(key)
            state.check_later(key, now)
            return
        state.set_state(key, _S.RUNNING)
        upstream = state.specs[key].upstream
        upstream_record = self.ledger.get(upstream.key) if upstream else None
        order = work_order(
            state.specs[key], record, upstream_record, self.worker_paths, threads, micro_batches,
            alone=key in self._unpacked,
        )  # fmt: skip
        self.pool.start(worker, order)
        state.at_work.add(worker)

    def _is_free(self, record: JobRecord) -> bool:
        key, now = record.key, self.clock()
        if record.state.has_ended:
            self._state.adopt_end(record)
            return False
        is_held = record.state in (_S.RUNNING, _S.QUEUED) and record.driven_by != self.sweep
        if is_held and self.driver_is_alive(record.driven_by):
            self._state.check_later(key, now)
            return False
        return True

    def _show_if_due(self, now: float) -> None:
        pause = max(SHOW_SECONDS, SHOW_SECONDS_A_JOB * len(self._state.board))
        if self._is_over() or not 0.0 <= now - self._shown_at < pause:  # the clock may be set back
            self._show()
            self._shown_at = now

    def _show(self) -> None:
        state, progress = self._state, self.pool.progress()
        running = tuple((state.title(key), progress.get(worker)) for worker, key in state.running.items())
        left = state.time_left(progress, self.pool.size, self.clock(), self.pool.places)
        paces = {key: pace.epoch_seconds for key, pace in state.paces.items()}
        self._progress.set(state.running_jobs(progress, MOST_JOBS), left, self.clock())
        self.display.show(
            Now(
                done=state.ended,
                total=len(state.board),
                running=running,
                left=left,
                waiting=self._notice.shown,
                cells=state.cells(progress),
                failures=state.failures,
                epoch_seconds={state.title(key): seconds for key, seconds in paces.items() if seconds is not None},
            )
        )
