"""How a driver carries out `orch pause` and `orch cancel`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.execution.cancel import cancel_waiting
from orchestrator.execution.pool import WorkerPool
from orchestrator.execution.stop_request import StopRequest
from orchestrator.execution.sweep_state import SweepState
from orchestrator.ledger.base import LedgerWriter
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import ControlRequest
from schemas.lifecycle import JobState, StopReason

REQUEST_SECONDS = 1.0
"""Time between two polls for requests."""


@dataclass
class RequestHandler:
    """Polls the ledger for requests to a sweep's driver and carries them out."""

    sweep: str
    state: SweepState
    ledger: LedgerWriter
    pool: WorkerPool
    locks: Locks
    stop: StopRequest
    say: Callable[[str], None]
    """Shows a line to the user."""
    driver_is_alive: Callable[[str], bool]
    """Returns whether the sweep with a given name has a live driver."""
    since: float
    """Unix seconds at which this driver started; older requests were meant for an earlier driver and are dropped."""
    _next_poll: float = 0.0

    def poll(self, now: float) -> None:
        """Carry out what was requested since the last poll, if one is due."""
        if now < self._next_poll:
            return
        self._next_poll = now + REQUEST_SECONDS
        for request in self.ledger.pending_requests(self.sweep):
            if request.at >= self.since:
                self._apply(request, now)
            self.ledger.remove_request(self.sweep, request)

    def _apply(self, request: ControlRequest, now: float) -> None:
        if request.kind == "pause":
            self.say("`orch pause` was requested.")
            self.stop.asked = True
        elif request.keys:
            self._cancel([key for key in request.keys if key in self.state.board], StopReason.CANCELLED_BY_USER, now)
        else:
            self._cancel(list(self.state.board), StopReason.SWEEP_CANCELLED, now)
            self.stop.asked = True

    def _cancel(self, keys: list[str], reason: StopReason, now: float) -> None:
        state = self.state
        wanted = set(keys)
        slots = {key: slot for slot, key in state.running.items() if key in wanted}
        for key, slot in slots.items():
            state.cancelling[key] = reason
            self.pool.interrupt(slot)
        waiting = [key for key in keys if state.board[key].state in (JobState.QUEUED, JobState.REQUEUED)]
        done = cancel_waiting(
            self.ledger, self.locks, [state.specs[key] for key in waiting], self.sweep, reason, now,
            self.driver_is_alive, even_new=reason is StopReason.CANCELLED_BY_USER,
        )  # fmt: skip
        ended = {key: record for key, record in self.ledger.jobs(waiting).items() if record.state.has_ended}
        for key in waiting:
            if key in ended:  # cancelled now, or ended by another sweep before
                state.adopt_end(ended[key])
            elif state.specs[key].title in done.elsewhere:
                state.check_later(key, now)
            else:
                state.set_state(key, JobState.CANCELLED)
        new = f"; {done.never_begun} jobs were never started" if done.never_begun else ""
        self.say(f"Cancelled by the user: {len(done.cancelled)} waiting and {len(slots)} running jobs{new}.")
