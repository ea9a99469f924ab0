"""What every ledger can do, and the one that lives in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal, Protocol

from orchestrator.ledger.lease import Lease
from orchestrator.ledger.records import ControlRequest, JobRecord, JobRun, StoredPlan, SweepEntry, SweepRecord
from schemas.base import did_you_mean
from schemas.errors import StoreError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason, advance
from schemas.results import JobResult

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""MLflow's words for how a sweep ended: all jobs done, some not, or stopped by the user."""

RUN_STATUS = {
    JobState.PLANNED: "SCHEDULED",
    JobState.QUEUED: "SCHEDULED",
    JobState.REQUEUED: "SCHEDULED",
    JobState.RUNNING: "RUNNING",
    JobState.SUCCEEDED: "FINISHED",
    JobState.FAILED: "FAILED",
    JobState.CANCELLED: "KILLED",
}
"""What MLflow's own UI shows of a job in each state."""


class LedgerReader(Protocol):
    """What those need who only look."""

    def jobs(self, keys: Collection[str] | None = None) -> dict[str, JobRecord]:
        """Every job that was ever begun, by key; one bulk read. Keys without a record are left out."""

    def sweep(self, name: str) -> SweepRecord | None: ...

    def sweeps(self) -> list[SweepRecord]:
        """All sweeps, newest first."""


class Ledger(LedgerReader, Protocol):
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

        Safe to call twice with the same `now`: who does not know whether a move arrived makes it again.

        Raises:
            IllegalTransition: there is no such edge. Nothing is changed then.
        """

    def begin_sweep(self, plan: StoredPlan, now: float) -> SweepRecord:
        """Record a sweep, or return the record it has, with the data root of `plan`. Safe to call twice."""

    def stamp(self, sweep: str, lease: Lease | None) -> None:
        """Say who drives a sweep, or that nobody does any more."""

    def conclude(self, sweep: str, note: str, metrics: Mapping[str, float], status: RunStatus) -> None:
        """Leave a sweep's results where people look for them."""

    def ask(self, sweep: str, request: ControlRequest) -> None:
        """Leave a request for the sweep's driver."""

    def requests(self, sweep: str) -> list[ControlRequest]:
        """What was asked and not yet answered, oldest first; read often, so cheap."""

    def answer(self, sweep: str, request: ControlRequest) -> None:
        """The request is heeded, or void. Safe to call twice."""

    def job_runs(self) -> list[JobRun]:
        """Every run that says it is a job's, those that cannot be read included; the first of a key counts."""

    def sweep_runs(self) -> list[SweepEntry]:
        """Every sweep, also those whose plan cannot be read."""

    def drop_doubles(self, key: str) -> bool:
        """Delete runs of a job that one creation left beside the one that counts, and that never began; true if any."""

    def lift(self, sweep: str) -> None:
        """A sweep's driver is dead: it holds the sweep no longer, and MLflow shows the sweep as killed."""

    def repair_status(self, run: JobRun) -> None:
        """Make MLflow's status of a run say what the job's state says."""


def first_record(spec: JobSpec, sweep: str, now: float, run_id: str, attempt: int = 0) -> JobRecord:
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
        attempt=attempt,
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
        threads=int(facts.get("threads", record.threads)),
    )


def is_repeated(record: JobRecord, to: JobState, now: float) -> bool:
    """Whether a move is the one that brought the job where it is; no state has an edge to itself."""
    return record.state is to and record.last_sign_at == now


def records_of(runs: Iterable[JobRun]) -> dict[str, JobRecord]:
    """The job of each key, from runs of which the first of a key is the job's own.

    Raises:
        StoreError: a run cannot be read.
    """
    records: dict[str, JobRecord] = {}
    for run in runs:
        if run.record is None:
            raise StoreError(run.problem)
        records.setdefault(run.key, run.record)
    return records


def newest_first(sweeps: Iterable[SweepRecord]) -> list[SweepRecord]:
    """Each name once, from sweeps of which the first of a name counts."""
    by_name: dict[str, SweepRecord] = {}
    for sweep in sweeps:
        by_name.setdefault(sweep.name, sweep)
    return sorted(by_name.values(), key=lambda sweep: -sweep.started_at)


def repair_torn_moves(ledger: Ledger, runs: Iterable[JobRun], is_settled: Callable[[JobRecord], bool]) -> None:
    """MLflow's status is written after a job's state; a driver that was killed in between left it untrue for ever.

    Args:
        is_settled: false where another driver may be in the middle of a move.
    """
    for run in runs:
        if run.record is not None and run.status != RUN_STATUS[run.record.state] and is_settled(run.record):
            ledger.repair_status(run)


def unknown_job(key: str) -> StoreError:
    return StoreError(f"No job {key} in the store. `orch status` lists the sweeps, `orch status SWEEP` their jobs.")


def known_sweep(ledger: LedgerReader, name: str) -> SweepRecord:
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
