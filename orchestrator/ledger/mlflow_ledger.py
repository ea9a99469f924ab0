"""The ledger as MLflow runs: one parent run per sweep and one child run per job, found again by their tags."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from orchestrator.ledger.base import RunStatus
from orchestrator.ledger.home import UNMOVED, Relocation
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.mlflow_jobs import MlflowJobs
from orchestrator.ledger.mlflow_requests import MlflowRequests
from orchestrator.ledger.mlflow_runs import MlflowRuns
from orchestrator.ledger.mlflow_sweeps import MlflowSweeps
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
    standings_of,
)
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult

if TYPE_CHECKING:
    from mlflow import MlflowClient


class MlflowLedger:
    """The contract of `Ledger` on an MLflow store.

    Every write is one request, so a process may be killed between any two. State comes before status: if MLflow's
    status of a run contradicts the state in its tags, the state is right (`job_moves.repair_torn_moves`).
    """

    def __init__(
        self, client: MlflowClient, uri: str, experiment: str | None = None, here: Relocation = UNMOVED
    ) -> None:
        """
        Args:
            client: A client of the store.
            uri: The store's URI, for messages.
            experiment: Name of the experiment that holds the runs; None finds the one of orch.
            here: Finds recorded paths, if the home was moved.
        """
        self.client, self.uri, self.experiment = client, uri, experiment
        runs = MlflowRuns(client, uri, experiment, here)
        self._jobs, self._sweeps, self._requests = MlflowJobs(runs), MlflowSweeps(runs), MlflowRequests(runs)

    def jobs(self, keys: Collection[str] | None = None) -> dict[str, JobRecord]:
        """See `LedgerReader.jobs`."""
        return self._jobs.all(keys)

    def standings(self) -> dict[str, Standing]:
        """See `LedgerReader.standings`."""
        return standings_of(self.jobs())

    def sweep(self, name: str) -> SweepRecord | None:
        """See `LedgerReader.sweep`."""
        return self._sweeps.sweep(name)

    def sweeps(self) -> list[SweepRecord]:
        """See `LedgerReader.sweeps`."""
        return self._sweeps.sweeps()

    def get(self, key: str) -> JobRecord:
        """See `LedgerWriter.get`."""
        return self._jobs.get(key)

    def add(self, spec: JobSpec, sweep: str, now: float) -> JobRecord:
        """See `LedgerWriter.add`."""
        return self._jobs.find(spec.key) or self._jobs.create(spec, sweep, self._sweeps.run_id(sweep), now)

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
        """See `LedgerWriter.move`."""
        return self._jobs.move(key, to, now, reason=reason, result=result, facts=facts or {})

    def begin_sweep(self, plan: StoredPlan, now: float) -> SweepRecord:
        """See `LedgerWriter.begin_sweep`."""
        return self._sweeps.begin(plan, now)

    def set_lease(self, sweep: str, lease: Lease | None) -> None:
        """See `LedgerWriter.set_lease`."""
        self._sweeps.set_lease(sweep, lease)

    def set_waiting(self, sweep: str, waiting: Waiting | None) -> None:
        """See `LedgerWriter.set_waiting`."""
        self._sweeps.set_waiting(sweep, waiting)

    def set_progress(self, sweep: str, progress: SweepProgress | None) -> None:
        """See `LedgerWriter.set_progress`."""
        self._sweeps.set_progress(sweep, progress)

    def conclude_sweep(self, sweep: str, note: str, metrics: Mapping[str, float], status: RunStatus) -> None:
        """See `LedgerWriter.conclude_sweep`."""
        self._sweeps.conclude(sweep, note, metrics, status)

    def add_request(self, sweep: str, request: ControlRequest) -> None:
        """See `LedgerWriter.add_request`."""
        self._requests.add(self._sweeps.run_id(sweep), request)

    def pending_requests(self, sweep: str) -> list[ControlRequest]:
        """See `LedgerWriter.pending_requests`."""
        return self._requests.pending(self._sweeps.run_id(sweep))

    def remove_request(self, sweep: str, request: ControlRequest) -> None:
        """See `LedgerWriter.remove_request`."""
        self._requests.remove(self._sweeps.run_id(sweep), request)

    def job_runs(self) -> list[JobRun]:
        """See `LedgerRepairer.job_runs`."""
        return self._jobs.entries()

    def sweep_runs(self) -> list[SweepEntry]:
        """See `LedgerRepairer.sweep_runs`."""
        return self._sweeps.entries()

    def deleted_jobs(self) -> frozenset[str]:
        """See `LedgerRepairer.deleted_jobs`."""
        return self._jobs.deleted_keys()

    def delete_duplicate_runs(self, key: str) -> bool:
        """See `LedgerRepairer.delete_duplicate_runs`."""
        return self._jobs.delete_duplicates(key)

    def release_dead_driver(self, sweep: str) -> None:
        """See `LedgerRepairer.release_dead_driver`."""
        self._sweeps.release_dead_driver(sweep)

    def repair_status(self, run: JobRun) -> None:
        """See `LedgerRepairer.repair_status`."""
        self._jobs.repair_status(run)
