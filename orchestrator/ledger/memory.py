"""A ledger in memory, for tests and for planning without a store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.ledger.base import RUN_STATUS, RunStatus, first_record, is_repeated, known_sweep, moved, unknown_job
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.records import ControlRequest, JobRecord, JobRun, StoredPlan, SweepEntry, SweepRecord
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult


@dataclass
class InMemoryLedger:
    """For tests, and for plans where no store exists yet."""

    _jobs: dict[str, JobRecord] = field(default_factory=dict)
    _sweeps: dict[str, SweepRecord] = field(default_factory=dict)
    _requests: dict[str, dict[str, ControlRequest]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def jobs(self, keys: Collection[str] | None = None) -> dict[str, JobRecord]:
        return {key: record for key, record in self._jobs.items() if keys is None or key in keys}

    def get(self, key: str) -> JobRecord:
        if key not in self._jobs:
            raise unknown_job(key)
        return self._jobs[key]

    def add(self, spec: JobSpec, sweep: str, now: float) -> JobRecord:
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
        if not is_repeated(self.get(key), to, now):
            self._jobs[key] = moved(self.get(key), to, now, reason=reason, result=result, facts=facts or {})
        return self._jobs[key]

    def begin_sweep(self, plan: StoredPlan, now: float) -> SweepRecord:
        known = self._sweeps.get(plan.name, SweepRecord(plan.name, f"sweep-{plan.name}", now, lambda: plan))
        rooted = (known.plan or plan).model_copy(update={"data_root": plan.data_root})
        self._sweeps[plan.name] = replace(known, read_plan=lambda: rooted)
        return self._sweeps[plan.name]

    def sweep(self, name: str) -> SweepRecord | None:
        return self._sweeps.get(name)

    def sweeps(self) -> list[SweepRecord]:
        return sorted(self._sweeps.values(), key=lambda sweep: -sweep.started_at)

    def stamp(self, sweep: str, lease: Lease | None) -> None:
        self._sweeps[sweep] = replace(known_sweep(self, sweep), lease=lease)

    def conclude(self, sweep: str, note: str, metrics: Mapping[str, float], status: RunStatus) -> None:
        self.notes[known_sweep(self, sweep).name] = note

    def ask(self, sweep: str, request: ControlRequest) -> None:
        self._requests.setdefault(known_sweep(self, sweep).name, {})[request.id] = request

    def requests(self, sweep: str) -> list[ControlRequest]:
        return sorted(self._requests.get(sweep, {}).values(), key=lambda request: request.at)

    def answer(self, sweep: str, request: ControlRequest) -> None:
        self._requests.get(sweep, {}).pop(request.id, None)

    def job_runs(self) -> list[JobRun]:
        return [JobRun(r.run_id, r.key, r.title, RUN_STATUS[r.state], r) for r in self._jobs.values()]

    def sweep_runs(self) -> list[SweepEntry]:
        return [SweepEntry(sweep, "RUNNING" if sweep.lease else "KILLED") for sweep in self.sweeps()]

    def drop_doubles(self, key: str) -> bool:
        return False

    def lift(self, sweep: str) -> None:
        self.stamp(sweep, None)

    def repair_status(self, run: JobRun) -> None:
        """Nothing to do: here a run has no status of its own."""
