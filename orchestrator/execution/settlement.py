"""What a driver records when an attempt ends, and when it abandons one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from orchestrator.execution import scheduler
from orchestrator.execution.pool import Ended
from orchestrator.execution.scheduler import Stop
from orchestrator.execution.shutdown import Shutdown
from orchestrator.execution.sweep_state import ELSEWHERE_SECONDS, SweepState
from orchestrator.ledger.base import LedgerWriter
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import JobRecord
from schemas.errors import StoreError, SweepBusy
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult

_S = JobState


@dataclass
class Settlement:
    """Moves jobs in the ledger when their attempts end, and frees their slots."""

    sweep: str
    state: SweepState
    ledger: LedgerWriter
    locks: Locks
    shutdown: Shutdown
    say: Callable[[str], None]
    """Shows a line to the user."""
    clock: Callable[[], float]

    def settle(self, ended: Ended) -> None:
        """Record the end of an attempt. May be called again after a `StoreUnreachable`.

        Args:
            ended: The attempt's slot and result.

        Raises:
            StoreError: The ledger cannot be written; the slot stays taken.
        """
        state = self.state
        key = state.running[ended.slot]
        current = self.ledger.get(key)
        if (current.state, current.attempt, current.driven_by) != (_S.RUNNING, ended.result.attempt, self.sweep):
            self._give_up(ended.slot, current)
            return
        now, result = self.clock(), scheduler.as_cancelled(ended.result, state.cancelling.get(key))
        move = scheduler.next_move(state.board[key], result.stop_reason, now)
        record = self.ledger.move(key, move.to, now, reason=move.reason, result=result)
        del state.running[ended.slot]
        state.board[key] = scheduler.after(state.board[key], move)
        self.locks.release_job(key)
        state.paces.pop(key, None)
        if move.to is _S.SUCCEEDED and result.attempt == 1:  # a later attempt goes on from a checkpoint
            state.finished.add(state.kinds[key], result.seconds)
        self.say(f"[{state.ended}/{len(state.board)}] {_line(record, result)}")
        fingerprint = result.failure.fingerprint if result.failure else ""
        stop = Stop(key, result.stop_reason, fingerprint, record.failure)
        self.shutdown.check_failures(stop, scheduler.is_over(state.board))
        if result.stop_reason is StopReason.DISK_FULL:
            self.shutdown.disk_is_full(result.failure)

    def _give_up(self, slot: int, current: JobRecord) -> None:
        """Drop the result of an attempt whose job another driver has taken over."""
        key = current.key
        del self.state.running[slot]
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
        for slot, key in list(self.state.running.items()):
            with suppress(StoreError, SweepBusy):
                check_claim()
                self._abandon(key)
            self.locks.release_job(key)
            del self.state.running[slot]

    def _abandon(self, key: str) -> None:
        record = self.ledger.get(key)
        if record.state is _S.RUNNING and record.attempt == self.state.attempts[key]:
            cancelled = self.state.cancelling.get(key)
            to = _S.CANCELLED if cancelled else _S.REQUEUED
            self.ledger.move(key, to, self.clock(), reason=cancelled or StopReason.INTERRUPTED)


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
    return f"{record.title}: {why}{'; it will be retried' if is_retried else ''}"
