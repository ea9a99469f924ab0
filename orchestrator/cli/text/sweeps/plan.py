"""What `orch plan` prints: a summary with a table of jobs, and the shape of `--json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import LISTED, JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.cli.text.jobs import JobId
from orchestrator.cli.text.sweeps.job_status import STYLES, counts_text
from orchestrator.planning.diff import Named, PlannedJob, PlanStatus
from orchestrator.wording import range_text

if TYPE_CHECKING:
    from orchestrator.services.costs import Cost
    from orchestrator.services.sweeps import Plan

_NEEDED = {"part_interpretability": "part masks of all objects", "location_instability": "landmarks"}
"""Metric -> what it needs of photographs."""


def plan_text(plan: Plan, all_jobs: bool) -> RenderableType:
    """A plan as a summary and a table of its first jobs, or with `all_jobs` of all."""
    upstream = len(plan.sweep.upstream_keys)
    total = f"{len(plan.jobs) - upstream} jobs" + (f" and {upstream} pre-training" if upstream else "")
    head = Text(f"sweep {plan.sweep.name}: {total}: {counts_text(plan.counts)}")
    images = sorted({job.spec.data.images for job in plan.jobs if job.spec.key not in plan.sweep.upstream_keys})
    source = f"profile {plan.sweep.profile}, {' and '.join(images)}" + (
        f" from {plan.data_root}" if plan.data_root else ""
    )
    listed = plan.jobs if all_jobs else plan.jobs[:LISTED]
    facts = [Text(source), *(Text(line) for line in _plan_facts(plan))]
    parts: list[RenderableType] = [head, *facts, Text(""), _job_table(listed)]
    if len(listed) < len(plan.jobs):
        parts.append(Text(f"... and {len(plan.jobs) - len(listed)} more (--all lists them)"))
    return Group(*parts)


def _plan_facts(plan: Plan) -> Iterator[str]:
    yield from (f"warning: {warning}" for warning in plan.sweep.warnings)
    if plan.filled:
        listed = ", ".join(f"{table} ({values} of {of})" for table, values, of in plan.filled)
        given = "" if plan.data_seen else ", if the photographs have landmarks and part masks"
        yield f"values of the paper's tables{given}: {listed}"
    for metric, names in plan.unmeasurable.items():
        yield f"no {metric.replace('_', ' ')}, because there are no {_NEEDED[metric]}: {', '.join(names)}"
    if plan.cost is not None:
        yield _cost_text(plan.cost)
    if plan.frozen.computed < plan.frozen.jobs:
        times = "once" if plan.frozen.computed == 1 else f"{plan.frozen.computed} times"
        yield f"frozen layers: computed {times} for {plan.frozen.jobs} jobs"
    if not plan.data_seen:
        yield "no data root is given, so photographs and finished jobs were not checked; add --data-root FOLDER"


def _cost_text(cost: Cost) -> str:
    """What the jobs that will run take."""
    if cost.time is None:
        return "time and disk are unknown, because no job of these kinds has run in this store"
    parts = [f"{range_text(cost.time.low, cost.time.high)} with {_numbered(cost.workers, 'worker')}"]
    if cost.gigabytes is not None:
        parts.append(f"{cost.gigabytes:.2g} GB")
    if cost.gpu_hours is not None:
        parts.append(f"{cost.gpu_hours[0]:.2g} to {cost.gpu_hours[1]:.2g} GPU-hours")
    source = f"from {_numbered(cost.past_jobs, 'finished job')} of these kinds" if cost.past_jobs else (
        "from finished jobs with another number of epochs"
    )  # fmt: skip
    unknown = cost.time.unknown
    left_out = f"; without {_numbered(unknown, 'job')} of kinds that have not run in this store" if unknown else ""
    return f"takes {', '.join(parts)}, {source}{left_out}"


def _numbered(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _job_table(jobs: Sequence[PlannedJob]) -> PlainTable:
    table = PlainTable("key", "job", "status", "why")
    for job in jobs:
        table.add_row(
            job.spec.key, job.spec.title, Text(job.status.value, style=STYLES.get(job.status.value, "")), Text(job.why)
        )
    return table


class TableJson(JsonModel):
    """How many values of one table of the paper a sweep gives."""

    table: int
    values: int
    published: int
    """Values that the paper prints in this table."""


class CostJson(JsonModel):
    """What the jobs that will run take, from the finished jobs of the store."""

    workers: int
    """Jobs that run at once."""
    seconds: tuple[float, float] | None
    """Least and most; null if no job of these kinds has run in the store."""
    gigabytes: float | None
    """Disk for checkpoints and results; null if unknown."""
    gpu_hours: tuple[float, float] | None
    """Least and most; null without a GPU, or if unknown."""
    past_jobs: int
    """Finished jobs of the same kinds."""
    unknown: int
    """Jobs left out, because none of their kind has run."""


class PlannedJobJson(JobId):
    """One job of a plan, compared with the store."""

    status: PlanStatus
    why: str
    will_run: bool
    is_pretraining: bool
    """True if other jobs of the sweep start from its weights."""
    upstream: str | None
    """Key of the job whose weights it starts from."""


class PlanJson(JsonModel):
    """The answer of `orch plan --json`."""

    sweep: str
    profile: str
    data_root: str | None
    data_seen: bool
    """False if photographs are needed and no data root is given: finished jobs are then unknown."""
    unmeasurable: dict[str, tuple[str, ...]]
    """Metric -> categories whose photographs lack landmarks or part masks; not known where `data_seen` is false."""
    tables: list[TableJson]
    """Without the values that cannot be measured."""
    counts: dict[str, int]
    """Jobs by status."""
    frozen_jobs: int
    """Jobs that will run and have frozen layers."""
    frozen_computed: int
    """How often their features are computed: once for all jobs with the same weights and images."""
    cost: CostJson | None
    """What the jobs that will run take; null if none will."""
    warnings: tuple[str, ...]
    """What the sweep asks for in vain, such as an `exclude` row that matches no job."""
    jobs: list[PlannedJobJson]

    @classmethod
    def of_plan(cls, plan: Plan) -> Self:
        """Convert the answer of the service."""
        return cls(
            sweep=plan.sweep.name,
            profile=plan.sweep.profile,
            data_root=plan.data_root,
            data_seen=plan.data_seen,
            unmeasurable=dict(plan.unmeasurable),
            tables=[TableJson(table=table, values=values, published=of) for table, values, of in plan.filled],
            counts=plan.counts,
            frozen_jobs=plan.frozen.jobs,
            frozen_computed=plan.frozen.computed,
            cost=_cost(plan),
            warnings=plan.sweep.warnings,
            jobs=[PlannedJobJson(**planned_fields(job, plan.sweep.upstream_keys)) for job in plan.jobs],
        )


def _cost(plan: Plan) -> CostJson | None:
    cost = plan.cost
    if cost is None:
        return None
    return CostJson(
        workers=cost.workers,
        seconds=(cost.time.low, cost.time.high) if cost.time else None,
        gigabytes=cost.gigabytes,
        gpu_hours=cost.gpu_hours,
        past_jobs=cost.past_jobs,
        unknown=cost.time.unknown if cost.time else sum(job.will_run for job in plan.jobs),
    )


def planned_fields(job: PlannedJob[Named], upstream: frozenset[str]) -> dict[str, Any]:
    """The fields of `PlannedJobJson`; `upstream` holds the keys of pre-training jobs."""
    start = job.spec.upstream
    return {
        "key": job.spec.key,
        "title": job.spec.title,
        "status": job.status,
        "why": job.why,
        "will_run": job.will_run,
        "is_pretraining": job.spec.key in upstream,
        "upstream": start.key if start else None,
    }
