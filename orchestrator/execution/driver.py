"""Drives one sweep: hands jobs to slots, writes what became of them, and stops in order when asked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from orchestrator.execution import scheduler
from orchestrator.execution.cancel import cancel_waiting
from orchestrator.execution.pool import Ended, WorkerPool
from orchestrator.execution.progress import Display, Now
from orchestrator.execution.scheduler import QueueEntry, Stop
from orchestrator.execution.stop_request import StopRequest
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.lease import Lease, here
from orchestrator.ledger.locks import Locks, check_claim, renew
from orchestrator.ledger.records import ControlRequest, JobRecord
from orchestrator.planning.diff import PlannedJob, PlanStatus
from schemas.errors import DiskFull, StoreError, SweepBusy
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.order import WorkOrder
from schemas.results import Failure, JobResult

STAMP_SECONDS = 30.0
POLL_SECONDS = 1.0
WISH_SECONDS = 1.0
"""Between two looks at what people ask of this sweep."""
DRAIN_SECONDS = 180.0
"""How long running jobs may take to save what they have when the store is gone."""
ELSEWHERE_SECONDS = 5.0
"""Between two looks at a job that another sweep's driver is running."""

_S = JobState
_TO_RUNNING = {
    _S.QUEUED: (_S.RUNNING,),
    _S.REQUEUED: (_S.QUEUED, _S.RUNNING),
    _S.RUNNING: (_S.REQUEUED, _S.QUEUED, _S.RUNNING),
}
"""The moves by which a job comes from where an earlier driver left it to a new attempt."""


@dataclass(frozen=True)
class WorkerPaths:
    """Where jobs read and write."""

    tracking_uri: str
    cache_dir: str
    checkpoint_dir: str
    log_dir: str
    data_root: str | None
    cpus_per_worker: int
    cores: int
    store_patience: float = 600.0
    """Seconds."""


@dataclass
class Driver:
    sweep: str
    planned: list[PlannedJob]
    ledger: Ledger
    pool: WorkerPool
    locks: Locks
    worker_paths: WorkerPaths
    lease: Lease
    display: Display
    clock: Callable[[], float]
    driver_is_alive: Callable[[str], bool]
    stop: StopRequest = field(default_factory=StopRequest)

    def __post_init__(self) -> None:
        self._specs: dict[str, JobSpec] = {job.spec.key: job.spec for job in self.planned}
        self._board: dict[str, QueueEntry] = {job.spec.key: _entry(job) for job in self.planned}
        self._running: dict[int, str] = {}
        self._attempts: dict[str, int] = {}
        """Which attempt of a job is, or was last, this driver's."""
        self._cancelling: dict[str, StopReason] = {}
        self._next_look = 0.0
        self._at_work: set[int] = set()
        self._unsettled: list[Ended] = []
        self._stops: list[Stop] = []
        self._durations: list[float] = []
        self._stopping = False
        self._full_disk: str | None = None
        """What the first job that found no room on a disk said of it."""
        self.paused_by = ""
        """What made the driver stop by itself: the failure that the first jobs share."""

    @property
    def begun(self) -> int:
        """Jobs of which this driver began an attempt."""
        return len(self._attempts)

    def run(self) -> None:
        """Until nothing is left that can run, or the user asks to stop. Running jobs never outlive this call."""
        with ExitStack() as at_the_end:  # each step is taken, whatever becomes of the others
            for step in reversed((self._sign, self.pool.close, self._sign, self._abandon_running)):
                at_the_end.callback(step)
            try:
                self.lease = renew(self.ledger, self.sweep, self.lease, self.clock())  # the workers took time to start
                self._requeue_lost()
                while not self._is_over():
                    self._turn()
            except StoreError:
                self._stop_without_store()
                raise
        self._raise_if_full()

    def _turn(self) -> None:
        now = self.clock()
        self._stamp(now)
        self._heed(now)
        if self.stop.asked and not self._stopping:
            self._stopping = True
            self.pool.stop()
            self.display.say("Stopping: running jobs save what they have. From now on Ctrl-C ends them at once.")
        if not self._stopping:
            self._fill_slots(now)
        self._listen()
        self._settle_ended()
        self._show()

    def _listen(self) -> None:
        ended = self.pool.wait(POLL_SECONDS)
        self._at_work -= {one.slot for one in ended}
        self._unsettled += ended

    def _settle_ended(self) -> None:
        while self._unsettled:
            self._settle(self._unsettled[0])
            del self._unsettled[0]

    def _stop_without_store(self) -> None:
        """The store is away for too long or unusable: let running jobs save what they have, and write down what can be.

        A job of which nothing could be written is found by the next driver as lost, and goes on from its checkpoint.
        """
        self.pool.stop()
        self.display.say("The store cannot be used. Stopping: running jobs save what they have.")
        until = self.clock() + DRAIN_SECONDS
        while self._at_work and self.clock() < until:
            self._listen()
        with suppress(StoreError):
            self._settle_ended()

    def _heed(self, now: float) -> None:
        """Do what people have asked of this sweep since the last look."""
        if now < self._next_look:
            return
        self._next_look = now + WISH_SECONDS
        for request in self.ledger.requests(self.sweep):
            if request.at >= self.lease.since:  # an older one was meant for a driver that is gone
                self._apply(request, now)
            self.ledger.answer(self.sweep, request)

    def _apply(self, request: ControlRequest, now: float) -> None:
        if request.kind == "pause":
            self.display.say("Somebody typed `orch pause`.")
            self.stop.asked = True
        elif request.keys:
            self._cancel([key for key in request.keys if key in self._board], StopReason.CANCELLED_BY_USER, now)
        else:
            self._cancel(list(self._board), StopReason.SWEEP_CANCELLED, now)
            self.stop.asked = True

    def _cancel(self, keys: list[str], reason: StopReason, now: float) -> None:
        slots = {key: slot for slot, key in self._running.items() if key in keys}
        for key, slot in slots.items():
            self._cancelling[key] = reason
            self.pool.interrupt(slot)
        waiting = [key for key in keys if self._board[key].state in (_S.QUEUED, _S.REQUEUED)]
        done = cancel_waiting(
            self.ledger, self.locks, [self._specs[key] for key in waiting], self.sweep, reason, now,
            self.driver_is_alive, even_new=reason is StopReason.CANCELLED_BY_USER,
        )  # fmt: skip
        for key in waiting:
            if self._specs[key].title in done.elsewhere:
                self._look_again(key, now)
            else:
                self._board[key] = replace(self._board[key], state=_S.CANCELLED)
        new = f"; {done.never_begun} not begun, and stay so" if done.never_begun else ""
        self.display.say(f"Cancelled by the user: {len(done.cancelled)} waiting and {len(slots)} running jobs{new}.")

    def _is_over(self) -> bool:
        return not self._running if self._stopping else scheduler.is_over(self._board)

    def _requeue_lost(self) -> None:
        """What a dead driver left as running is put back before anything else, so that the store tells the truth."""
        for job in self.planned:
            if job.status is PlanStatus.LOST and self.locks.take_job(job.spec.key):
                now = self.ledger.get(job.spec.key)
                if now.state is _S.RUNNING and job.record is not None and now.attempt == job.record.attempt:
                    self.ledger.move(job.spec.key, _S.REQUEUED, self.clock(), reason=StopReason.WORKER_LOST)
                self.locks.release_job(job.spec.key)

    def _fill_slots(self, now: float) -> None:
        free = [slot for slot in range(self.pool.slots) if slot not in self._running]
        for key in scheduler.ready(self._board, now):
            if not free:
                return
            if self._start(key, free[0], now):
                free.pop(0)

    def _start(self, key: str, slot: int, now: float) -> bool:
        """Begin an attempt, unless another driver has the job or has just ended it."""
        self._stamp(self.clock())  # should this process have slept meanwhile
        if not self.locks.take_job(key):
            self._look_again(key, now)
            return False
        record = self.ledger.add(self._specs[key], self.sweep, now)
        self._stamp(self.clock())  # or have waited for the store
        if not self._is_free(record):
            self.locks.release_job(key)
            return False
        threads = record.threads or scheduler.threads_for(
            self._board, key, self.worker_paths.cpus_per_worker, self.worker_paths.cores
        )
        parts = scheduler.micro_batches_after(record.result, self._specs[key].train.batch_size)
        facts = {"host": here(), "threads": str(threads), "sweep": self.sweep, "micro_batches": str(parts)}
        self._attempts[key] = record.attempt + 1
        self._running[slot] = key  # before the ledger says so: whatever breaks in here, the job is put back
        for state in _TO_RUNNING[record.state]:
            record = self.ledger.move(key, state, now, facts=facts)
        self._board[key] = replace(self._board[key], state=_S.RUNNING)
        self.pool.start(slot, self._order(record, threads, parts))
        self._at_work.add(slot)
        return True

    def _is_free(self, record: JobRecord) -> bool:
        key, now = record.key, self.clock()
        if record.state.has_ended:
            self._board[key] = replace(self._board[key], state=record.state)
            return False
        held = record.state in (_S.RUNNING, _S.QUEUED) and record.driven_by != self.sweep
        if held and self.driver_is_alive(record.driven_by):
            self._look_again(key, now)
            return False
        return True

    def _look_again(self, key: str, now: float) -> None:
        self._board[key] = replace(self._board[key], not_before=now + ELSEWHERE_SECONDS)

    def _order(self, record: JobRecord, threads: int, parts: int) -> WorkOrder:
        spec = self._specs[record.key]
        upstream = self.ledger.get(spec.upstream.key) if spec.upstream else None
        return WorkOrder(
            spec=spec,
            run_id=record.run_id,
            attempt=record.attempt,
            tracking_uri=self.worker_paths.tracking_uri,
            cache_dir=self.worker_paths.cache_dir,
            checkpoint_dir=self.worker_paths.checkpoint_dir,
            log_dir=self.worker_paths.log_dir,
            data_root=self.worker_paths.data_root,
            upstream=upstream.result.checkpoint if upstream and upstream.result else None,
            upstream_run_id=upstream.run_id if upstream else "",
            threads=threads,
            micro_batches=parts,
            store_patience=self.worker_paths.store_patience,
        )

    def _settle(self, ended: Ended) -> None:
        key = self._running[ended.slot]
        current = self.ledger.get(key)
        if (current.state, current.attempt, current.driven_by) != (_S.RUNNING, ended.result.attempt, self.sweep):
            self._let_go(ended.slot, current)
            return
        now, result = self.clock(), scheduler.as_cancelled(ended.result, self._cancelling.get(key))
        move = scheduler.next_move(self._board[key], result.stop_reason, now)
        record = self.ledger.move(key, move.to, now, reason=move.reason, result=result)
        del self._running[ended.slot]
        self._board[key] = scheduler.after(self._board[key], move)
        self.locks.release_job(key)
        if move.to is _S.SUCCEEDED:
            self._durations.append(result.seconds)
        self.display.say(f"[{self._done()}/{len(self._board)}] {_line(record, result)}")
        mark = result.failure.fingerprint if result.failure else ""
        self._stops.append(Stop(key, result.stop_reason, mark, record.failure))
        self._break_if_all_fail_alike()
        if result.stop_reason is StopReason.DISK_FULL:
            self._stop_for_want_of_room(result.failure)

    def _let_go(self, slot: int, current: JobRecord) -> None:
        """Another driver has taken the job over from this one, which then has nothing to say of it."""
        key = current.key
        del self._running[slot]
        self.locks.release_job(key)
        self._board[key] = replace(self._board[key], state=_S.QUEUED, not_before=self.clock() + ELSEWHERE_SECONDS)
        self.display.say(f"{current.title}: no longer this driver's; the store has it as {current.state}.")

    def _break_if_all_fail_alike(self) -> None:
        cause = scheduler.common_cause(self._stops)
        if cause is None or self._stopping or scheduler.is_over(self._board):
            return
        self._stopping = True
        self.paused_by = f"{cause.failure or cause.reason} (fingerprint {cause.fingerprint})"
        self.pool.stop()
        self.display.say(f"Pausing: the first jobs all fail alike. {self.paused_by}")

    def _stop_for_want_of_room(self, failure: Failure | None) -> None:
        """Whatever ran next would end likewise, and each try would fill what little room is left."""
        if self._stopping:
            return
        self._stopping, self._full_disk = True, failure.message if failure else "Its worker does not say which."
        self.pool.stop()
        self.display.say("A disk is full. Stopping: running jobs save what they can.")

    def _raise_if_full(self) -> None:
        """
        Raises:
            DiskFull: that is why the sweep stopped.
        """
        if self._full_disk is not None:
            raise DiskFull(
                f"Sweep {self.sweep} was stopped in order because a disk is full. {self._full_disk} "
                f"Go on with: orch resume {self.sweep}"
            )

    def _abandon_running(self) -> None:
        """After an end at once: no job stays running in the store when nobody runs it."""
        for slot, key in list(self._running.items()):
            with suppress(StoreError, SweepBusy):
                check_claim(self.ledger, self.sweep, self.lease)
                self._abandon(key)
            self.locks.release_job(key)
            del self._running[slot]

    def _abandon(self, key: str) -> None:
        record = self.ledger.get(key)
        if record.state is _S.RUNNING and record.attempt == self._attempts[key]:
            cancelled = self._cancelling.get(key)
            to = _S.CANCELLED if cancelled else _S.REQUEUED
            self.ledger.move(key, to, self.clock(), reason=cancelled or StopReason.INTERRUPTED)

    def _stamp(self, now: float) -> None:
        if now - self.lease.sign_at >= STAMP_SECONDS:
            self.lease = renew(self.ledger, self.sweep, self.lease, now)

    def _sign(self) -> None:
        """Stamp out of turn, before and after what may take as long as a lease."""
        with suppress(StoreError, SweepBusy):
            self.lease = renew(self.ledger, self.sweep, self.lease, self.clock())

    def _done(self) -> int:
        return sum(entry.state in (_S.SUCCEEDED, _S.FAILED) for entry in self._board.values())

    def _show(self) -> None:
        words = self.pool.progress()
        running = tuple((self._specs[key].title, words.get(slot)) for slot, key in self._running.items())
        left = len(self._board) - self._done() - len(scheduler.blocked(self._board))
        seconds = scheduler.seconds_left(self._durations, left, self.pool.slots)
        self.display.show(Now(self._done(), len(self._board), running, seconds))


def _entry(job: PlannedJob) -> QueueEntry:
    upstream = job.spec.upstream
    state = {PlanStatus.DONE: _S.SUCCEEDED, PlanStatus.FAILED: _S.FAILED, PlanStatus.CANCELLED: _S.CANCELLED}
    return QueueEntry(job.spec.key, state.get(job.status, _S.QUEUED), upstream.key if upstream else None)


def _line(record: JobRecord, result: JobResult) -> str:
    metrics = result.metrics
    if record.state is _S.SUCCEEDED and metrics is not None:
        measured = metrics.location_instability
        tail = "" if measured is None else f", location instability {measured:.4f}"
        return f"{record.title}: accuracy {metrics.test_accuracy:.3f}{tail} ({result.seconds:.0f} s)"
    if record.state is _S.CANCELLED:
        return f"{record.title}: cancelled"
    why = record.failure.rstrip(".") or str(result.stop_reason)
    is_retried = record.state is _S.REQUEUED and result.stop_reason not in scheduler.WITH_SWEEP
    return f"{record.title}: {why}{'; it will be tried again' if is_retried else ''}"
