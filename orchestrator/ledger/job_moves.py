"""What a job's record becomes when the job is queued or moved; the same for every ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from orchestrator.ledger.base import RUN_STATUS, LedgerRepairer
from orchestrator.ledger.records import JobRecord, JobRun
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason, advance
from schemas.results import JobResult


def first_record(spec: JobSpec, sweep: str, now: float, run_id: str, attempt: int = 0) -> JobRecord:
    """Return the first record of a job, which is queued.

    Args:
        spec: The job.
        sweep: Name of the sweep that runs it.
        now: Unix seconds.
        run_id: MLflow's id of the job's run.
        attempt: Number of attempts counted so far, larger than 0 if an earlier run of the job was deleted.
    """
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
    """Return the record after a move. Arguments as in `LedgerWriter.move`.

    Raises:
        IllegalTransition: `TRANSITIONS` has no such edge.
    """
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
    """Return whether this move was already made. No state has an edge to itself, so state and time identify it."""
    return record.state is to and record.last_sign_at == now


def repair_torn_moves(ledger: LedgerRepairer, runs: Iterable[JobRun], is_settled: Callable[[JobRecord], bool]) -> None:
    """Correct MLflow's status where a driver was killed between writing a job's state and writing the status.

    Args:
        ledger: The ledger that returned `runs`.
        runs: The runs to check.
        is_settled: Returns False for jobs that a live driver may be moving right now; they are skipped.
    """
    for run in runs:
        if run.record is not None and run.status != RUN_STATUS[run.record.state] and is_settled(run.record):
            ledger.repair_status(run)
