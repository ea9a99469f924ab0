"""What the sweep commands print: tables and sentences for people, and the shapes of their `--json`.

orch plan --json            PlanJson
orch status --json          [SweepJson, ...]; with a sweep's name, StatusJson
orch sweep, resume --json   OutcomeJson
orch report --out --json    ReportFileJson; without --out, the report as `orchestrator.report.formats.as_json`
orch ui --json              UiJson
orch grid list --json       [GridJson, ...]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import LISTED, JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.cli.text.jobs import JobId, RecordJson, recorded
from orchestrator.execution import job_matrix, progress
from orchestrator.execution.estimate import Estimate
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.records import JobOutline, RunningJob, Waiting
from orchestrator.planning.diff import Named, PlannedJob, PlanStatus
from orchestrator.report import summary
from orchestrator.wording import in_words, range_text, to_the_minute, when
from schemas.order import Progress
from schemas.sweep import SweepSpec

if TYPE_CHECKING:
    from orchestrator.execution.sweep_outcome import SweepOutcome
    from orchestrator.report.summary import ResultTable
    from orchestrator.services.costs import Cost
    from orchestrator.services.mlflow_ui import UiPages
    from orchestrator.services.sweeps import GridFacts, Plan, SweepStatus

MANY = 400
"""Jobs up to which `orch status SWEEP` lists all of them without `--all`."""
SURVEYED = 100
"""Jobs that it lists of a larger sweep."""
_STYLES = {
    "done": "green",
    "failed": "red",
    "lost": "yellow",
    "running": "cyan",
    "interrupted": "yellow",
    "blocked": "red",
}


_NEEDED = {"part_interpretability": "part masks of all objects", "location_instability": "landmarks"}
"""Metric -> what it needs of photographs."""


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items()) or "no jobs"


# -- plan ---------------------------------------------------------------------------------------------------------


def plan_text(plan: Plan, all_jobs: bool) -> RenderableType:
    """A plan as a summary and a table of its first jobs, or with `all_jobs` of all."""
    upstream = len(plan.sweep.upstream_keys)
    total = f"{len(plan.jobs) - upstream} jobs" + (f" and {upstream} pre-training" if upstream else "")
    head = Text(f"sweep {plan.sweep.name}: {total}: {_counts(plan.counts)}")
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
            job.spec.key, job.spec.title, Text(job.status.value, style=_STYLES.get(job.status.value, "")), Text(job.why)
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
            jobs=[PlannedJobJson(**_planned(job, plan.sweep.upstream_keys)) for job in plan.jobs],
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


def _planned(job: PlannedJob[Named], upstream: frozenset[str]) -> dict[str, Any]:
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


# -- status -------------------------------------------------------------------------------------------------------


def sweeps_text(sweeps: Sequence[SweepStatus]) -> RenderableType:
    """A table of the store's sweeps."""
    if not sweeps:
        return Text("No sweep yet. To run a first one: orch sweep --grid first")
    table = PlainTable("sweep", "started", "driven", "jobs")
    for sweep in sweeps:
        table.add_row(
            sweep.record.name, to_the_minute(sweep.record.started_at), _who_drives(sweep), _what_is_known(sweep)
        )
    return table


def _who_drives(sweep: SweepStatus) -> str:
    lease = sweep.record.lease
    if lease is None:
        return "no"
    who = f"{lease.pid} on {lease.host}"
    return f"by {who}" if sweep.is_driven else f"no: {who} died"


def _what_is_known(sweep: SweepStatus) -> str:
    return f"unknown: `orch status {sweep.record.name}` shows why" if sweep.problem else _counts(sweep.counts)


class SweepJson(JsonModel):
    """One sweep of the store, as in `orch status --json`."""

    sweep: str
    started_at: float
    """Unix seconds."""
    is_driven: bool
    lease: Lease | None
    """Process that drives the sweep; null if none does."""
    waiting: Waiting | None = None
    """Why some of its jobs have no worker; null if none waits for a machine."""
    counts: dict[str, int]
    """Jobs by status."""
    problem: str | None
    """Why the jobs of the sweep are unknown."""

    @classmethod
    def of_sweep(cls, sweep: SweepStatus) -> Self:
        """Convert the answer of the service."""
        return cls(**_sweep(sweep))


def _sweep(sweep: SweepStatus) -> dict[str, Any]:
    return {
        "sweep": sweep.record.name,
        "started_at": sweep.record.started_at,
        "is_driven": sweep.is_driven,
        "lease": sweep.record.lease if sweep.is_driven else None,
        "waiting": sweep.record.waiting if sweep.is_driven else None,
        "counts": sweep.counts,
        "problem": sweep.problem or None,
    }


def status_text(sweep: SweepStatus, all_jobs: bool, resume: str) -> RenderableType:
    """A table of a sweep's jobs; of a very large sweep only the first, unfinished ones before finished ones.

    Args:
        sweep: the sweep.
        all_jobs: list every job.
        resume: the command that goes on with the sweep, offered if its driver died.
    """
    listed = sweep.jobs
    if len(listed) > MANY and not all_jobs:
        listed = sorted(listed, key=lambda job: job.status.value == "done")[:SURVEYED]
    table = PlainTable(
        "key", "job", "status", "attempts", "accuracy", "chance", "instability", "why",
        numbers=("attempts", "accuracy", "chance", "instability"), optional=("why", "attempts", "chance"),
    )  # fmt: skip
    for job in listed:
        metrics = job.record.result.metrics if job.record and job.record.result else None
        instability = metrics.location_instability if metrics else None
        table.add_row(
            job.spec.key,
            job.spec.title,
            Text(job.status.value, style=_STYLES.get(job.status.value, "")),
            str(job.record.attempt if job.record else 0),
            f"{metrics.test_accuracy:.3f}" if metrics else "",
            f"{metrics.chance_accuracy:.3f}" if metrics and metrics.chance_accuracy is not None else "",
            f"{instability:.4f}" if instability is not None else "",
            "" if job.status.value == "done" else job.why,
        )
    left_out = len(sweep.jobs) - len(listed)
    return Group(
        Text(f"sweep {sweep.record.name}, started {to_the_minute(sweep.record.started_at)}: {_counts(sweep.counts)}"),
        *([Text(waiting.reason)] if sweep.is_driven and (waiting := sweep.record.waiting) else []),
        table,
        *([Text(f"... and {left_out} more (--all lists them)")] if left_out else []),
        *_abandoned(sweep, resume),
    )


def live_text(sweep: SweepStatus, resume: str, width: int, height: int, now: float) -> RenderableType:
    """A sweep as `orch watch` shows it: counts and time left, the matrix of its jobs, what runs and what failed.

    Args:
        sweep: the sweep.
        resume: the command that goes on with the sweep, offered if its driver died.
        width: columns of the terminal.
        height: most lines.
        now: Unix seconds.
    """
    head = Text(f"sweep {sweep.record.name}, {to_the_minute(sweep.record.started_at)}: {_counts(sweep.counts)}")
    head.truncate(width, overflow="ellipsis")
    advice = list(_abandoned(sweep, resume))  # not cut, because it ends with the command to type
    lines = 1 + sum(ceil(len(line) / width) for line in advice)
    return Group(head, progress.picture(_progress_of(sweep, now), width, height - lines), *advice)


def _progress_of(sweep: SweepStatus, now: float) -> progress.Now:
    """What the store knows of the progress of a sweep that another process drives."""
    known = sweep.running
    running = [job for job in sweep.jobs if job.status is PlanStatus.RUNNING]
    return progress.Now(
        done=sum(job.status in (PlanStatus.DONE, PlanStatus.FAILED) for job in sweep.jobs),
        total=len(sweep.jobs),
        running=tuple((job.spec.title, _seen(job, known.get(job.spec.key), sweep.record.name)) for job in running),
        left=_time_left(sweep, now),
        waiting=sweep.record.waiting.reason if sweep.is_driven and sweep.record.waiting else "",
        cells=tuple(_cells(sweep)),
        failures=Counter(
            str(job.record.stop_reason)
            for job in sweep.jobs
            if job.status is PlanStatus.FAILED and job.record is not None
        ),
        epoch_seconds={
            job.spec.title: seconds
            for job in running
            if job.spec.key in known and (seconds := known[job.spec.key].epoch_seconds) is not None
        },
    )


def _seen(job: PlannedJob[JobOutline], known: RunningJob | None, sweep: str) -> Progress | None:
    """How far a running job is; of one that another sweep drives, which sweep that is."""
    if known is not None:
        return Progress(job_key=known.key, phase=known.phase, epoch=known.epoch, epochs=known.epochs)
    if job.record is not None and job.record.driven_by != sweep:
        return Progress(job_key=job.spec.key, phase=f"in sweep {job.record.driven_by}")
    return None


def _time_left(sweep: SweepStatus, now: float) -> Estimate | None:
    """The time left that the driver has written, less the time since then."""
    told = sweep.record.progress
    if not sweep.is_driven or told is None or told.low is None or told.high is None:
        return None
    passed = max(0.0, now - told.at)
    return Estimate(max(0.0, told.low - passed), max(0.0, told.high - passed), told.unknown)


def _cells(sweep: SweepStatus) -> list[job_matrix.Cell]:
    cells = []
    for job in sweep.jobs:
        place = job_matrix.place_of(job.spec.title, job.spec.model_dump(mode="json"))
        metrics = job.record.result.metrics if job.record and job.record.result else None
        status = job.status.value if job.status.value in job_matrix.STYLES else "waiting"
        known = sweep.running.get(job.spec.key)
        share = known.epoch / known.epochs if known and known.epochs else None
        if place is not None:
            cells.append(job_matrix.Cell(place, status, share, metrics.test_accuracy if metrics else None))
    return cells


def change_text(sweep: SweepStatus, now: float) -> str:
    """A line for a log: when, and how many jobs have which status."""
    return f"{when(now)} {sweep.record.name}: {_counts(sweep.counts)}"


def _abandoned(sweep: SweepStatus, resume: str) -> Iterator[Text]:
    """Who has died before the sweep was done, and what to type."""
    lease = sweep.record.lease
    if lease is not None and not sweep.is_driven and set(sweep.counts) != {PlanStatus.DONE.value}:
        yield Text(f"Its driver, process {lease.pid} on {lease.host}, died. Go on with: {resume}", style="yellow")


class StatusJobJson(RecordJson, PlannedJobJson):
    """One job of a sweep: its status, its last attempt and its spec."""

    progress: RunningJob | None
    """How far it is; null unless it runs, and if its driver has not written it yet."""
    spec: dict[str, Any]


class StatusJson(SweepJson):
    """The answer of `orch status SWEEP --json`."""

    jobs: list[StatusJobJson]

    @classmethod
    def of_sweep(cls, sweep: SweepStatus) -> Self:
        """Convert the answer of the service."""
        upstream = sweep.record.plan.upstream_keys if sweep.record.plan else frozenset()
        jobs = [
            StatusJobJson(
                **_planned(job, upstream),
                **(recorded(job.record) if job.record else {}),
                progress=sweep.running.get(job.spec.key),
                spec=job.spec.model_dump(mode="json"),
            )
            for job in sweep.jobs
        ]
        return cls(**_sweep(sweep), jobs=jobs)


# -- the end of a sweep -------------------------------------------------------------------------------------------


def outcome_text(outcome: SweepOutcome) -> RenderableType:
    """The results of a sweep, and what failed."""
    parts: list[RenderableType] = [Text("")]
    if outcome.table.rows:
        parts.append(_result_table(outcome.table))
        parts += [Text(line) for line in outcome.table.headlines]
    parts += [Text(f"failed: {title}: {reason}", style="red") for title, reason in outcome.table.failed]
    if outcome.table.skipped_images:
        parts.append(Text(f"{outcome.table.skipped_images} unreadable images were skipped.", style="yellow"))
    parts.append(Text(f"sweep {outcome.name}: {_counts(outcome.counts)} ({in_words(outcome.seconds)})"))
    parts.append(Text("Curves, filters and tables of every job: orch ui"))
    return Group(*parts)


def _result_table(results: ResultTable) -> PlainTable:
    columns = summary.used_columns(results)
    headings = [summary.HEADINGS[i] for i in columns]
    table = PlainTable(
        *headings, title=results.caption, numbers=summary.HEADINGS[summary.TEXT_COLUMNS :], optional=summary.OPTIONAL
    )
    for row in results.rows:
        cells = summary.cells_of(row)
        table.add_row(*(cells[i] for i in columns))
    for row in results.averages:
        cells = summary.cells_of(row)
        table.add_row(*(cells[i] for i in columns), style="bold")
    return table


class OutcomeJson(JsonModel):
    """The answer of `orch sweep --json` and `orch resume --json`."""

    sweep: str
    counts: dict[str, int]
    """Jobs by status."""
    is_complete: bool
    interrupted: bool
    paused_by: str | None
    """Failure that the first jobs had in common, because of which the sweep was paused."""
    ran: int
    """Jobs that this command started."""
    seconds: float
    warnings: tuple[str, ...]
    """Warnings of planning, as in `PlanJson`."""
    table: dict[str, Any]
    """Results, ordinary beside interpretable networks (`orchestrator.report.summary.as_json`)."""

    @classmethod
    def of_outcome(cls, outcome: SweepOutcome) -> Self:
        """Convert the answer of the service."""
        return cls(
            sweep=outcome.name,
            counts=outcome.counts,
            is_complete=outcome.is_complete,
            interrupted=outcome.interrupted,
            paused_by=outcome.paused_by or None,
            ran=outcome.ran,
            seconds=round(outcome.seconds, 1),
            warnings=outcome.warnings,
            table=summary.as_json(outcome.table),
        )


class ReportFileJson(JsonModel):
    """The answer of `orch report --out FILE --json`."""

    file: Path


# -- the rest -----------------------------------------------------------------------------------------------------


def grids_text(grids: Sequence[GridFacts]) -> RenderableType:
    """A table of the built-in grids, and what the profile leaves out of them."""
    table = PlainTable("grid", "jobs", "axes", "description", numbers=("jobs",))
    for one in grids:
        grid = one.grid
        axes = " x ".join(f"{len(values)} {name}" for name, values in grid.axes.items())
        further = [f"{len(grid.include)} more" if axes else f"{len(grid.include)} jobs"] if grid.include else []
        jobs = str(one.jobs) if one.jobs == one.all_jobs else f"{one.jobs} of {one.all_jobs}"
        table.add_row(str(grid.name), jobs, " + ".join([*([axes] if axes else []), *further]), grid.description)
    narrowed = {f"{axis} {', '.join(values)}": f"--{axis}" for one in grids for axis, values in one.narrowed.items()}
    notes = [
        Text(f"Where a grid has all, profile {grids[0].profile} takes {what}; {option} names others.")
        for what, option in narrowed.items()
    ]
    return Group(table, *notes)


class GridJson(SweepSpec):
    """One grid, as in `orch grid list --json`."""

    jobs: int
    """Jobs with the profile, pre-training not counted."""
    all_jobs: int
    """Jobs of the grid as it is written."""

    @classmethod
    def of_grid(cls, facts: GridFacts) -> Self:
        """Convert the answer of the service."""
        return cls(**dict(facts.grid), jobs=facts.jobs, all_jobs=facts.all_jobs)


def ui_text(pages: UiPages) -> RenderableType:
    """The addresses of MLflow's UI."""
    note = "The requested port is busy; this is another one.\n" if pages.moved else ""
    if pages.tunnel:
        note += f"From your own machine, first run: {pages.tunnel}\n"
    end = "The tracking server serves them itself." if pages.is_remote else "Press Ctrl-C to stop MLflow's UI."
    return Text(
        f"{note}jobs      {pages.jobs}\nfailed    {pages.failed}\nvariants  {pages.variants}\n"
        f"sweeps    {pages.sweeps}\n{end}",
        overflow="ignore",
        no_wrap=True,
    )


class UiJson(JsonModel):
    """The answer of `orch ui --json`: addresses of the views in MLflow's UI."""

    jobs: str
    failed: str
    variants: str
    sweeps: str
