"""Why a sweep's jobs did not succeed: grouped by cause, with what to type next. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from orchestrator.ledger.records import JobRecord
from orchestrator.planning.diff import Named, PlannedJob, PlanStatus
from schemas.lifecycle import StopReason
from schemas.results import Failure

_R, _P = StopReason, PlanStatus
SHOWN_WHYS = 3
_FINE = frozenset({_P.DONE, _P.NEW, _P.CHANGED, _P.RUNNING})

AFTER_FAILURE: Mapping[StopReason, str] = MappingProxyType(
    {
        _R.WORKER_LOST: "A worker died again and again: look at the machine's memory (`dmesg`, `free -g`), then "
        "`orch requeue {sweep} --failed --reason worker_lost` and `orch resume {sweep} --workers 1`.",
        _R.STORE_UNREACHABLE: "See that the store answers and its disk has room (`orch fsck`), then "
        "`orch requeue {sweep} --failed --reason store_unreachable` and `orch resume {sweep}`.",
        _R.NODE_LOST: "Machines were lost again and again. Once they stay: `orch requeue {sweep} --failed --reason "
        "node_lost` and `orch resume {sweep}`.",
        _R.OUT_OF_MEMORY: "Smaller parts of a batch did not help. Fewer jobs at a time leave more for each: "
        "`orch requeue {sweep} --failed --reason out_of_memory`, then `orch resume {sweep} --workers 1`.",
        _R.DIVERGED: "The same job would diverge again. Start one with a smaller step under another name: "
        "`orch sweep ... --name NEW --set train.learning_rate=...`.",
        _R.BAD_DATA: "Repair the images, then `orch requeue {sweep} --failed --reason bad_data` and "
        "`orch resume {sweep}`.",
        _R.BAD_SPEC: "Repair what the message names; a changed spec is another job: `orch sweep ... --name NEW`. "
        "Where a file was missing, `orch requeue {sweep} --failed --reason bad_spec` and `orch resume {sweep}`.",
        _R.CODE_RAISED: "`orch logs {key}` has the traceback. Once that is repaired: `orch requeue {sweep} --failed "
        "--reason code_raised`, then `orch resume {sweep}`.",
    }
)
OTHERWISE: Mapping[PlanStatus, str] = MappingProxyType(
    {
        _P.LOST: "`orch resume {sweep}` goes on, from the last checkpoint where there is one.",
        _P.INTERRUPTED: "`orch resume {sweep}` goes on, from the last checkpoint where there is one.",
        _P.CANCELLED: "`orch requeue {sweep} --cancelled` puts cancelled jobs back, `orch resume {sweep}` runs them.",
        _P.BLOCKED: "It starts from a job that did not succeed: repair that one first.",
    }
)


@dataclass(frozen=True)
class Cause:
    """Jobs that stopped alike."""

    status: PlanStatus
    reason: StopReason | None
    fingerprint: str
    """Equal for failures that took the same way through the code; empty where nothing failed."""
    kind: str
    message: str
    """Of the first of its jobs."""
    jobs: tuple[PlannedJob[Named], ...]

    @property
    def attempts(self) -> int:
        return sum(job.record.attempt for job in self.jobs if job.record)

    @property
    def example(self) -> JobRecord | None:
        return self.jobs[0].record

    def advice(self, sweep: str, is_driven: bool = False) -> str:
        """What to type next."""
        if is_driven and self.status is _P.INTERRUPTED:
            return f"Its driver tries it again by itself; `orch status {sweep} --watch` shows when."
        advice = self._advice().format(sweep=sweep, key=self.jobs[0].spec.key)
        must_wait = is_driven and self.status is not _P.BLOCKED
        return f"Once the sweep has ended, or after `orch pause {sweep}`: {advice}" if must_wait else advice

    def _advice(self) -> str:
        if self.status is _P.FAILED and self.reason is not None and self.reason in AFTER_FAILURE:
            return AFTER_FAILURE[self.reason]
        if self.reason is _R.DISK_FULL:
            return "Make room on that disk, then `orch resume {sweep}`."
        if self.reason is _R.SWEEP_CANCELLED:
            return "`orch resume {sweep}` puts it back and runs it."
        return OTHERWISE.get(self.status, "`orch requeue {sweep} --failed`, then `orch resume {sweep}`.")


def causes(jobs: Collection[PlannedJob[Named]]) -> list[Cause]:
    """What keeps jobs from being done, the most frequent failure first, then what is only interrupted or waiting."""
    groups: dict[tuple[PlanStatus, StopReason | None, str], list[PlannedJob[Named]]] = {}
    for job in jobs:
        if job.status not in _FINE:
            groups.setdefault((job.status, _reason(job), _fingerprint(job)), []).append(job)
    found = [_cause(*key, tuple(group)) for key, group in groups.items()]
    return sorted(found, key=lambda cause: (cause.status is not _P.FAILED, -len(cause.jobs)))


def _reason(job: PlannedJob[Named]) -> StopReason | None:
    return None if job.status is _P.BLOCKED or job.record is None else job.record.stop_reason


def _fingerprint(job: PlannedJob[Named]) -> str:
    failure = _failure(job)
    return failure.fingerprint if failure else ""


def _failure(job: PlannedJob[Named]) -> Failure | None:
    """What went wrong in the last attempt of a job that failed, or that was put back since."""
    result = job.record.result if job.record else None
    is_meant = job.status is _P.FAILED or (job.status is _P.INTERRUPTED and result is not None and result.has_failed)
    is_latest = result is not None and job.record is not None and result.attempt == job.record.attempt
    return result.failure if result and is_meant and is_latest else None


def _cause(
    status: PlanStatus, reason: StopReason | None, fingerprint: str, jobs: tuple[PlannedJob[Named], ...]
) -> Cause:
    failure = _failure(jobs[0])
    whys = list(dict.fromkeys(job.why for job in jobs))
    told = "; ".join(whys[:SHOWN_WHYS]) + ("; ..." if len(whys) > SHOWN_WHYS else "")
    kind, message = (failure.kind, failure.message) if failure else (status.value, told)
    return Cause(status, reason, fingerprint, kind, message, jobs)
