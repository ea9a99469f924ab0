"""The contract of every ledger, as three protocols: reading it, driving a sweep with it, repairing it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal, Protocol

from orchestrator.ledger.lease import Lease
from orchestrator.ledger.records import (
    ControlRequest,
    JobRecord,
    JobRun,
    Standing,
    StoredPlan,
    SweepEntry,
    SweepProgress,
    SweepRecord,
    Waiting,
)
from schemas.base import did_you_mean
from schemas.errors import StoreError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""MLflow's status of a sweep that ended: all jobs succeeded, some did not, or the user stopped it."""

RUN_STATUS = {
    JobState.PLANNED: "SCHEDULED",
    JobState.QUEUED: "SCHEDULED",
    JobState.REQUEUED: "SCHEDULED",
    JobState.RUNNING: "RUNNING",
    JobState.SUCCEEDED: "FINISHED",
    JobState.FAILED: "FAILED",
    JobState.CANCELLED: "KILLED",
}
"""MLflow's run status for each job state."""


class LedgerReader(Protocol):
    """Read access to jobs and sweeps.

    Reads need no lock and change nothing. Any number of processes may read while a driver writes. A single read is
    consistent per run, but two reads are two snapshots: jobs may move in between.

    Thread safety: one ledger object belongs to one thread. Open one per thread.

    Every method of this and the following protocols may raise `StoreUnreachable` when the store does not answer now,
    and `StoreError` when it cannot be used. Every method may be called again after `StoreUnreachable`.
    """

    def jobs(self, keys: Collection[str] | None = None) -> dict[str, JobRecord]:
        """Read jobs in bulk.

        Args:
            keys: Keys of the wanted jobs; None for all.

        Returns:
            Records by key. Keys without a record are left out.

        Raises:
            StoreError: A run of a job cannot be read.
        """

    def standings(self) -> dict[str, Standing]:
        """Return the standing of every job by key, which takes less time and memory than `jobs`.

        Raises:
            StoreError: A run of a job cannot be read.
        """

    def sweep(self, name: str) -> SweepRecord | None:
        """Return a sweep, or None if no sweep has that name.

        Raises:
            StoreError: The sweep's tags cannot be read.
        """

    def sweeps(self) -> list[SweepRecord]:
        """Return all sweeps, newest first.

        Raises:
            StoreError: The tags of a sweep cannot be read.
        """


class _JobMover(LedgerReader, Protocol):
    def get(self, key: str) -> JobRecord:
        """Read one job.

        Raises:
            StoreError: The store has no job with that key.
        """

    def move(
        self,
        key: str,
        to: JobState,
        now: float,
        *,
        reason: StopReason | None = None,
        result: JobResult | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> JobRecord:
        """Change a job's state. A repeated call with the same `now` changes nothing.

        Args:
            key: The job.
            to: Its new state. A move to RUNNING begins the next attempt.
            now: Unix seconds of the move; they also identify it when it is repeated.
            reason: Why the job stopped; None clears the last reason.
            result: What the attempt returned; None keeps the last result.
            facts: Facts of the attempt, stored as tags (`host`, `threads`, `micro_batches`). `sweep` names the sweep
                that drives the job from now on.

        Returns:
            The record after the move.

        Raises:
            IllegalTransition: `TRANSITIONS` has no such edge; nothing is changed.
            StoreError: The store has no job with that key.
        """


class LedgerWriter(_JobMover, Protocol):
    """Write access for the driver of a sweep, and for a person's requests to it.

    Who may write what:

    * A job is moved only by the holder of its lock (`Locks.take_job`).
    * `begin_sweep`, `set_lease` and `conclude_sweep` are called only by the holder of the sweep's lock (`Locks.sweep`).
      Where several machines share a store, check the lease first (`claim.check_claim`).
    * `add_request` may be called by any process; only the sweep's driver, or the process that made the request, removes
      it.
    * Workers never use a ledger. They log into the run of their job and leave its state alone.

    The store itself does not enforce this: it cannot write on a condition.

    Thread safety: as for `LedgerReader`.
    """

    def add(self, spec: JobSpec, sweep: str, now: float) -> JobRecord:
        """Queue a job for the first time. A repeated call changes nothing.

        Args:
            spec: The job.
            sweep: Name of the sweep that runs it; it must have begun.
            now: Unix seconds.

        Returns:
            The new record, or the one the job already has.

        Raises:
            StoreError: The sweep has not begun, or the spec does not fit into a tag.
        """

    def begin_sweep(self, plan: StoredPlan, now: float) -> SweepRecord:
        """Record a sweep. A repeated call changes only its data root.

        Args:
            plan: The sweep's jobs. Its `data_root` replaces the stored one.
            now: Unix seconds.

        Returns:
            The new record, or the one the sweep already has.
        """

    def set_lease(self, sweep: str, lease: Lease | None) -> None:
        """Record who drives a sweep.

        Args:
            sweep: Name of the sweep.
            lease: The driver's signed lease; None if the sweep has no driver.

        Raises:
            StoreError: No sweep has that name.
        """

    def set_waiting(self, sweep: str, waiting: Waiting | None) -> None:
        """Record why jobs of a sweep have no worker.

        Args:
            sweep: Name of the sweep.
            waiting: The reason; None if none waits for a machine.

        Raises:
            StoreError: No sweep has that name.
        """

    def set_progress(self, sweep: str, progress: SweepProgress | None) -> None:
        """Record how far a sweep is.

        Args:
            sweep: Name of the sweep.
            progress: Its running jobs and the time left; None if the sweep has no driver.

        Raises:
            StoreError: No sweep has that name.
        """

    def conclude_sweep(self, sweep: str, note: str, metrics: Mapping[str, float], status: RunStatus) -> None:
        """Store a sweep's results. May be called again when the sweep was resumed.

        Args:
            sweep: Name of the sweep.
            note: Markdown that MLflow's UI shows with the run.
            metrics: The sweep's key numbers by name. Unchanged values are not logged again.
            status: MLflow's status of the run.

        Raises:
            StoreError: No sweep has that name.
        """

    def add_request(self, sweep: str, request: ControlRequest) -> None:
        """Leave a request for the sweep's driver.

        Raises:
            StoreError: No sweep has that name.
        """

    def pending_requests(self, sweep: str) -> list[ControlRequest]:
        """Return the requests that were not yet removed, oldest first. A driver calls this every second.

        Raises:
            StoreError: No sweep has that name.
        """

    def remove_request(self, sweep: str, request: ControlRequest) -> None:
        """Remove a request that was carried out or no longer applies. A repeated call changes nothing.

        Raises:
            StoreError: No sweep has that name.
        """


class LedgerRepairer(_JobMover, Protocol):
    """Access to the store's runs as they are, damaged and duplicate ones included, and the repairs of them.

    A repair of a job is made only by the holder of its lock, a repair of a sweep only by the holder of the sweep's
    lock, each after a second look at what is to be repaired.

    Thread safety: as for `LedgerReader`.
    """

    def job_runs(self) -> list[JobRun]:
        """Return every run that is tagged as a job's, unreadable ones included. The first of a key counts."""

    def sweep_runs(self) -> list[SweepEntry]:
        """Return every run that is tagged as a sweep's, those without a readable plan included.

        Raises:
            StoreError: The tags of a sweep cannot be read.
        """

    def deleted_jobs(self) -> frozenset[str]:
        """Return the keys of jobs whose runs were deleted in MLflow's UI and can still be restored there."""

    def delete_duplicate_runs(self, key: str) -> bool:
        """Delete runs of a job that a retried create request left and that never began.

        Returns:
            True if any run was deleted.
        """

    def release_dead_driver(self, sweep: str) -> None:
        """Clear the lease of a sweep whose driver is dead, and set MLflow's status of the sweep to KILLED.

        Raises:
            StoreError: No sweep has that name.
        """

    def repair_status(self, run: JobRun) -> None:
        """Set MLflow's status of a run from the job's state. Does nothing for a run that cannot be read."""


class Ledger(LedgerWriter, LedgerRepairer, Protocol):
    """All that a backend implements. Functions take the narrowest of the protocols above that they need."""


def unknown_job(key: str) -> StoreError:
    """Return the error for a key that the store does not have."""
    return StoreError(f"The store has no job {key}. `orch status` lists the sweeps, `orch status SWEEP` their jobs.")


def unknown_sweep(name: str, sweeps: Iterable[SweepRecord]) -> StoreError:
    """Return the error for a name that the store does not have. It names the nearest one of `sweeps`."""
    names = [sweep.name for sweep in sweeps]
    advice = did_you_mean(name, names) if names else "There is no sweep yet. Start one with `orch sweep --grid first`."
    return StoreError(f"No sweep is called {name!r} in this store. {advice}")


def known_sweep(ledger: LedgerReader, name: str) -> SweepRecord:
    """Return the sweep with a given name.

    Raises:
        StoreError: No sweep has that name. The message names the nearest one.
    """
    record = ledger.sweep(name)
    if record is None:
        raise unknown_sweep(name, ledger.sweeps())
    return record
