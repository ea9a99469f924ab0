"""States of a job, reasons why it stops, and the one table of allowed transitions."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from schemas.errors import IllegalTransition


class JobState(StrEnum):
    """State of a job in the ledger."""

    PLANNED = "planned"
    """In the ledger, not yet scheduled."""
    QUEUED = "queued"
    """Scheduled, waiting for a worker."""
    RUNNING = "running"
    """A worker executes an attempt."""
    REQUEUED = "requeued"
    """An attempt stopped early; the job will run again."""
    SUCCEEDED = "succeeded"
    """Results and final checkpoint are complete."""
    FAILED = "failed"
    """An attempt failed and no retry is left."""
    CANCELLED = "cancelled"
    """A user cancelled the job or its sweep."""

    @property
    def has_ended(self) -> bool:
        """Whether the job stays in this state until a user or `orch fsck --repair` requeues it."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class StopReason(StrEnum):
    """Why an attempt, or the job itself, stopped."""

    FINISHED = "finished"
    """All epochs are trained and the network is measured."""
    WORKER_LOST = "worker_lost"
    """The worker process died."""
    NODE_LOST = "node_lost"
    """The worker's machine died or left the cluster."""
    PREEMPTED = "preempted"
    """The worker's machine was taken away with notice."""
    SUPERSEDED = "superseded"
    """Another attempt has taken over the job."""
    STORE_UNREACHABLE = "store_unreachable"
    """The tracking store did not respond for longer than orch waits."""
    ACCESS_DENIED = "access_denied"
    """The store does not accept the credentials of the worker's machine. The sweep stops; `orch resume` continues once
    they are right."""
    DISK_FULL = "disk_full"
    """A checkpoint, log or image did not fit on the disk. The sweep stops; `orch resume` continues once there is
    space."""
    OUT_OF_MEMORY = "out_of_memory"
    """The attempt ran out of CPU or GPU memory."""
    DIVERGED = "diverged"
    """A loss or a weight became infinite or NaN."""
    DATA_ABSENT = "data_absent"
    """The worker's machine lacks the data set, so the job runs on another machine or waits for one that has it."""
    BAD_DATA = "bad_data"
    """Images or annotations are missing, empty, corrupt or too few."""
    BAD_SPEC = "bad_spec"
    """The spec cannot be executed as written."""
    CODE_RAISED = "code_raised"
    """The worker's code raised an unexpected exception."""
    INTERRUPTED = "interrupted"
    """The user stopped the sweep."""
    RESULTS_LOST = "results_lost"
    """The job had succeeded, but `orch fsck` found its files missing or damaged."""
    CANCELLED_BY_USER = "cancelled_by_user"
    """The user cancelled this job by name; `orch resume` leaves it cancelled."""
    SWEEP_CANCELLED = "sweep_cancelled"
    """The user cancelled the whole sweep; `orch resume` requeues the job."""


_S = JobState
TRANSITIONS = MappingProxyType(
    {
        _S.PLANNED: frozenset({_S.QUEUED, _S.CANCELLED}),
        _S.QUEUED: frozenset({_S.RUNNING, _S.FAILED, _S.CANCELLED}),
        _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.REQUEUED, _S.CANCELLED}),
        _S.REQUEUED: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED}),
        _S.SUCCEEDED: frozenset({_S.REQUEUED}),  # only by `orch fsck --repair`, if the results are lost
        _S.FAILED: frozenset({_S.REQUEUED}),
        _S.CANCELLED: frozenset({_S.REQUEUED}),
    }
)
"""State -> states that may follow it."""


def advance(job_key: str, current: JobState, target: JobState) -> JobState:
    """Return `target` if the table allows the transition. Every change of a state goes through this function.

    Args:
        job_key: key of the job, for the message.
        current: the job's state.
        target: the state to change to.

    Raises:
        IllegalTransition: the table does not allow it; the message lists the allowed targets.
    """
    if target not in TRANSITIONS[current]:
        allowed = ", ".join(sorted(TRANSITIONS[current]))
        raise IllegalTransition(
            f"Job {job_key} is {current} and cannot become {target}. From {current} it can become: {allowed}."
        )
    return target
