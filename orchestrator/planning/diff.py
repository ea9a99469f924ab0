"""Holds a plan against the ledger: what is new, done, changed, failed, lost or running, and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from orchestrator.ledger.records import JobRecord, StoredPlan
from orchestrator.planning.layers import describe_difference, differences, has
from schemas.errors import SpecError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason

MANY_CHANGES = 12
"""So many changed fields are shown of a sweep that is another one under the same name."""
FEW_CHANGES = 3
"""A finished job that differs in more fields than this is another job, not a former version of this one."""


class PlanStatus(StrEnum):
    NEW = "new"
    DONE = "done"
    CHANGED = "changed"
    FAILED = "failed"
    LOST = "lost"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    BLOCKED = "blocked"


_TO_RUN = frozenset({PlanStatus.NEW, PlanStatus.CHANGED, PlanStatus.LOST, PlanStatus.INTERRUPTED})


class Named(Protocol):
    """What of a job must be known to find it in the ledger: its spec, or a plan's outline of it."""

    @property
    def key(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def upstream(self) -> Named | None: ...

    def model_dump(self, *, mode: str = ...) -> dict[str, Any]: ...


Spec = TypeVar("Spec", bound=Named)
Known = TypeVar("Known", bound=Named, covariant=True, default=JobSpec)


@dataclass(frozen=True)
class PlannedJob(Generic[Known]):
    spec: Known
    status: PlanStatus
    why: str
    record: JobRecord | None = None

    @property
    def will_run(self) -> bool:
        return self.status in _TO_RUN


def compare(
    jobs: Collection[Spec],
    records: Mapping[str, JobRecord],
    driver_is_alive: Callable[[str], bool],
) -> list[PlannedJob[Spec]]:
    """Each job with what the ledger says about it. `driver_is_alive` answers for a sweep's name."""
    by_title: dict[str, list[JobRecord]] = {}
    for record in records.values():
        by_title.setdefault(record.title, []).append(record)
    found: dict[str, PlannedJob[Spec]] = {}
    for spec in jobs:
        found[spec.key] = _compare_one(spec, records, by_title, driver_is_alive, found)
    return list(found.values())


def _compare_one(
    spec: Spec,
    records: Mapping[str, JobRecord],
    by_title: Mapping[str, list[JobRecord]],
    driver_is_alive: Callable[[str], bool],
    earlier: Mapping[str, PlannedJob[Spec]],
) -> PlannedJob[Spec]:
    record = records.get(spec.key)
    if record is not None and record.state is JobState.SUCCEEDED:
        return PlannedJob(spec, PlanStatus.DONE, _where_done(record), record)
    upstream = earlier.get(spec.upstream.key) if spec.upstream else None
    if upstream is not None and upstream.status in (PlanStatus.FAILED, PlanStatus.CANCELLED, PlanStatus.BLOCKED):
        return PlannedJob(spec, PlanStatus.BLOCKED, f"{upstream.spec.title} {upstream.status}", record)
    if record is None:
        return _never_begun(spec, by_title.get(spec.title, []))
    if record.state in (JobState.RUNNING, JobState.QUEUED):
        if driver_is_alive(record.driven_by):
            return PlannedJob(spec, PlanStatus.RUNNING, f"in sweep {record.driven_by}", record)
        if record.state is JobState.RUNNING:
            return PlannedJob(spec, PlanStatus.LOST, f"its driver died in attempt {record.attempt}", record)
        return PlannedJob(spec, PlanStatus.INTERRUPTED, "was queued when its driver stopped", record)
    if record.state is JobState.FAILED:
        return PlannedJob(spec, PlanStatus.FAILED, record.failure or str(record.stop_reason), record)
    if record.state is JobState.CANCELLED:
        alone = record.stop_reason is not StopReason.SWEEP_CANCELLED
        return PlannedJob(spec, PlanStatus.CANCELLED, "by the user" if alone else "with its sweep", record)
    again = ", will be tried again" if driver_is_alive(record.driven_by) else ""
    why = f"stopped in attempt {record.attempt} ({_stop_of(record)}){again}" if record.attempt else "put back"
    return PlannedJob(spec, PlanStatus.INTERRUPTED, why, record)


def _stop_of(record: JobRecord) -> str:
    """Why a job's last attempt stopped, with what went wrong in it."""
    failed = record.result is not None and record.result.attempt == record.attempt and record.result.has_failed
    return f"{record.stop_reason}: {record.failure}" if failed else str(record.stop_reason)


def _told_apart(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What differs, but for fields that there were not yet when the old spec was written: those have their defaults."""
    changes = differences(old, new)
    return [change for change in changes if has(old, change[0])] or changes


def _where_done(record: JobRecord) -> str:
    metrics = record.result.metrics if record.result else None
    return f"in sweep {record.sweep}" + (f", accuracy {metrics.test_accuracy:.3f}" if metrics else "")


def _never_begun(spec: Spec, namesakes: list[JobRecord]) -> PlannedJob[Spec]:
    if not namesakes:
        return PlannedJob(spec, PlanStatus.NEW, "")
    fields = spec.model_dump(mode="json")
    candidates = [_told_apart(record.fields, fields) for record in namesakes]
    nearest = min(candidates, key=len, default=[])
    if not nearest or len(nearest) > FEW_CHANGES:
        return PlannedJob(spec, PlanStatus.NEW, "")
    return PlannedJob(spec, PlanStatus.CHANGED, "; ".join(describe_difference(*change) for change in nearest))


def with_earlier_results(
    jobs: Collection[PlannedJob], stored: StoredPlan, records: Mapping[str, JobRecord]
) -> list[PlannedJob]:
    """The jobs of a stored plan, done also where an earlier version did them, whose specs had fewer fields."""
    written = {_canonical(r.fields): r for r in records.values() if r.state is JobState.SUCCEEDED}
    return [
        job if earlier is None else PlannedJob(job.spec, PlanStatus.DONE, _where_done(earlier), earlier)
        for job, fields in zip(jobs, stored.jobs, strict=True)
        for earlier in [written.get(_canonical(fields)) if job.status is not PlanStatus.DONE else None]
    ]


def _canonical(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True)


def check_same_sweep(stored: StoredPlan, jobs: Collection[JobSpec]) -> None:
    """A name stands for one set of jobs.

    Raises:
        SpecError: `jobs` are not those of the stored sweep; the message shows the difference.
    """
    before = {spec.key: spec for spec in stored.specs}
    after = {job.key: job for job in jobs}
    gone = [before[key] for key in before if key not in after]
    added = [after[key] for key in after if key not in before]
    if not gone and not added:
        return
    changes = "\n".join(f"  {line}" for line in _describe_change(gone, added))
    raise SpecError(
        f"Sweep {stored.name!r} already exists with other jobs:\n{changes}\n"
        f"Give this one another name (`--name`), or go on with the old one: `orch resume {stored.name}`. "
        "Jobs that both have are not run again."
    )


def _describe_change(gone: list[JobSpec], added: list[JobSpec]) -> Iterator[str]:
    """A line for each field that changed, then the jobs that only one of the two sweeps has."""
    old_by_title = {spec.title: spec for spec in gone}
    pairs = [(old_by_title.pop(spec.title), spec) for spec in added if spec.title in old_by_title]
    changed = Counter(
        describe_difference(*change)
        for pair in pairs
        for change in differences(*(spec.model_dump(mode="json") for spec in pair))
    )
    for change, jobs in changed.most_common(MANY_CHANGES):
        yield f"{change} ({_jobs(jobs)})"
    if len(changed) > MANY_CHANGES:
        yield f"... and {len(changed) - MANY_CHANGES} more changes"
    in_both = {new.title for _, new in pairs}
    for specs, verb in (([s for s in added if s.title not in in_both], "added"), (list(old_by_title.values()), "gone")):
        if specs:
            yield f"{_jobs(len(specs))} {verb}: {_titles(specs)}"


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


def _titles(specs: list[JobSpec]) -> str:
    return ", ".join(spec.title for spec in specs[:3]) + (", ..." if len(specs) > 3 else "")
