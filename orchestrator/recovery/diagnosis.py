"""Decides why a sweep's jobs did not succeed, grouped by cause, and which command to type next. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from orchestrator.ledger.records import JobRecord
from orchestrator.planning.diff import Named, PlannedJob, PlanStatus
from schemas.lifecycle import StopReason
from schemas.results import Failure

_R, _P = StopReason, PlanStatus
MAX_REASONS = 3
"""Largest number of different reasons that a cause's message lists."""
_NO_CAUSE = frozenset({_P.DONE, _P.NEW, _P.CHANGED, _P.RUNNING})

ADVICE_BY_REASON: Mapping[StopReason, str] = MappingProxyType(
    {
        _R.WORKER_LOST: "A worker died repeatedly: check the machine's memory (`dmesg`, `free -g`), then "
        "`orch requeue {sweep} --failed --reason worker_lost` and `{resume} --workers 1`.",
        _R.STORE_UNREACHABLE: "Check that the store answers and its disk has space (`orch fsck`), then "
        "`orch requeue {sweep} --failed --reason store_unreachable` and `{resume}`.",
        _R.NODE_LOST: "Machines were lost repeatedly. Once they are stable: `orch requeue {sweep} --failed --reason "
        "node_lost` and `{resume}`.",
        _R.PREEMPTED: "Its machines were taken away again and again. What it has trained is kept. Once machines stay "
        "longer: `orch requeue {sweep} --failed --reason preempted` and `{resume}`.",
        _R.SUPERSEDED: "Another attempt of the job took over each time: see that no other driver or suspended machine "
        "works on it (`orch status`), then `orch requeue {sweep} --failed --reason superseded` and `{resume}`.",
        _R.OUT_OF_MEMORY: "Smaller micro-batches did not help. Fewer jobs at a time leave more memory for each: "
        "`orch requeue {sweep} --failed --reason out_of_memory`, then `{resume} --workers 1`.",
        _R.DIVERGED: "The same job would diverge again. Start one with a smaller learning rate under another name: "
        "`orch sweep ... --name NEW --set train.learning_rate=...`.",
        _R.DATA_ABSENT: "Run `orch data push` for the data set, or give every machine the folder of ORCH_DATA_ROOT. "
        "Weights files are pushed by `orch resume` where they are. Then: `{resume} --failed`.",
        _R.BAD_DATA: "Repair the images, then `orch requeue {sweep} --failed --reason bad_data` and `{resume}`.",
        _R.BAD_SPEC: "Correct what the message names; a changed spec is another job: `orch sweep ... --name NEW`. "
        "If a file was missing: `orch requeue {sweep} --failed --reason bad_spec` and `{resume}`.",
        _R.CODE_RAISED: "`orch logs {key}` shows the traceback. Once the code is corrected: `orch requeue {sweep} "
        "--failed --reason code_raised`, then `{resume}`.",
    }
)
ADVICE_BY_STATUS: Mapping[PlanStatus, str] = MappingProxyType(
    {
        _P.LOST: "`{resume}` continues, from the last checkpoint if there is one.",
        _P.INTERRUPTED: "`{resume}` continues, from the last checkpoint if there is one.",
        _P.CANCELLED: "`orch requeue {sweep} --cancelled` requeues cancelled jobs, `{resume}` runs them.",
        _P.BLOCKED: "It starts from a job that did not succeed: resolve that one first.",
    }
)


@dataclass(frozen=True)
class Cause:
    """Jobs that stopped in the same way."""

    status: PlanStatus
    reason: StopReason | None
    fingerprint: str
    """Hash of the failure's stack; equal for failures at the same place. Empty if nothing failed."""
    kind: str
    """Class of the exception; without a failure, the status."""
    message: str
    """Message of the first job's failure; without one, the reasons of all jobs."""
    jobs: tuple[PlannedJob[Named], ...]

    @property
    def attempts(self) -> int:
        """Number of attempts, over all jobs."""
        return sum(job.record.attempt for job in self.jobs if job.record)

    @property
    def example(self) -> JobRecord | None:
        """Record of the first job; None if it has never begun."""
        return self.jobs[0].record

    def advice(self, sweep: str, is_driven: bool = False, resume: str = "") -> str:
        """Return what to type next.

        Args:
            sweep: name of the sweep.
            is_driven: whether a driver is running the sweep.
            resume: command that continues the sweep from this machine, if it is not `orch resume` alone.
        """
        if is_driven and self.status is _P.INTERRUPTED:
            return f"Its driver retries it automatically; `orch status {sweep} --watch` shows when."
        advice = self._advice().format(sweep=sweep, key=self.jobs[0].spec.key, resume=resume or f"orch resume {sweep}")
        must_wait = is_driven and self.status is not _P.BLOCKED
        return f"Once the sweep has ended, or after `orch pause {sweep}`: {advice}" if must_wait else advice

    def _advice(self) -> str:
        if self.status is _P.FAILED and self.reason is not None and self.reason in ADVICE_BY_REASON:
            return ADVICE_BY_REASON[self.reason]
        if self.reason is _R.DISK_FULL:
            return "Free space on that disk, then `{resume}`."
        if self.reason is _R.ACCESS_DENIED:
            return "Set the credentials on the machine that the message names, then `{resume}`."
        if self.reason is _R.SWEEP_CANCELLED:
            return "`{resume}` requeues and runs it."
        return ADVICE_BY_STATUS.get(self.status, "`orch requeue {sweep} --failed`, then `{resume}`.")


def find_causes(jobs: Collection[PlannedJob[Named]]) -> list[Cause]:
    """Group the jobs that did not succeed by cause.

    Args:
        jobs: the jobs of a sweep with their status.

    Returns:
        Failures first, the most frequent one at the top; then jobs that were lost, interrupted, cancelled or blocked.
    """
    groups: dict[tuple[PlanStatus, StopReason | None, str], list[PlannedJob[Named]]] = {}
    for job in jobs:
        if job.status not in _NO_CAUSE:
            groups.setdefault((job.status, _reason(job), _fingerprint(job)), []).append(job)
    found = [_cause(*key, tuple(group)) for key, group in groups.items()]
    return sorted(found, key=lambda cause: (cause.status is not _P.FAILED, -len(cause.jobs)))


def _reason(job: PlannedJob[Named]) -> StopReason | None:
    return None if job.status is _P.BLOCKED or job.record is None else job.record.stop_reason


def _fingerprint(job: PlannedJob[Named]) -> str:
    failure = _failure(job)
    return failure.fingerprint if failure else ""


def _failure(job: PlannedJob[Named]) -> Failure | None:
    """The failure of the last attempt of a job that failed, even if it has been requeued since."""
    result = job.record.result if job.record else None
    has_failed = job.status is _P.FAILED or (job.status is _P.INTERRUPTED and result is not None and result.has_failed)
    is_latest = result is not None and job.record is not None and result.attempt == job.record.attempt
    return result.failure if result and has_failed and is_latest else None


def _cause(
    status: PlanStatus, reason: StopReason | None, fingerprint: str, jobs: tuple[PlannedJob[Named], ...]
) -> Cause:
    failure = _failure(jobs[0])
    reasons = list(dict.fromkeys(job.why for job in jobs))
    listed = "; ".join(reasons[:MAX_REASONS]) + ("; ..." if len(reasons) > MAX_REASONS else "")
    kind, message = (failure.kind, failure.message) if failure else (status.value, listed)
    return Cause(status, reason, fingerprint, kind, message, jobs)
