"""What a driver records when an attempt ends, and when it abandons one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from orchestrator.execution import retry_policy
from orchestrator.execution.circuit_breaker import Stop
from orchestrator.execution.pool import Ended
from orchestrator.execution.shutdown import Shutdown
from orchestrator.execution.sweep_state import ELSEWHERE_SECONDS, SweepState
from orchestrator.execution.unheard import FindEnd
from orchestrator.ledger.base import LedgerWriter
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import JobRecord
from schemas.errors import IllegalTransition, StoreError, SweepBusy
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult

_S = JobState
UNREPORTED = frozenset({StopReason.WORKER_LOST, StopReason.NODE_LOST, StopReason.PREEMPTED})
"""Reasons that Ray gives for a worker that did not report its end itself."""


@dataclass
class Settlement:
    """Moves jobs in the ledger when their attempts end, and frees their workers."""

    sweep: str
    state: SweepState
    ledger: LedgerWriter
    locks: Locks
    shutdown: Shutdown
    say: Callable[[str], None]
    """Shows a line to the user."""
    clock: Callable[[], float]
    find_end: FindEnd
    """Finds the end of an attempt whose worker could not tell it."""
    waits_for_data: bool = False
    """Whether a job waits, without using up a budget, for a machine that has its data."""

    def settle(self, ended: Ended) -> None:
        """Record the end of an attempt. May be called again after a `StoreUnreachable`.

        Args:
            ended: The attempt's worker and result.

        Raises:
            StoreError: The ledger cannot be written; the worker stays taken.
        """
        state = self.state
        key = state.running[ended.worker]
        current = self.ledger.get(key)
        if (current.state, current.attempt, current.driven_by) != (_S.RUNNING, ended.result.attempt, self.sweep):
            self._give_up(ended.worker, current)
            return
        reported = ended.result
        if reported.stop_reason in UNREPORTED and not ended.is_told:
            reported = self.find_end(current) or reported
        result = retry_policy.as_cancelled(reported, state.cancelling.get(key))
        try:
            record = self._record(key, result)
        except IllegalTransition:  # the driver of another machine has moved it in this moment
            self._give_up(ended.worker, self.ledger.get(key))
            return
        del state.running[ended.worker]
        self.locks.release_job(key)
        state.paces.pop(key, None)
        if record.state is _S.SUCCEEDED and result.attempt == 1:  # a later attempt goes on from a checkpoint
            state.finished.add(state.kinds[key], result.seconds)
        self._say_end(record, result)
        fingerprint = result.failure.fingerprint if result.failure else ""
        stop = Stop(key, result.stop_reason, fingerprint, record.failure)
        self.shutdown.check_failures(stop, state.board.is_over)
        if result.stop_reason is StopReason.DISK_FULL:
            self.shutdown.disk_is_full(result.failure)
        if result.stop_reason is StopReason.ACCESS_DENIED:
            self.shutdown.access_is_denied(result.failure)

    def settle_unheard(self, current: JobRecord) -> bool:
        """Record the end of an attempt whose driver died before it heard of it. Returns False if there is none.

        If the driver of another machine was faster, the job is looked at again later.

        Args:
            current: The job, with its lock held.

        Raises:
            StoreError: The ledger cannot be written.
        """
        result = self.find_end(current) if current.state is _S.RUNNING else None
        if result is None:
            return False
        try:
            self._say_end(self._record(current.key, result), result)
        except IllegalTransition:
            self.state.check_later(current.key, self.clock())
        return True

    def _record(self, key: str, result: JobResult) -> JobRecord:
        now = self.clock()
        if result.stop_reason is StopReason.DATA_ABSENT and self.waits_for_data:
            move = retry_policy.Move(_S.REQUEUED, result.stop_reason)
        else:
            move = retry_policy.next_move(self.state.board[key], result.stop_reason, now)
        record = self.ledger.move(key, move.to, now, reason=move.reason, result=result)
        self.state.board[key] = retry_policy.after(self.state.board[key], move)
        self.state.note_end(record)
        return record

    def _say_end(self, record: JobRecord, result: JobResult) -> None:
        self.say(f"[{self.state.ended}/{len(self.state.board)}] {_line(record, result)}")

    def _give_up(self, worker: int, current: JobRecord) -> None:
        """Drop the result of an attempt whose job another driver has taken over."""
        key = current.key
        del self.state.running[worker]
        self.locks.release_job(key)
        self.state.board[key] = replace(
            self.state.board[key], state=_S.QUEUED, not_before=self.clock() + ELSEWHERE_SECONDS
        )
        self.say(f"{current.title}: another driver has taken the job over; its state in the store is {current.state}.")

    def abandon_running(self, check_claim: Callable[[], None]) -> None:
        """Requeue the jobs whose attempts were killed, so that none stays running in the store without a driver.

        Args:
            check_claim: Raises SweepBusy if another driver holds the sweep; its jobs are left alone.
        """
        for worker, key in list(self.state.running.items()):
            with suppress(StoreError, SweepBusy, IllegalTransition):
                check_claim()
                self._abandon(key)
            self.locks.release_job(key)
            del self.state.running[worker]

    def _abandon(self, key: str) -> None:
        record = self.ledger.get(key)
        if record.state is _S.RUNNING and record.attempt == self.state.attempts[key]:
            result = self.find_end(record)
            if result is not None and result.stop_reason is StopReason.FINISHED:
                self._record(key, result)
                return
            cancelled = self.state.cancelling.get(key)
            to = _S.CANCELLED if cancelled else _S.REQUEUED
            self.ledger.move(key, to, self.clock(), reason=cancelled or StopReason.INTERRUPTED)


def _line(record: JobRecord, result: JobResult) -> str:
    metrics = result.metrics
    if record.state is _S.SUCCEEDED and metrics is not None:
        measured = metrics.location_instability
        tail = "" if measured is None else f", location instability {measured:.4f}"
        return f"{record.title}: accuracy {metrics.accuracy_text}{tail} ({result.seconds:.0f} s)"
    if record.state is _S.CANCELLED:
        return f"{record.title}: cancelled"
    why = record.failure.rstrip(".") or str(result.stop_reason)
    is_retried = record.state is _S.REQUEUED and result.stop_reason not in retry_policy.WITH_SWEEP
    return f"{record.title}: {why}{'; it will be retried' if is_retried else ''}"
