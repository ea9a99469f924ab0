"""What a driver knows of its sweep: the queue, the slots, and its own attempts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from orchestrator.execution.estimate import Estimate, Finished, Kind, Pace, Running, Waiting, kind_of, time_left
from orchestrator.execution.scheduler import QueueEntry, blocked
from orchestrator.planning.diff import PlannedJob, PlanStatus
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.order import Progress

_S = JobState
ELSEWHERE_SECONDS = 5.0
"""Time between two checks of a job that another sweep's driver is running."""
_ENDED = {PlanStatus.DONE: _S.SUCCEEDED, PlanStatus.FAILED: _S.FAILED, PlanStatus.CANCELLED: _S.CANCELLED}


@dataclass
class SweepState:
    """The driver's working memory. It dies with the driver; what must outlast it is in the ledger."""

    specs: dict[str, JobSpec]
    board: dict[str, QueueEntry]
    """The queue, in the order in which jobs should run."""
    running: dict[int, str] = field(default_factory=dict)
    """Key of the job on each busy slot, until its attempt is settled."""
    at_work: set[int] = field(default_factory=set)
    """Slots whose attempt has not ended yet."""
    attempts: dict[str, int] = field(default_factory=dict)
    """Number of this driver's last attempt of each job that it began."""
    cancelling: dict[str, StopReason] = field(default_factory=dict)
    """Running jobs that a person has cancelled."""
    paces: dict[str, Pace] = field(default_factory=dict)
    """How fast each running job proceeds."""
    finished: Finished = field(default_factory=Finished)
    """Durations of the jobs that this driver ran from start to end."""

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each job, for estimates of the time left."""
        upstream = {entry.upstream for entry in self.board.values()}
        return {key: kind_of(spec, key in upstream) for key, spec in self.specs.items()}

    @classmethod
    def of(cls, planned: Iterable[PlannedJob]) -> SweepState:
        """Return the state before the first attempt."""
        jobs = list(planned)
        return cls({job.spec.key: job.spec for job in jobs}, {job.spec.key: _queue_entry(job) for job in jobs})

    @property
    def ended(self) -> int:
        """Number of jobs that succeeded or failed."""
        return sum(entry.state in (_S.SUCCEEDED, _S.FAILED) for entry in self.board.values())

    def time_left(self, progress: Mapping[int, Progress | None], slots: int, now: float) -> Estimate | None:
        """Estimate the time until the sweep is over; None while nothing is known.

        Args:
            progress: Newest progress of each busy slot.
            slots: Number of jobs that run at once.
            now: The time.
        """
        for slot, key in self.running.items():
            latest = progress.get(slot)
            own = latest if latest and latest.job_key == key else None
            self.paces[key] = self.paces.get(key, Pace(now)).after(own, now)
        stuck = set(blocked(self.board))
        waiting = [
            Waiting(entry.key, self.kinds[entry.key], entry.upstream)
            for entry in self.board.values()
            if entry.state in (_S.QUEUED, _S.REQUEUED) and entry.key not in stuck
        ]
        running = [Running(key, self.kinds[key], self.paces[key]) for key in self.running.values()]
        return time_left(waiting, running, self.finished, slots, now)

    def set_state(self, key: str, state: JobState) -> None:
        """Change a job's state in the queue."""
        self.board[key] = replace(self.board[key], state=state)

    def check_later(self, key: str, now: float) -> None:
        """Keep a job that another driver holds in the queue, but do not try it before ELSEWHERE_SECONDS."""
        self.board[key] = replace(self.board[key], not_before=now + ELSEWHERE_SECONDS)


def _queue_entry(job: PlannedJob) -> QueueEntry:
    upstream = job.spec.upstream
    return QueueEntry(job.spec.key, _ENDED.get(job.status, _S.QUEUED), upstream.key if upstream else None)
