"""What the ledger remembers of jobs and sweeps, and when a driver counts as alive."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from orchestrator.ledger.lease import Lease
from schemas.base import Stored
from schemas.errors import StoreError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult
from schemas.sweep import Resources


@dataclass(frozen=True)
class JobRecord:
    key: str
    title: str
    spec_json: str
    sweep: str
    """The sweep that first ran the job."""
    state: JobState
    last_sign_at: float
    """Unix seconds of the last move."""
    attempt: int = 0
    stop_reason: StopReason | None = None
    result: JobResult | None = None
    run_id: str = ""
    driven_by: str = ""
    """The sweep whose driver holds the job now, or held it last."""
    threads: int = 0
    """On which its first attempt computed, and so every further one; 0 before that."""

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The spec as it was written, whatever version wrote it."""
        fields: dict[str, Any] = json.loads(self.spec_json)
        return fields

    @property
    def failure(self) -> str:
        """One line on what went wrong, empty where nothing did."""
        if self.result is None or self.result.failure is None:
            return ""
        message = self.result.failure.message.strip().splitlines()
        return f"{self.result.failure.kind}: {message[0] if message else ''}"


class ControlRequest(Stored):
    """What a person asks of a sweep's driver, left on the sweep's run, where the driver looks every second."""

    id: str
    kind: Literal["pause", "cancel"]
    keys: tuple[str, ...] = ()
    """The jobs to cancel; none named means the whole sweep."""
    at: float


class JobName(NamedTuple):
    """How a job of a plan is told from the others."""

    key: str
    title: str
    upstream: str | None
    """Key of the job it starts from."""


@dataclass(frozen=True)
class JobOutline:
    """A job of a plan for those who only look: reading thousands of whole specs takes seconds."""

    key: str
    title: str
    upstream: JobOutline | None
    fields: dict[str, Any]

    def model_dump(self, *, mode: str = "json") -> dict[str, Any]:
        return self.fields


class StoredPlan(Stored):
    """A sweep as it was planned: what `orch resume` runs, whatever became of grids and files since."""

    name: str
    profile: str
    data_root: str | None = None
    jobs: tuple[dict[str, Any], ...]
    upstream_keys: frozenset[str] = frozenset()
    """Jobs that only lend their weights to others."""
    resources: Resources = Resources()
    names: tuple[JobName, ...] = ()
    """Of the jobs, in their order; plans written by earlier versions have none."""

    @classmethod
    def of(
        cls, name: str, profile: str, data_root: str | None, jobs: Sequence[JobSpec], upstream_keys: frozenset[str],
        resources: Resources,
    ) -> StoredPlan:  # fmt: skip
        return cls(
            name=name,
            profile=profile,
            data_root=data_root,
            jobs=tuple(job.model_dump(mode="json") for job in jobs),
            upstream_keys=upstream_keys,
            resources=resources,
            names=_names_of(jobs),
        )

    @cached_property
    def outlines(self) -> tuple[JobOutline, ...]:
        """
        Raises:
            StoreError: as for `specs`, which the plan of an earlier version must be read as.
        """
        known: dict[str, JobOutline] = {}
        for (key, title, upstream), fields in zip(self.names or _names_of(self.specs), self.jobs, strict=True):
            known[key] = JobOutline(key, title, known[upstream] if upstream else None, fields)
        return tuple(known.values())

    @cached_property
    def specs(self) -> tuple[JobSpec, ...]:
        """
        Raises:
            StoreError: the plan was written by a version whose specs this one cannot read.
        """
        try:
            return tuple(JobSpec.model_validate(fields) for fields in self.jobs)
        except ValidationError as error:
            raise StoreError(
                f"Sweep {self.name} was planned by another version of orch ({error.error_count()} fields differ). "
                "Start it again under a new `--name`; jobs that are the same will be reused."
            ) from error


def _names_of(jobs: Iterable[JobSpec]) -> tuple[JobName, ...]:
    return tuple(JobName(job.key, job.title, job.upstream.key if job.upstream else None) for job in jobs)


@dataclass(frozen=True)
class SweepRecord:
    name: str
    run_id: str
    started_at: float
    read_plan: Callable[[], StoredPlan | None] = field(compare=False, repr=False)
    lease: Lease | None = None

    @cached_property
    def plan(self) -> StoredPlan | None:
        """None while the sweep's first driver has not yet written it. Read when first asked for: who only wants to
        know whether a sweep is driven needs none.

        Raises:
            StoreError: it is damaged or gone.
        """
        return self.read_plan()


@dataclass(frozen=True)
class JobRun:
    """A run of the store that says it is a job's, readable or not."""

    run_id: str
    key: str
    title: str
    status: str
    """MLflow's word for how it stands."""
    record: JobRecord | None
    problem: str = ""
    """Why no record can be read from it."""
    never_began: bool = False
    """Nothing came of it since it was created."""


@dataclass(frozen=True)
class SweepEntry:
    """A sweep's run, with what is wrong with it."""

    record: SweepRecord
    """Without its plan, where that is damaged."""
    status: str
    """MLflow's word for how it stands."""
    problem: str = ""
    """Why its plan cannot be read."""
