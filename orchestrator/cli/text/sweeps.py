"""What the sweep commands print: tables and sentences for people, and the shapes of their `--json`.

orch plan --json            PlanJson
orch status --json          [SweepJson, ...]; with a sweep's name, StatusJson
orch sweep, resume --json   OutcomeJson
orch report --out --json    ReportFileJson; without --out, the report as `orchestrator.report.formats.as_json`
orch show --json            JobJson
orch ui --json              UiJson
orch grid list --json       [schemas.sweep.SweepSpec, ...]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import LISTED, JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.execution.sweep_outcome import SweepOutcome
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.records import JobRecord
from orchestrator.planning.diff import Named, PlannedJob, PlanStatus
from orchestrator.planning.setting_layers import flatten
from orchestrator.report.summary import HEADINGS, TEXT_COLUMNS, ResultTable, as_json, cells_of, used_columns
from orchestrator.services.mlflow_ui import UiPages
from orchestrator.services.sweeps import Plan, SweepStatus
from orchestrator.wording import in_words
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer, JobMetrics
from schemas.sweep import SweepSpec

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
    parts: list[RenderableType] = [head, *facts, Text(""), _job_table(listed, plan.sweep.upstream_keys)]
    if len(listed) < len(plan.jobs):
        parts.append(Text(f"... and {len(plan.jobs) - len(listed)} more (--all lists them)"))
    return Group(*parts)


def _plan_facts(plan: Plan) -> Iterator[str]:
    yield from (f"warning: {warning}" for warning in plan.sweep.warnings)
    if plan.filled:
        listed = ", ".join(f"{table} ({values} of {of})" for table, values, of in plan.filled)
        yield f"values of the paper's tables: {listed}"
    if not plan.data_seen:
        yield "no data root is given, so photographs and finished jobs were not checked; add --data-root FOLDER"


def _job_table(jobs: Sequence[PlannedJob], upstream: frozenset[str] = frozenset()) -> PlainTable:
    table = PlainTable("key", "job", "status", "why")
    for job in jobs:
        title = f"{job.spec.title} (pre-training)" if job.spec.key in upstream else job.spec.title
        table.add_row(
            job.spec.key, title, Text(job.status.value, style=_STYLES.get(job.status.value, "")), Text(job.why)
        )
    return table


class TableJson(JsonModel):
    """How many values of one table of the paper a sweep gives."""

    table: int
    values: int
    published: int
    """Values that the paper prints in this table."""


class JobId(JsonModel):
    """What every job in an answer begins with."""

    key: str
    title: str


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
    tables: list[TableJson]
    counts: dict[str, int]
    """Jobs by status."""
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
            tables=[TableJson(table=table, values=values, published=of) for table, values, of in plan.filled],
            counts=plan.counts,
            warnings=plan.sweep.warnings,
            jobs=[PlannedJobJson(**_planned(job, plan.sweep.upstream_keys)) for job in plan.jobs],
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
        return Text("No sweep yet. To run a first one: orch sweep --grid smoke")
    table = PlainTable("sweep", "started", "driven", "jobs")
    for sweep in sweeps:
        table.add_row(sweep.record.name, _when(sweep.record.started_at), _who_drives(sweep), _what_is_known(sweep))
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
        "counts": sweep.counts,
        "problem": sweep.problem or None,
    }


def status_text(sweep: SweepStatus, all_jobs: bool = False) -> RenderableType:
    """A table of a sweep's jobs; of a very large sweep only the first, unfinished ones before finished ones."""
    listed = sweep.jobs
    if len(listed) > MANY and not all_jobs:
        listed = sorted(listed, key=lambda job: job.status.value == "done")[:SURVEYED]
    table = PlainTable(
        "key", "job", "status", "attempts", "accuracy", "instability", "why",
        numbers=("attempts", "accuracy", "instability"), optional=("why", "attempts"),
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
            f"{instability:.4f}" if instability is not None else "",
            "" if job.status.value == "done" else job.why,
        )
    left_out = len(sweep.jobs) - len(listed)
    return Group(
        Text(f"sweep {sweep.record.name}, started {_when(sweep.record.started_at)}: {_counts(sweep.counts)}"),
        table,
        *([Text(f"... and {left_out} more (--all lists them)")] if left_out else []),
    )


class RecordJson(JsonModel):
    """What the store holds of a job's last attempt; null where it holds nothing."""

    state: JobState | None = None
    stop_reason: StopReason | None = None
    attempt: int = 0
    last_sign_at: float | None = None
    """Unix seconds of the last change of state."""
    run_id: str | None = None
    """MLflow run."""
    failure: str | None = None
    metrics: JobMetrics | None = None
    checkpoint: CheckpointPointer | None = None


def _recorded(record: JobRecord) -> dict[str, Any]:
    result = record.result
    return {
        "state": record.state,
        "stop_reason": record.stop_reason,
        "attempt": record.attempt,
        "last_sign_at": record.last_sign_at,
        "run_id": record.run_id,
        "failure": record.failure or None,
        "metrics": result.metrics if result else None,
        "checkpoint": result.checkpoint if result else None,
    }


class StatusJobJson(RecordJson, PlannedJobJson):
    """One job of a sweep: its status and its last attempt."""


class StatusJson(SweepJson):
    """The answer of `orch status SWEEP --json`."""

    jobs: list[StatusJobJson]

    @classmethod
    def of_sweep(cls, sweep: SweepStatus) -> Self:
        """Convert the answer of the service."""
        upstream = sweep.record.plan.upstream_keys if sweep.record.plan else frozenset()
        jobs = [
            StatusJobJson(**_planned(job, upstream), **(_recorded(job.record) if job.record else {}))
            for job in sweep.jobs
        ]
        return cls(**_sweep(sweep), jobs=jobs)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


# -- one job ------------------------------------------------------------------------------------------------------


class JobJson(RecordJson, JobId):
    """The answer of `orch show --json`."""

    sweep: str
    """Sweep that first ran the job."""
    is_lost: bool
    """True if the job is recorded as running, but its driver is dead."""
    artifacts: str
    """URI of the files in the job's MLflow run."""
    spec: dict[str, Any]

    @classmethod
    def of_job(cls, record: JobRecord, artifacts: str, is_lost: bool) -> Self:
        """Convert the answer of the service."""
        return cls(
            key=record.key,
            title=record.title,
            sweep=record.sweep,
            is_lost=is_lost,
            artifacts=artifacts,
            spec=record.fields,
            **_recorded(record),
        )


def job_text(record: JobRecord, artifacts: str, is_lost: bool) -> RenderableType:
    """One job: its state, metrics, files and spec."""
    table = PlainTable("", "", has_header=False)
    for name, value in _job_lines(record, artifacts, is_lost):
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def _job_lines(record: JobRecord, artifacts: str, is_lost: bool) -> Iterable[tuple[str, str]]:
    yield "job", f"{record.title} ({record.key})"
    yield "sweep", record.sweep
    reason = f" ({record.stop_reason})" if record.stop_reason else ""
    state = f"lost: {record.state} when its driver died" if is_lost else f"{record.state}{reason}"
    yield "state", f"{state}, attempt {record.attempt}, last sign {_when(record.last_sign_at)}"
    result = record.result
    if result and result.has_failed:
        yield "failure", record.failure
    if result and result.metrics:
        for name, value in flatten(result.metrics.model_dump(exclude_none=True)):
            yield f"  {name}", f"{value:.4f}" if isinstance(value, float) else str(value)
    yield "artifacts", artifacts
    if result and result.checkpoint:
        yield "checkpoint", f"{result.checkpoint.path} (epoch {result.checkpoint.epoch})"
    yield "spec", ""
    for name, value in flatten(record.fields):
        yield f"  {name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if result and result.has_failed and result.failure and result.failure.traceback:
        yield "traceback", result.failure.traceback


# -- the end of a sweep -------------------------------------------------------------------------------------------


def outcome_text(outcome: SweepOutcome) -> RenderableType:
    """The results of a sweep, and what failed."""
    parts: list[RenderableType] = [Text("")]
    if outcome.table.rows:
        parts.append(_result_table(outcome.table))
    parts += [Text(f"failed: {title}: {reason}", style="red") for title, reason in outcome.table.failed]
    if outcome.table.skipped_images:
        parts.append(Text(f"{outcome.table.skipped_images} unreadable images were skipped.", style="yellow"))
    parts.append(Text(f"sweep {outcome.name}: {_counts(outcome.counts)} ({in_words(outcome.seconds)})"))
    parts.append(Text("Curves, filters and tables of every job: orch ui"))
    return Group(*parts)


def _result_table(results: ResultTable) -> PlainTable:
    columns = used_columns(results)
    headings = [HEADINGS[i] for i in columns]
    table = PlainTable(*headings, title=results.caption, numbers=HEADINGS[TEXT_COLUMNS:])
    for row in results.rows:
        cells = cells_of(row)
        table.add_row(*(cells[i] for i in columns))
    for row in results.averages:
        cells = cells_of(row)
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
            table=as_json(outcome.table),
        )


class ReportFileJson(JsonModel):
    """The answer of `orch report --out FILE --json`."""

    file: Path


# -- the rest -----------------------------------------------------------------------------------------------------


def grids_text(grids: Sequence[SweepSpec]) -> RenderableType:
    """A table of the built-in grids."""
    table = PlainTable("grid", "axes", "description")
    for grid in grids:
        axes = " x ".join(f"{len(values)} {name}" for name, values in grid.axes.items())
        further = [f"{len(grid.include)} more" if axes else f"{len(grid.include)} jobs"] if grid.include else []
        table.add_row(str(grid.name), " + ".join([*([axes] if axes else []), *further]), grid.description)
    return table


def ui_text(pages: UiPages) -> RenderableType:
    """The addresses of MLflow's UI."""
    note = "The requested port is busy; this is another one.\n" if pages.moved else ""
    return Text(
        f"{note}jobs    {pages.jobs}\nsweeps  {pages.sweeps}\nPress Ctrl-C to stop MLflow's UI.",
        overflow="ignore",
        no_wrap=True,
    )


class UiJson(JsonModel):
    """The answer of `orch ui --json`: addresses of two views of MLflow's UI."""

    jobs: str
    sweeps: str
