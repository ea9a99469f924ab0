"""What every ledger can do, and the one that lives in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from orchestrator.records import JobRecord, Lease, StoredPlan, SweepRecord
from schemas.base import did_you_mean
from schemas.errors import StoreError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason, advance
from schemas.results import JobResult

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""MLflow's words for how a sweep ended: all jobs done, some not, or stopped by the user."""


class Ledger(Protocol):
    def jobs(self, keys: Collection[str] | None = None) -> dict[str, JobRecord]:
        """Every job that was ever begun, by key; one bulk read. Keys without a record are left out."""

    def get(self, key: str) -> JobRecord:
        """
        Raises:
            StoreError: the job was never begun.
        """

    def add(self, spec: JobSpec, sweep: str, now: float) -> JobRecord:
        """Put a job in the queue for the first time, or return the record it has. Safe to call twice."""

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
        """Change a job's state along a legal edge; `facts` of the attempt (host, threads) are kept beside it.

        Raises:
            IllegalTransition: there is no such edge. Nothing is changed then.
        """

    def begin_sweep(self, plan: StoredPlan, now: float) -> SweepRecord:
        """Record a sweep, or return the record it has. Safe to call twice."""

    def sweep(self, name: str) -> SweepRecord | None: ...

    def sweeps(self) -> list[SweepRecord]:
        """All sweeps, newest first."""

    def stamp(self, sweep: str, lease: Lease | None) -> None:
        """Say who drives a sweep, or that nobody does any more."""

    def conclude(self, sweep: str, note: str, metrics: Mapping[str, float], status: RunStatus) -> None:
        """Leave a sweep's results where people look for them."""


@dataclass
class InMemoryLedger:
    """For tests, and for plans where no store exists yet."""

    _jobs: dict[str, JobRecord] = field(default_factory=dict)
    _sweeps: dict[str, SweepRecord] = field(default_factory=dict)
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
        self._jobs[key] = moved(self.get(key), to, now, reason=reason, result=result, facts=facts or {})
        return self._jobs[key]

    def begin_sweep(self, plan: StoredPlan, now: float) -> SweepRecord:
        return self._sweeps.setdefault(plan.name, SweepRecord(plan.name, f"sweep-{plan.name}", now, plan))

    def sweep(self, name: str) -> SweepRecord | None:
        return self._sweeps.get(name)

    def sweeps(self) -> list[SweepRecord]:
        return sorted(self._sweeps.values(), key=lambda sweep: -sweep.started_at)

    def stamp(self, sweep: str, lease: Lease | None) -> None:
        self._sweeps[sweep] = replace(known_sweep(self, sweep), lease=lease)

    def conclude(self, sweep: str, note: str, metrics: Mapping[str, float], status: RunStatus) -> None:
        self.notes[known_sweep(self, sweep).name] = note


def first_record(spec: JobSpec, sweep: str, now: float, run_id: str) -> JobRecord:
    """A job's first entry in any ledger: planned until now, from now on in the queue."""
    return JobRecord(
        key=spec.key,
        title=spec.title,
        spec_json=spec.model_dump_json(),
        sweep=sweep,
        state=advance(spec.key, JobState.PLANNED, JobState.QUEUED),
        last_sign_at=now,
        run_id=run_id,
        driven_by=sweep,
    )


def moved(
    record: JobRecord,
    to: JobState,
    now: float,
    *,
    reason: StopReason | None,
    result: JobResult | None,
    facts: Mapping[str, str],
) -> JobRecord:
    """The record after a move; what every ledger writes."""
    return replace(
        record,
        state=advance(record.key, record.state, to),
        attempt=record.attempt + (to is JobState.RUNNING),
        last_sign_at=now,
        stop_reason=reason,
        result=result or record.result,
        driven_by=facts.get("sweep", record.driven_by),
    )


def unknown_job(key: str) -> StoreError:
    return StoreError(f"No job {key} in the store. `orch status` lists the sweeps, `orch status SWEEP` their jobs.")


def known_sweep(ledger: Ledger, name: str) -> SweepRecord:
    """
    Raises:
        StoreError: no sweep has that name; the message lists those there are.
    """
    record = ledger.sweep(name)
    if record is None:
        names = [sweep.name for sweep in ledger.sweeps()]
        advice = did_you_mean(name, names) if names else "There is none yet: `orch sweep --grid smoke` makes one."
        raise StoreError(f"No sweep is called {name!r} in this store. {advice}")
    return record
