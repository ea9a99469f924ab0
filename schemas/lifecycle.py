"""A job's states, why it stopped, and the one table of moves it may make."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from schemas.errors import IllegalTransition


class JobState(StrEnum):
    PLANNED = "planned"
    QUEUED = "queued"
    RUNNING = "running"
    REQUEUED = "requeued"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Nothing happens to the job any more, unless a person puts it back."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class StopReason(StrEnum):
    FINISHED = "finished"
    WORKER_LOST = "worker_lost"
    NODE_LOST = "node_lost"
    """The whole machine of the worker."""
    PREEMPTED = "preempted"
    """The machine was taken away, as was announced."""
    SUPERSEDED = "superseded"
    """The worker found that another attempt has its job."""
    STORE_UNREACHABLE = "store_unreachable"
    DISK_FULL = "disk_full"
    """No room for a checkpoint, a log or images: the sweep stops, and `orch resume` goes on when there is room."""
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    BAD_DATA = "bad_data"
    BAD_SPEC = "bad_spec"
    CODE_RAISED = "code_raised"
    INTERRUPTED = "interrupted"
    RESULTS_LOST = "results_lost"
    """It had succeeded, but `orch fsck` found its files gone or damaged."""
    CANCELLED_BY_USER = "cancelled_by_user"
    """This job by name: `orch resume` leaves it alone."""
    SWEEP_CANCELLED = "sweep_cancelled"
    """With all of its sweep: `orch resume` puts it back."""


_S = JobState
TRANSITIONS = MappingProxyType(
    {
        _S.PLANNED: frozenset({_S.QUEUED, _S.CANCELLED}),
        _S.QUEUED: frozenset({_S.RUNNING, _S.FAILED, _S.CANCELLED}),
        _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.REQUEUED, _S.CANCELLED}),
        _S.REQUEUED: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED}),
        _S.SUCCEEDED: frozenset({_S.REQUEUED}),  # only by `orch fsck --repair`, when its results are gone
        _S.FAILED: frozenset({_S.REQUEUED}),
        _S.CANCELLED: frozenset({_S.REQUEUED}),
    }
)


def advance(job_key: str, current: JobState, target: JobState) -> JobState:
    """Return `target` if the edge exists. The one place a state may change.

    Raises:
        IllegalTransition: the table has no such edge; the message lists those it has.
    """
    if target not in TRANSITIONS[current]:
        allowed = ", ".join(sorted(TRANSITIONS[current]))
        raise IllegalTransition(
            f"Job {job_key} is {current} and cannot become {target}. From {current} it can become: {allowed}."
        )
    return target
