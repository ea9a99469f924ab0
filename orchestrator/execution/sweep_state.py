"""What a driver knows of its sweep: the queue, the busy workers, and its own attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

from orchestrator.execution.estimate import Estimate, Finished, Kind, Pace, Running, Waiting, kind_of, time_left
from orchestrator.execution.job_matrix import Cell, Place, place_of
from orchestrator.execution.job_queue import JobQueue
from orchestrator.execution.scheduler import QueueEntry
from orchestrator.ledger.records import JobRecord, RunningJob
from orchestrator.planning.diff import PlannedJob, PlanStatus
from orchestrator.planning.frozen import features_key
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.order import Progress

_S = JobState
ESTIMATE_SECONDS_A_JOB = 5e-4
"""Least time, per job, between two estimates of the time left; one takes a few microseconds per job."""
ELSEWHERE_SECONDS = 5.0
"""Time between two checks of a job that another sweep's driver is running."""
_SHOWN = {_S.SUCCEEDED: "done", _S.FAILED: "failed", _S.CANCELLED: "cancelled"}
_ENDED = {PlanStatus.DONE: _S.SUCCEEDED, PlanStatus.FAILED: _S.FAILED, PlanStatus.CANCELLED: _S.CANCELLED}


@dataclass
class SweepState:
    """The driver's working memory. It dies with the driver; what must outlast it is in the ledger."""

    specs: dict[str, JobSpec]
    board: JobQueue
    """The queue, in the order in which jobs should run."""
    running: dict[int, str] = field(default_factory=dict)
    """Key of the job on each busy worker, until its attempt is settled."""
    at_work: set[int] = field(default_factory=set)
    """Workers whose attempt has not ended yet."""
    attempts: dict[str, int] = field(default_factory=dict)
    """Number of this driver's last attempt of each job that it began."""
    cancelling: dict[str, StopReason] = field(default_factory=dict)
    """Running jobs that a person has cancelled."""
    paces: dict[str, Pace] = field(default_factory=dict)
    """How fast each running job proceeds."""
    finished: Finished = field(default_factory=Finished)
    """Durations of the jobs that this driver ran from start to end."""
    past: Finished = field(default_factory=Finished)
    """What the store's finished jobs took of their worker process, see `past_of`."""
    accuracies: dict[str, float] = field(default_factory=dict)
    """Accuracy on held-out images of each job that has succeeded."""
    failures: Counter[str] = field(default_factory=Counter)
    """Number of failed jobs by stop reason."""

    _cells: dict[str, Cell] = field(default_factory=dict)
    """The cells of all jobs when they were drawn last."""
    _drawn_running: frozenset[str] = frozenset()
    """The jobs that ran then."""
    _drawn_stuck: frozenset[str] = frozenset()
    """The jobs that were blocked then."""
    _estimate: tuple[float, int, Estimate | None] | None = None
    """The last estimate of the time left that was computed, after when it was, and with how many workers."""
    _titles: dict[str, str] = field(default_factory=dict)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each job, for estimates of the time left."""
        upstream = {entry.upstream for entry in self.board.values()}
        known: dict[Kind, Kind] = {}  # equal kinds are one object, because a sweep has many jobs and few kinds
        found = ((key, kind_of(spec, key in upstream)) for key, spec in self.specs.items())
        return {key: known.setdefault(kind, kind) for key, kind in found}

    @classmethod
    def of(cls, planned: Iterable[PlannedJob]) -> SweepState:
        """Return the state before the first attempt."""
        jobs = list(planned)
        state = cls({job.spec.key: job.spec for job in jobs}, JobQueue(map(_queue_entry, jobs)))
        for job in jobs:
            if job.record is not None:
                state.note_end(job.record)
        return state

    def title(self, key: str) -> str:
        """Return the title of a job."""
        if key not in self._titles:
            self._titles[key] = self.specs[key].title
        return self._titles[key]

    def note_end(self, record: JobRecord) -> None:
        """Note how a job has ended, to show it."""
        metrics = record.result.metrics if record.result else None
        if record.state is _S.SUCCEEDED and metrics is not None:
            self.accuracies[record.key] = metrics.test_accuracy
        if record.state is _S.FAILED:
            self.failures[str(record.stop_reason)] += 1

    def adopt_end(self, record: JobRecord) -> None:
        """Take over from the ledger that a job has ended, and how."""
        self.set_state(record.key, record.state)
        self.note_end(record)

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where each job stands in the matrix; without pre-training."""
        found = {key: place_of(spec.title, spec.model_dump(mode="json")) for key, spec in self.specs.items()}
        return {key: place for key, place in found.items() if place is not None}

    def cells(self, progress: Mapping[int, Progress | None]) -> tuple[Cell, ...]:
        """Return the jobs as cells of the matrix.

        Args:
            progress: Newest progress of each busy worker.
        """
        running = {key: progress.get(worker) for worker, key in self.running.items()}
        stuck = frozenset(self.board.blocked())
        changed = self.board.take_replaced() | self._drawn_running | running.keys() | (stuck ^ self._drawn_stuck)
        self._drawn_running, self._drawn_stuck = frozenset(running), stuck
        for key in self._cells.keys() & changed if self._cells else self.places:
            self._cells[key] = self._cell(key, self.places[key], key in stuck, running)
        return tuple(self._cells.values())

    def _cell(self, key: str, place: Place, is_stuck: bool, running: Mapping[str, Progress | None]) -> Cell:
        if key in running:
            latest = running[key]
            known = latest is not None and latest.job_key == key and latest.epochs
            return Cell(place, "running", share=latest.epoch / latest.epochs if latest and known else None)
        status = _SHOWN.get(self.board[key].state, "blocked" if is_stuck else "waiting")
        return Cell(place, status, accuracy=self.accuracies.get(key))

    def running_jobs(self, progress: Mapping[int, Progress | None], most: int | None = None) -> list[RunningJob]:
        """Return how far each running job is, or the first of them.

        Args:
            progress: As for `cells`.
            most: How many jobs are wanted; None means all.
        """
        found = []
        for worker, key in islice(self.running.items(), most):
            latest, pace = progress.get(worker), self.paces.get(key)
            seconds = pace.epoch_seconds if pace else None
            if latest is None or latest.job_key != key:
                found.append(RunningJob(key=key, phase="starting"))
            else:
                found.append(
                    RunningJob(
                        key=key, phase=latest.phase, epoch=latest.epoch, epochs=latest.epochs, epoch_seconds=seconds
                    )
                )
        return found

    @property
    def ended(self) -> int:
        """Number of jobs that succeeded or failed."""
        return self.board.ended

    def time_left(
        self, progress: Mapping[int, Progress | None], slots: int, now: float, places: int = 1
    ) -> Estimate | None:
        """Estimate the time until the sweep is over; None while nothing is known.

        Args:
            progress: Newest progress of each busy worker.
            slots: Number of jobs that run at once.
            now: The time.
            places: Number of jobs that one process runs at once.
        """
        for worker, key in self.running.items():
            latest = progress.get(worker)
            own = latest if latest and latest.job_key == key else None
            self.paces[key] = self.paces.get(key, Pace(now)).after(own, now)
        if self._estimate is not None and self.running:
            at, workers, found = self._estimate
            passed = now - at
            if workers == slots and 0.0 <= passed < ESTIMATE_SECONDS_A_JOB * len(self.board):
                return found and found._replace(low=max(0.0, found.low - passed), high=max(0.0, found.high - passed))
        found = self._time_left(slots, now, places)
        self._estimate = now, slots, found
        return found

    def _time_left(self, slots: int, now: float, places: int) -> Estimate | None:
        stuck = set(self.board.blocked())
        waiting = [
            Waiting(entry.key, self.kinds[entry.key], entry.upstream)
            for entry in self.board.values()
            if entry.state in (_S.QUEUED, _S.REQUEUED) and entry.key not in stuck
        ]
        running = [Running(key, self.kinds[key], self.paces[key]) for key in self.running.values()]
        return time_left(waiting, running, self.finished, slots, now, self.past, places)

    def set_state(self, key: str, state: JobState) -> None:
        """Change a job's state in the queue."""
        self.board[key] = replace(self.board[key], state=state)

    def check_later(self, key: str, now: float) -> None:
        """Keep a job that another driver holds in the queue, but do not try it before ELSEWHERE_SECONDS."""
        self.board[key] = replace(self.board[key], not_before=now + ELSEWHERE_SECONDS)


def _queue_entry(job: PlannedJob) -> QueueEntry:
    upstream = job.spec.upstream
    return QueueEntry(
        job.spec.key,
        _ENDED.get(job.status, _S.QUEUED),
        upstream.key if upstream else None,
        features=features_key(job.spec),
    )
