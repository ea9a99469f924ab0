"""A ledger in memory, for tests and for planning without a store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.ledger.base import RUN_STATUS, RunStatus, known_sweep, unknown_job
from orchestrator.ledger.job_moves import first_record, is_repeated, moved
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
    standings_of,
)
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult


@dataclass
class InMemoryLedger:
    """The contract of `Ledger` on dictionaries, for tests and for plans made before a store exists."""

    _jobs: dict[str, JobRecord] = field(default_factory=dict)
    _sweeps: dict[str, SweepRecord] = field(default_factory=dict)
    _requests: dict[str, dict[str, ControlRequest]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    """Notes of concluded sweeps by name."""

    def jobs(self, keys: Collection[str] | None = None) -> dict[str, JobRecord]:
        """See `LedgerReader.jobs`."""
        return {key: record for key, record in self._jobs.items() if keys is None or key in keys}

    def standings(self) -> dict[str, Standing]:
        """See `LedgerReader.standings`."""
        return standings_of(self._jobs)

    def get(self, key: str) -> JobRecord:
        """See `LedgerWriter.get`."""
        if key not in self._jobs:
            raise unknown_job(key)
        return self._jobs[key]

    def add(self, spec: JobSpec, sweep: str, now: float) -> JobRecord:
        """See `LedgerWriter.add`."""
        return self._jobs.setdefault(spec.key, first_record(spec, sweep, now, run_id=f"run-{spec.key}"))

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
        if not is_repeated(self.get(key), to, now):
            self._jobs[key] = moved(self.get(key), to, now, reason=reason, result=result, facts=facts or {})
        return self._jobs[key]

    def begin_sweep(self, plan: StoredPlan, now: float) -> SweepRecord:
        """See `LedgerWriter.begin_sweep`."""
        known = self._sweeps.get(plan.name, SweepRecord(plan.name, f"sweep-{plan.name}", now, lambda: plan))
        rooted = (known.plan or plan).model_copy(update={"data_root": plan.data_root})
        self._sweeps[plan.name] = replace(known, read_plan=lambda: rooted)
        return self._sweeps[plan.name]

    def sweep(self, name: str) -> SweepRecord | None:
        """See `LedgerReader.sweep`."""
        return self._sweeps.get(name)

    def sweeps(self) -> list[SweepRecord]:
        """See `LedgerReader.sweeps`."""
        return sorted(self._sweeps.values(), key=lambda sweep: -sweep.started_at)

    def set_lease(self, sweep: str, lease: Lease | None) -> None:
        """See `LedgerWriter.set_lease`."""
        self._sweeps[sweep] = replace(known_sweep(self, sweep), lease=lease)

    def set_waiting(self, sweep: str, waiting: Waiting | None) -> None:
        """See `LedgerWriter.set_waiting`."""
        self._sweeps[sweep] = replace(known_sweep(self, sweep), waiting=waiting)

    def set_progress(self, sweep: str, progress: SweepProgress | None) -> None:
        """See `LedgerWriter.set_progress`."""
        self._sweeps[sweep] = replace(known_sweep(self, sweep), progress=progress)

    def conclude_sweep(self, sweep: str, note: str, metrics: Mapping[str, float], status: RunStatus) -> None:
        """See `LedgerWriter.conclude_sweep`; metrics and status are dropped."""
        self.notes[known_sweep(self, sweep).name] = note

    def add_request(self, sweep: str, request: ControlRequest) -> None:
        """See `LedgerWriter.add_request`."""
        self._requests.setdefault(known_sweep(self, sweep).name, {})[request.id] = request

    def pending_requests(self, sweep: str) -> list[ControlRequest]:
        """See `LedgerWriter.pending_requests`."""
        return sorted(self._requests.get(known_sweep(self, sweep).name, {}).values(), key=lambda request: request.at)

    def remove_request(self, sweep: str, request: ControlRequest) -> None:
        """See `LedgerWriter.remove_request`."""
        self._requests.get(known_sweep(self, sweep).name, {}).pop(request.id, None)

    def job_runs(self) -> list[JobRun]:
        """See `LedgerRepairer.job_runs`."""
        return [JobRun(r.run_id, r.key, r.title, RUN_STATUS[r.state], r) for r in self._jobs.values()]

    def sweep_runs(self) -> list[SweepEntry]:
        """See `LedgerRepairer.sweep_runs`."""
        return [SweepEntry(sweep, "RUNNING" if sweep.lease else "KILLED") for sweep in self.sweeps()]

    def deleted_jobs(self) -> frozenset[str]:
        """See `LedgerRepairer.deleted_jobs`."""
        return frozenset()

    def delete_duplicate_runs(self, key: str) -> bool:
        """See `LedgerRepairer.delete_duplicate_runs`; a key has one record here."""
        return False

    def release_dead_driver(self, sweep: str) -> None:
        """See `LedgerRepairer.release_dead_driver`."""
        self.set_lease(sweep, None)

    def repair_status(self, run: JobRun) -> None:
        """See `LedgerRepairer.repair_status`; a record has no separate status here."""
