"""Whether and why a driver is stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.execution import circuit_breaker
from orchestrator.execution.circuit_breaker import FIRST_ATTEMPTS, Stop
from orchestrator.execution.pool import WorkerPool
from orchestrator.execution.stop_request import StopRequest
from schemas.errors import AccessDenied, DiskFull, StoreError
from schemas.results import Failure


@dataclass
class Shutdown:
    """The decision to stop a sweep in order: by request, by a common failure, by a full disk, or if the store is lost
    or refuses a worker.

    The first cause counts. Once the driver is stopping, running jobs save a checkpoint and no job is started.
    """

    sweep: str
    request: StopRequest
    pool: WorkerPool
    say: Callable[[str], None]
    """Shows a line to the user."""
    resume: str
    """The command that continues the sweep."""
    is_stopping: bool = False
    paused_by: str = ""
    """The failure that the first jobs share, if that is why the driver is stopping."""
    _error: StoreError | None = None
    """The error to end the sweep with, if a job's failure is why the driver is stopping."""
    _stops: list[Stop] = field(default_factory=list)

    def check_request(self) -> None:
        """Stop if the user has asked for it."""
        if self.request.asked:
            self._begin("Stopping: running jobs save a checkpoint. Press Ctrl-C again to end them at once.")

    def check_failures(self, stop: Stop, is_over: bool) -> None:
        """Stop if the first jobs all fail alike.

        Args:
            stop: The attempt that has just ended.
            is_over: Whether the sweep has nothing left to run.
        """
        if stop.is_telling and len(self._stops) < FIRST_ATTEMPTS:  # later ones change nothing
            self._stops.append(stop)
        cause = circuit_breaker.common_cause(self._stops)
        if cause is None or is_over or self.is_stopping:
            return
        self.paused_by = f"{cause.failure or cause.reason} (fingerprint {cause.fingerprint})"
        self._begin(f"Pausing: the first jobs all fail alike. {self.paused_by}")

    def disk_is_full(self, failure: Failure | None) -> None:
        """Stop because a job found a full disk; every further job would fill it again and end likewise.

        Args:
            failure: The job's failure; its message names the disk.
        """
        if not self.is_stopping:
            found = failure.message if failure else "The worker did not report which disk."
            self._error = DiskFull(
                f"Sweep {self.sweep} was stopped because a disk is full. {found} "
                f"Make room there, then run: {self.resume}"
            )
            self._begin("A disk is full. Stopping: running jobs save what they can.")

    def access_is_denied(self, failure: Failure | None) -> None:
        """Stop because the store refused a worker's credentials, which retries do not change.

        Args:
            failure: The job's failure; its message names the machine, and where the credentials belong.
        """
        if not self.is_stopping:
            found = failure.message if failure else "The worker did not report why."
            self._error = AccessDenied(
                f"Sweep {self.sweep} was stopped because a worker has no access to the store. {found} "
                f"Then run: {self.resume}"
            )
            self._begin("The store refuses a worker's credentials. Stopping: running jobs save a checkpoint.")

    def store_is_lost(self) -> None:
        """Stop because the ledger cannot be used. The caller re-raises the ledger's error."""
        self.is_stopping = True
        self.pool.stop()
        self.say("The store cannot be used. Stopping: running jobs save a checkpoint.")

    def raise_error(self) -> None:
        """Raise the error of a sweep that stopped because of a full disk or refused credentials.

        Raises:
            DiskFull: A full disk is why the driver has stopped.
            AccessDenied: The store refused a worker's credentials.
        """
        if self._error is not None:
            raise self._error

    def _begin(self, message: str) -> None:
        if not self.is_stopping:
            self.is_stopping = True
            self.pool.stop()
            self.say(message)
