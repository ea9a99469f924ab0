"""What the ledger stores about jobs and sweeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from orchestrator.ledger.lease import Lease
from schemas.base import Stored
from schemas.errors import StoreError
from schemas.job import JobSpec, shared_dumps, validated
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult
from schemas.sweep import Resources


@dataclass(frozen=True)
class JobRecord:
    """A job as the ledger has it: its spec, its state and its last result."""

    key: str
    title: str
    spec_json: str
    sweep: str
    """Name of the sweep that queued the job first."""
    state: JobState
    last_sign_at: float
    """Unix seconds of the last move."""
    attempt: int = 0
    """Number of the last attempt; 0 before the first."""
    stop_reason: StopReason | None = None
    """Why the last attempt stopped."""
    result: JobResult | None = None
    """What the last attempt that returned something returned."""
    run_id: str = ""
    """Id of the job's MLflow run."""
    driven_by: str = ""
    """Name of the sweep whose driver holds the job now, or held it last."""
    threads: int = 0
    """Number of threads of the first attempt, which later attempts keep; 0 before the first."""

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The spec's fields as they were stored, not validated."""
        fields: dict[str, Any] = json.loads(self.spec_json)
        return fields

    @property
    def failure(self) -> str:
        """The last failure in one line; empty if there was no failure."""
        if self.result is None or self.result.failure is None:
            return ""
        message = self.result.failure.message.strip().splitlines()
        return f"{self.result.failure.kind}: {message[0] if message else ''}"


class Standing(NamedTuple):
    """The part of a job's record that its status depends on, which is read quickly for many jobs."""

    state: JobState
    driven_by: str


class ControlRequest(Stored):
    """A request to the driver of a sweep, stored with the sweep's run. The driver polls for requests every second."""

    id: str
    kind: Literal["pause", "cancel"]
    keys: tuple[str, ...] = ()
    """Keys of the jobs to cancel; empty for the whole sweep."""
    at: float
    """Unix seconds of the request."""


class JobName(NamedTuple):
    """A job's key, title and upstream job."""

    key: str
    title: str
    upstream: str | None
    """Key of the job whose weights it starts from."""


@dataclass(frozen=True, slots=True)
class JobOutline:
    """A job of a plan without validation of its spec, which would take seconds for thousands of jobs."""

    key: str
    title: str
    upstream: JobOutline | None
    """The job whose weights it starts from."""
    place: int = field(compare=False)
    """Its place in the plan."""
    read_fields: Callable[[int], dict[str, Any]] = field(compare=False, repr=False)
    """Returns the fields of the spec at a place."""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of its spec."""
        return self.read_fields(self.place)

    def model_dump(self, *, mode: str = "json") -> dict[str, Any]:
        """Return the fields of the spec, as `JobSpec.model_dump(mode="json")` does."""
        return self.fields


def _outlines_of(names: Sequence[JobName], read_fields: Callable[[int], dict[str, Any]]) -> tuple[JobOutline, ...]:
    known: dict[str, JobOutline] = {}
    for place, (key, title, upstream) in enumerate(names):
        known[key] = JobOutline(key, title, known[upstream] if upstream else None, place, read_fields)
    return tuple(known.values())


class StoredPlan(Stored):
    """A sweep as it was planned. `orch resume` runs this, even if grids or sweep files have changed since."""

    name: str
    profile: str
    data_root: str | None = None
    jobs: tuple[dict[str, Any], ...]
    upstream_keys: frozenset[str] = frozenset()
    """Keys of the jobs that run only because others start from their weights."""
    resources: Resources = Resources()
    names: tuple[JobName, ...] = ()
    """Names of the jobs, in the order of `jobs`."""

    @classmethod
    def of(
        cls, name: str, profile: str, data_root: str | None, jobs: Sequence[JobSpec], upstream_keys: frozenset[str],
        resources: Resources,
    ) -> StoredPlan:  # fmt: skip
        """Make the plan of validated jobs; arguments as the fields of this class."""
        return cls(
            name=name,
            profile=profile,
            data_root=data_root,
            jobs=shared_dumps(jobs),
            upstream_keys=upstream_keys,
            resources=resources,
            names=_names_of(jobs),
        )

    @property
    def all_names(self) -> tuple[JobName, ...]:
        """The names of all jobs, in the order of `jobs`.

        Raises:
            StoreError: The plan does not name every job, so another version of orch wrote it.
        """
        if len(self.names) != len(self.jobs):
            raise self._of_another_version(f"{len(self.names)} of {len(self.jobs)} jobs are named")
        return self.names

    @cached_property
    def outlines(self) -> tuple[JobOutline, ...]:
        """The jobs without validation of their specs, in the order of `jobs`.

        Raises:
            StoreError: The plan does not name every job, so another version of orch wrote it.
        """
        return _outlines_of(self.all_names, self.jobs.__getitem__)

    @cached_property
    def specs(self) -> tuple[JobSpec, ...]:
        """The jobs, validated.

        Raises:
            StoreError: The fields of a spec are not those of this version of orch.
        """
        try:
            return validated(self.jobs)
        except ValidationError as error:
            raise self._of_another_version(f"{error.error_count()} fields differ") from error

    def _of_another_version(self, detail: str) -> StoreError:
        return StoreError(
            f"Sweep {self.name} was planned by another version of orch ({detail}). "
            "Start it again under a new `--name`; unchanged jobs are reused."
        )


def _names_of(jobs: Iterable[JobSpec]) -> tuple[JobName, ...]:
    return tuple(JobName(job.key, job.title, job.upstream.key if job.upstream else None) for job in jobs)


class Waiting(Stored):
    """Why jobs of a running sweep have no worker."""

    reason: str
    """A sentence."""
    since: float
    """Unix seconds."""


class RunningJob(Stored):
    """How far a running job is, as its driver last saw it."""

    key: str
    phase: str
    """Current phase, such as `training`."""
    epoch: int = 0
    """Number of finished epochs."""
    epochs: int = 0
    """Total number of epochs."""
    epoch_seconds: float | None = None
    """Mean seconds per epoch; None while unknown."""


class SweepProgress(Stored):
    """How far a running sweep is, for other processes that show it. The driver writes it every few seconds."""

    at: float
    """Unix seconds."""
    running: tuple[RunningJob, ...] = ()
    low: float | None = None
    """Least seconds until the sweep is over; None while unknown."""
    high: float | None = None
    """Most seconds until the sweep is over; None while unknown."""
    unknown: int = 0
    """Number of jobs that the estimate leaves out."""


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as the ledger has it."""

    name: str
    run_id: str
    """Id of the sweep's MLflow run."""
    started_at: float
    """Unix seconds at which the sweep began."""
    read_plan: Callable[[], StoredPlan | None] = field(compare=False, repr=False)
    """Reads the plan from the store."""
    lease: Lease | None = None
    """The lease of its driver; None if it has no driver."""
    waiting: Waiting | None = None
    """Why some of its jobs have no worker; None if none waits for a machine."""
    progress: SweepProgress | None = None
    """How far it is; None if it has no driver, or none that has written it yet."""
    read_names: Callable[[], tuple[JobName, ...]] = field(default=tuple, compare=False, repr=False)
    """Reads the names of the plan's jobs from the store; none if only the plan has them."""

    @cached_property
    def plan(self) -> StoredPlan | None:
        """The plan, read at the first access; None if the sweep's first driver has not written it yet.

        Raises:
            StoreError: The plan is damaged or gone.
        """
        return self.read_plan()

    @cached_property
    def names(self) -> tuple[JobName, ...]:
        """The names of the plan's jobs, in its order; none without a plan.

        Raises:
            StoreError: The names, or the plan where only it has them, are damaged or gone.
        """
        return self.read_names() or (self.plan.all_names if self.plan else ())

    @cached_property
    def outlines(self) -> tuple[JobOutline, ...]:
        """The jobs of the plan, whose specs are read only if they are asked for.

        Raises:
            StoreError: As for `names`.
        """
        return _outlines_of(self.names, self._fields_of)

    def outline(self, place: int) -> JobOutline:
        """Return one of `outlines`, without making those of all jobs."""
        key, title, upstream = self.names[place]
        start = self.outline(self._places[upstream]) if upstream else None
        return JobOutline(key, title, start, place, self._fields_of)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name.key: place for place, name in enumerate(self.names)}

    def _fields_of(self, place: int) -> dict[str, Any]:
        return self.plan.jobs[place] if self.plan else {}


@dataclass(frozen=True)
class JobRun:
    """A run that is tagged as a job's, whether or not its record can be read."""

    run_id: str
    key: str
    title: str
    status: str
    """MLflow's run status."""
    record: JobRecord | None
    """The job; None if the tags cannot be read."""
    problem: str = ""
    """Why the tags cannot be read."""
    never_began: bool = False
    """True if the run has not changed since it was created."""


@dataclass(frozen=True)
class SweepEntry:
    """A run that is tagged as a sweep's."""

    record: SweepRecord
    """The sweep; its plan is None if it cannot be read."""
    status: str
    """MLflow's run status."""
    problem: str = ""
    """Why the plan cannot be read."""


def records_of(runs: Iterable[JobRun]) -> dict[str, JobRecord]:
    """Return the records of jobs by key.

    Args:
        runs: Runs of jobs; the first of a key counts.

    Raises:
        StoreError: A run cannot be read.
    """
    records: dict[str, JobRecord] = {}
    for run in runs:
        if run.record is None:
            raise StoreError(run.problem)
        records.setdefault(run.key, run.record)
    return records


def standings_of(records: Mapping[str, JobRecord]) -> dict[str, Standing]:
    """Return the standings of jobs by key."""
    return {key: Standing(record.state, record.driven_by) for key, record in records.items()}


def newest_first(sweeps: Iterable[SweepRecord]) -> list[SweepRecord]:
    """Return one record per name, newest first, from records of which the first of a name counts."""
    by_name: dict[str, SweepRecord] = {}
    for sweep in sweeps:
        by_name.setdefault(sweep.name, sweep)
    return sorted(by_name.values(), key=lambda sweep: -sweep.started_at)
