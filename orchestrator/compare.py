"""Holds a plan against the ledger: what is new, done, changed, failed, lost or running, and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.merge import describe_difference, differences
from orchestrator.records import JobRecord, StoredPlan
from schemas.errors import SpecError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason

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


@dataclass(frozen=True)
class PlannedJob:
    spec: JobSpec
    status: PlanStatus
    why: str
    record: JobRecord | None = None

    @property
    def will_run(self) -> bool:
        return self.status in _TO_RUN


def compare(
    jobs: Collection[JobSpec],
    records: Mapping[str, JobRecord],
    driver_is_alive: Callable[[str], bool],
) -> list[PlannedJob]:
    """Each job with what the ledger says about it. `driver_is_alive` answers for a sweep's name."""
    by_title: dict[str, list[JobRecord]] = {}
    for record in records.values():
        by_title.setdefault(record.title, []).append(record)
    found: dict[str, PlannedJob] = {}
    for spec in jobs:
        found[spec.key] = _compare_one(spec, records, by_title, driver_is_alive, found)
    return list(found.values())


def _compare_one(
    spec: JobSpec,
    records: Mapping[str, JobRecord],
    by_title: Mapping[str, list[JobRecord]],
    driver_is_alive: Callable[[str], bool],
    earlier: Mapping[str, PlannedJob],
) -> PlannedJob:
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
    return PlannedJob(
        spec, PlanStatus.INTERRUPTED, f"stopped in attempt {record.attempt} ({record.stop_reason})", record
    )


def _where_done(record: JobRecord) -> str:
    metrics = record.result.metrics if record.result else None
    return f"in sweep {record.sweep}" + (f", accuracy {metrics.test_accuracy:.3f}" if metrics else "")


def _never_begun(spec: JobSpec, namesakes: list[JobRecord]) -> PlannedJob:
    fields = spec.model_dump(mode="json")
    candidates = [differences(record.fields, fields) for record in namesakes]
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
    raise SpecError(
        f"Sweep {stored.name!r} already exists with other jobs: {_describe_change(gone, added)}. "
        f"Give this one another name (`--name`), or go on with the old one: `orch resume {stored.name}`. "
        "Jobs that both have are not run again."
    )


def _describe_change(gone: list[JobSpec], added: list[JobSpec]) -> str:
    old_by_title = {spec.title: spec for spec in gone}
    pairs = [(old_by_title[spec.title], spec) for spec in added if spec.title in old_by_title]
    if pairs:
        old, new = (spec.model_dump(mode="json") for spec in pairs[-1])
        changes = [describe_difference(*change) for change in differences(old, new)]
        more = f" and {len(changes) - FEW_CHANGES} more" if len(changes) > FEW_CHANGES else ""
        return f"{len(pairs)} jobs differ, as {pairs[-1][1].title} in {'; '.join(changes[:FEW_CHANGES])}{more}"
    parts = [
        f"{len(specs)} jobs {verb} ({_titles(specs)})" for specs, verb in ((added, "added"), (gone, "gone")) if specs
    ]
    return ", ".join(parts)


def _titles(specs: list[JobSpec]) -> str:
    return ", ".join(spec.title for spec in specs[:3]) + (", ..." if len(specs) > 3 else "")
