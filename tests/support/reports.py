"""Builds sweeps with given results, for the tests of reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.ledger.job_moves import first_record
from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.diff import PlannedJob, PlanStatus
from orchestrator.planning.planner import PlannedSweep
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobMetrics, JobResult
from tests.support.doubles import metrics, plan_of

Measure = Callable[[JobSpec], JobMetrics]


def sweep_of(sweep: str | Mapping[str, Any] = "voc-part", **options: Any) -> tuple[PlannedSweep, list[JobSpec]]:
    """A planned sweep, and its jobs without pre-training."""
    planned = plan_of(sweep, **{"backbones": ("alexnet",), **options})
    return planned, [job for job in planned.jobs if job.key not in planned.upstream_keys]


def half(spec: JobSpec) -> JobMetrics:
    """Metrics in which interpretable networks have half the location instability of ordinary ones."""
    return metrics(0.9, 0.2 if spec.model.variant == "ordinary" else 0.1)


def done(spec: JobSpec, found: JobMetrics | None = None) -> PlannedJob:
    """A succeeded job with the given metrics, or those of `half`."""
    result = JobResult(job_key=spec.key, attempt=1, stop_reason=StopReason.FINISHED, metrics=found or half(spec))
    record = replace(first_record(spec, "s", 0.0, "r"), state=JobState.SUCCEEDED, result=result)
    return PlannedJob(spec, PlanStatus.DONE, "", record)


def stored(planned: PlannedSweep, **more: Any) -> StoredPlan:
    """The plan as the store keeps it."""
    return StoredPlan(
        name=planned.name,
        profile=planned.profile,
        jobs=tuple(job.model_dump(mode="json") for job in planned.jobs),
        upstream_keys=planned.upstream_keys,
        **more,
    )
