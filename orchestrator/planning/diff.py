"""Compares a plan with the ledger: which jobs are new, done, changed, failed, lost or running, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from orchestrator.ledger.records import JobName, JobRecord, Standing, StoredPlan
from orchestrator.planning.setting_layers import describe_difference, differences
from schemas.errors import SpecError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason

MAX_LISTED_CHANGES = 12
"""Largest number of changed fields that a message lists."""
MAX_CHANGES = 3
"""Largest number of differing fields for which a finished job of the same title counts as a former version."""


class PlanStatus(StrEnum):
    """What the ledger knows about a planned job."""

    NEW = "new"
    DONE = "done"
    CHANGED = "changed"
    FAILED = "failed"
    LOST = "lost"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    BLOCKED = "blocked"


_HELD = frozenset({JobState.RUNNING, JobState.QUEUED})
_BLOCKING = frozenset({PlanStatus.FAILED, PlanStatus.CANCELLED, PlanStatus.BLOCKED})
_STATUS = {JobState.FAILED: PlanStatus.FAILED, JobState.CANCELLED: PlanStatus.CANCELLED}
_TO_RUN = frozenset({PlanStatus.NEW, PlanStatus.CHANGED, PlanStatus.LOST, PlanStatus.INTERRUPTED})


class Named(Protocol):
    """A job that can be looked up in the ledger: its spec, or a stored plan's outline of it."""

    @property
    def key(self) -> str:
        """Identity of the job."""
        ...

    @property
    def title(self) -> str:
        """Name for people; several jobs may share it."""
        ...

    @property
    def upstream(self) -> Named | None:
        """The job that it starts from, if any."""
        ...

    def model_dump(self, *, mode: str = ...) -> dict[str, Any]:
        """Return the fields of the spec."""
        ...


Spec = TypeVar("Spec", bound=Named)
Known = TypeVar("Known", bound=Named, covariant=True, default=JobSpec)


@dataclass(frozen=True, slots=True)
class PlannedJob(Generic[Known]):
    """A job of a plan with its status in the ledger."""

    spec: Known
    status: PlanStatus
    why: str
    """Reason for the status, for people; may be empty."""
    record: JobRecord | None = None
    """The ledger's record; None if the job has never begun."""

    @property
    def will_run(self) -> bool:
        """Whether `orch sweep` or `orch resume` runs the job."""
        return self.status in _TO_RUN


def compare(
    jobs: Collection[Spec],
    records: Mapping[str, JobRecord],
    driver_is_alive: Callable[[str], bool],
) -> list[PlannedJob[Spec]]:
    """Look up each job in the ledger.

    Args:
        jobs: the jobs of a plan, each after the job it starts from.
        records: the ledger's jobs by key.
        driver_is_alive: returns whether the sweep of a name has a live driver.

    Returns:
        The jobs with their status, in their order; a key that occurs twice once.
    """
    by_title: dict[str, list[JobRecord]] = {}
    for record in records.values():
        by_title.setdefault(record.title, []).append(record)
    found: dict[str, PlannedJob[Spec]] = {}
    for spec in jobs:
        found[spec.key] = _compare_one(spec, records, by_title, driver_is_alive, found)
    return list(found.values())


def statuses(
    jobs: Iterable[JobName], standings: Mapping[str, Standing], driver_is_alive: Callable[[str], bool]
) -> dict[str, PlanStatus]:
    """Return the status of each job by key, as `compare` does with the records of these jobs alone.

    Args:
        jobs: the jobs of a plan, each after the job it starts from.
        standings: the ledger's jobs by key.
        driver_is_alive: as for `compare`.
    """
    found: dict[str, PlanStatus] = {}
    for key, _, upstream in jobs:
        found[key] = _status(standings.get(key), found.get(upstream) if upstream else None, driver_is_alive)
    return found


def _status(
    standing: Standing | JobRecord | None, upstream: PlanStatus | None, driver_is_alive: Callable[[str], bool]
) -> PlanStatus:
    """The status of a job; NEW of every job that has never begun."""
    if standing is not None and standing.state is JobState.SUCCEEDED:
        return PlanStatus.DONE
    if upstream in _BLOCKING:
        return PlanStatus.BLOCKED
    if standing is None:
        return PlanStatus.NEW
    if standing.state in _HELD:
        if driver_is_alive(standing.driven_by):
            return PlanStatus.RUNNING
        return PlanStatus.LOST if standing.state is JobState.RUNNING else PlanStatus.INTERRUPTED
    return _STATUS.get(standing.state, PlanStatus.INTERRUPTED)


def _compare_one(
    spec: Spec,
    records: Mapping[str, JobRecord],
    by_title: Mapping[str, list[JobRecord]],
    driver_is_alive: Callable[[str], bool],
    earlier: Mapping[str, PlannedJob[Spec]],
) -> PlannedJob[Spec]:
    record = records.get(spec.key)
    upstream = earlier.get(spec.upstream.key) if spec.upstream else None
    status = _status(record, upstream.status if upstream else None, driver_is_alive)
    if status is PlanStatus.BLOCKED and upstream is not None:
        return PlannedJob(spec, status, f"{upstream.spec.title} {upstream.status}", record)
    if record is None:
        return _without_record(spec, by_title.get(spec.title, []))
    return PlannedJob(spec, status, _why(status, record, driver_is_alive), record)


def _why(status: PlanStatus, record: JobRecord, driver_is_alive: Callable[[str], bool]) -> str:
    """Reason for the status of a job that has begun and is not blocked."""
    if status is PlanStatus.DONE:
        return _where_done(record)
    if status is PlanStatus.RUNNING:
        return f"in sweep {record.driven_by}"
    if status is PlanStatus.LOST:
        return f"its driver died in attempt {record.attempt}"
    if status is PlanStatus.FAILED:
        return record.failure or str(record.stop_reason)
    if status is PlanStatus.CANCELLED:
        alone = record.stop_reason is not StopReason.SWEEP_CANCELLED
        return "by the user" if alone else "with its sweep"
    if record.state is JobState.QUEUED:
        return "queued when its driver stopped"
    again = ", will be retried" if driver_is_alive(record.driven_by) else ""
    return f"stopped in attempt {record.attempt} ({_stop_of(record)}){again}" if record.attempt else "requeued"


def _stop_of(record: JobRecord) -> str:
    """Reason why a job's last attempt stopped, with its failure if there was one."""
    failed = record.result is not None and record.result.attempt == record.attempt and record.result.has_failed
    return f"{record.stop_reason}: {record.failure}" if failed else str(record.stop_reason)


def _where_done(record: JobRecord) -> str:
    metrics = record.result.metrics if record.result else None
    return f"in sweep {record.sweep}" + (f", accuracy {metrics.accuracy_text}" if metrics else "")


def _without_record(spec: Spec, same_title: list[JobRecord]) -> PlannedJob[Spec]:
    """New, or changed if a job of the same title differs in few fields."""
    if not same_title:
        return PlannedJob(spec, PlanStatus.NEW, "")
    fields = spec.model_dump(mode="json")
    candidates = [differences(record.fields, fields) for record in same_title]
    nearest = min(candidates, key=len, default=[])
    if not nearest or len(nearest) > MAX_CHANGES:
        return PlannedJob(spec, PlanStatus.NEW, "")
    return PlannedJob(spec, PlanStatus.CHANGED, "; ".join(describe_difference(*change) for change in nearest))


def check_same_sweep(stored: StoredPlan, jobs: Collection[JobSpec], resume: str = "") -> None:
    """Check that a stored sweep consists of the given jobs.

    Args:
        stored: the plan that the store has under this name.
        jobs: the jobs that were planned now.
        resume: command that continues the sweep, if it is not `orch resume` alone.

    Raises:
        SpecError: the jobs differ; the message lists the differences.
    """
    before = {spec.key: spec for spec in stored.specs}
    after = {job.key: job for job in jobs}
    gone = [before[key] for key in before if key not in after]
    added = [after[key] for key in after if key not in before]
    if not gone and not added:
        return
    resume = resume or f"orch resume {stored.name}"
    changes = "\n".join(f"  {line}" for line in _describe_change(gone, added))
    raise SpecError(
        f"Sweep {stored.name!r} already exists with other jobs:\n{changes}\n"
        f"Give the new sweep another name (`--name`), or continue the old one: `{resume}`. "
        "Jobs that both sweeps have do not run again."
    )


def _describe_change(gone: list[JobSpec], added: list[JobSpec]) -> Iterator[str]:
    """Yield a line for each field that changed, then the jobs that only one of the sweeps has."""
    old_by_title = {spec.title: spec for spec in gone}
    pairs = [(old_by_title.pop(spec.title), spec) for spec in added if spec.title in old_by_title]
    changed = Counter(
        describe_difference(*change)
        for pair in pairs
        for change in differences(*(spec.model_dump(mode="json") for spec in pair))
    )
    for change, jobs in changed.most_common(MAX_LISTED_CHANGES):
        yield f"{change} ({_jobs(jobs)})"
    if len(changed) > MAX_LISTED_CHANGES:
        yield f"... and {len(changed) - MAX_LISTED_CHANGES} more changes"
    in_both = {new.title for _, new in pairs}
    for specs, verb in (
        ([s for s in added if s.title not in in_both], "added"),
        (list(old_by_title.values()), "removed"),
    ):
        if specs:
            yield f"{_jobs(len(specs))} {verb}: {_titles(specs)}"


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


def _titles(specs: list[JobSpec]) -> str:
    return ", ".join(spec.title for spec in specs[:3]) + (", ..." if len(specs) > 3 else "")
