"""Drives one sweep: hands jobs to slots, writes what became of them, and stops in order when asked."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from orchestrator import scheduler
from orchestrator.claims import Claims
from orchestrator.compare import PlannedJob, PlanStatus
from orchestrator.display import Display, Now
from orchestrator.ledger import Ledger
from orchestrator.pool import Ended, Pool
from orchestrator.records import JobRecord, Lease, here
from orchestrator.scheduler import Entry
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.order import WorkOrder
from schemas.results import CheckpointPointer, JobResult

STAMP_SECONDS = 30.0
POLL_SECONDS = 1.0
ELSEWHERE_SECONDS = 5.0
"""Between two looks at a job that another sweep's driver is running."""

_S = JobState
_TO_RUNNING = {
    _S.QUEUED: (_S.RUNNING,),
    _S.REQUEUED: (_S.QUEUED, _S.RUNNING),
    _S.RUNNING: (_S.REQUEUED, _S.QUEUED, _S.RUNNING),
    _S.FAILED: (_S.REQUEUED, _S.QUEUED, _S.RUNNING),
    _S.CANCELLED: (_S.REQUEUED, _S.QUEUED, _S.RUNNING),
}
"""The moves by which a job comes from where an earlier driver left it to a new attempt."""


@dataclass(frozen=True)
class Premises:
    """Where jobs read and write."""

    tracking_uri: str
    cache_dir: str
    checkpoint_dir: str
    data_root: str | None
    cpus_per_worker: int
    cores: int


@dataclass
class StopRequest:
    """Ctrl-C and SIGTERM: the first asks for an orderly stop, a second one ends everything at once."""

    asked: bool = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._hear) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@dataclass
class Driver:
    sweep: str
    planned: list[PlannedJob]
    ledger: Ledger
    pool: Pool
    claims: Claims
    premises: Premises
    lease: Lease
    display: Display
    clock: Callable[[], float]
    driver_is_alive: Callable[[str], bool]
    stop: StopRequest = field(default_factory=StopRequest)

    def __post_init__(self) -> None:
        self._specs: dict[str, JobSpec] = {job.spec.key: job.spec for job in self.planned}
        self._board: dict[str, Entry] = {job.spec.key: _entry(job) for job in self.planned}
        self._retried = {j.spec.key for j in self.planned if j.will_run and j.record and j.record.state is _S.FAILED}
        self._running: dict[int, str] = {}
        self._durations: list[float] = []
        self._stopping = False

    def run(self) -> None:
        """Until nothing is left that can run, or the user asks to stop. Running jobs never outlive this call."""
        self._requeue_lost()
        try:
            while not self._is_over():
                self._turn()
        finally:
            self.pool.close()
            self._abandon_running()

    def _turn(self) -> None:
        now = self.clock()
        self._stamp(now)
        if self.stop.asked and not self._stopping:
            self._stopping = True
            self.display.say("Stopping: running jobs save what they have. Ctrl-C again ends them at once.")
            self.pool.stop()
        if not self._stopping:
            self._fill_slots(now)
        for ended in self.pool.wait(POLL_SECONDS):
            self._settle(ended)
        self._show()

    def _is_over(self) -> bool:
        return not self._running if self._stopping else scheduler.is_over(self._board)

    def _requeue_lost(self) -> None:
        """What a dead driver left as running is put back before anything else, so that the store tells the truth."""
        for job in self.planned:
            if job.status is PlanStatus.LOST and self.claims.take_job(job.spec.key):
                if self.ledger.get(job.spec.key).state is _S.RUNNING:
                    self.ledger.move(job.spec.key, _S.REQUEUED, self.clock(), reason=StopReason.WORKER_LOST)
                self.claims.release_job(job.spec.key)

    def _fill_slots(self, now: float) -> None:
        free = [slot for slot in range(self.pool.slots) if slot not in self._running]
        waiting = scheduler.ready(self._board, now)
        for key in waiting:
            if not free:
                return
            if self._start(key, free[0], len(waiting), now):
                free.pop(0)

    def _start(self, key: str, slot: int, waiting: int, now: float) -> bool:
        """Begin an attempt, unless another driver has the job or has just ended it."""
        if not self.claims.take_job(key):
            self._look_again(key, now)
            return False
        record = self.ledger.add(self._specs[key], self.sweep, now)
        if not self._is_free(record):
            self.claims.release_job(key)
            return False
        threads = scheduler.threads_for(waiting, len(self._running), self.premises.cpus_per_worker, self.premises.cores)
        facts = {"host": here(), "threads": str(threads), "sweep": self.sweep}
        for state in _TO_RUNNING[record.state]:
            record = self.ledger.move(key, state, now, facts=facts)
        self._board[key] = replace(self._board[key], state=_S.RUNNING)
        self._running[slot] = key
        self.pool.start(slot, self._order(record, threads))
        return True

    def _is_free(self, record: JobRecord) -> bool:
        key, now = record.key, self.clock()
        if record.state is _S.SUCCEEDED or (record.state is _S.FAILED and not self._may_retry(key)):
            self._board[key] = replace(self._board[key], state=record.state)
            return False
        held = record.state in (_S.RUNNING, _S.QUEUED) and record.driven_by != self.sweep
        if held and self.driver_is_alive(record.driven_by):
            self._look_again(key, now)
            return False
        return True

    def _may_retry(self, key: str) -> bool:
        return key in self._retried

    def _look_again(self, key: str, now: float) -> None:
        self._board[key] = replace(self._board[key], not_before=now + ELSEWHERE_SECONDS)

    def _order(self, record: JobRecord, threads: int) -> WorkOrder:
        spec = self._specs[record.key]
        return WorkOrder(
            spec=spec,
            run_id=record.run_id,
            attempt=record.attempt,
            tracking_uri=self.premises.tracking_uri,
            cache_dir=self.premises.cache_dir,
            checkpoint_dir=self.premises.checkpoint_dir,
            data_root=self.premises.data_root,
            upstream=self._upstream_checkpoint(spec),
            threads=threads,
        )

    def _upstream_checkpoint(self, spec: JobSpec) -> CheckpointPointer | None:
        if spec.upstream is None:
            return None
        result = self.ledger.get(spec.upstream.key).result
        return result.checkpoint if result else None

    def _settle(self, ended: Ended) -> None:
        key = self._running.pop(ended.slot)
        now, result = self.clock(), ended.result
        move = scheduler.next_move(self._board[key], result.stop_reason, now)
        record = self.ledger.move(key, move.to, now, reason=move.reason, result=result)
        self._board[key] = scheduler.after(self._board[key], move)
        self.claims.release_job(key)
        if move.to is _S.SUCCEEDED:
            self._durations.append(result.seconds)
        self.display.say(f"[{self._done()}/{len(self._board)}] {_line(record, result)}")

    def _abandon_running(self) -> None:
        """After an end at once: no job stays running in the store when nobody runs it."""
        for key in self._running.values():
            self.ledger.move(key, _S.REQUEUED, self.clock(), reason=StopReason.INTERRUPTED)
            self.claims.release_job(key)
        self._running.clear()

    def _stamp(self, now: float) -> None:
        if now - self.lease.sign_at >= STAMP_SECONDS:
            self.lease = self.lease.model_copy(update={"sign_at": now})
            self.ledger.stamp(self.sweep, self.lease)

    def _done(self) -> int:
        return sum(entry.state in (_S.SUCCEEDED, _S.FAILED) for entry in self._board.values())

    def _show(self) -> None:
        words = self.pool.progress()
        running = tuple((self._specs[key].title, words.get(slot)) for slot, key in self._running.items())
        left = len(self._board) - self._done() - len(scheduler.blocked(self._board))
        seconds = scheduler.seconds_left(self._durations, left, self.pool.slots)
        self.display.show(Now(self._done(), len(self._board), running, seconds))


def _entry(job: PlannedJob) -> Entry:
    upstream = job.spec.upstream
    state = {PlanStatus.DONE: _S.SUCCEEDED, PlanStatus.FAILED: _S.FAILED, PlanStatus.CANCELLED: _S.CANCELLED}
    return Entry(job.spec.key, state.get(job.status, _S.QUEUED), upstream.key if upstream else None)


def _line(record: JobRecord, result: JobResult) -> str:
    metrics = result.metrics
    if record.state is _S.SUCCEEDED and metrics is not None:
        measured = metrics.location_instability
        tail = "" if measured is None else f", location instability {measured:.4f}"
        return f"{record.title}: accuracy {metrics.test_accuracy:.3f}{tail} ({result.seconds:.0f} s)"
    again = (
        ", will be tried again"
        if record.state is _S.REQUEUED and result.stop_reason is not StopReason.INTERRUPTED
        else ""
    )
    return f"{record.title}: {record.failure or result.stop_reason}{again}"
