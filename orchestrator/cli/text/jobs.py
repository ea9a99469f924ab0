"""What `orch show` prints of one job, and what every answer says of a job.

orch show --json            JobJson
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from pydantic import ValidationError
from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.ledger.records import JobRecord
from orchestrator.planning.setting_layers import flatten
from orchestrator.wording import to_the_minute
from schemas.job import NAMING, JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer, JobMetrics


class JobId(JsonModel):
    """What every job in an answer begins with."""

    key: str
    title: str


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


def recorded(record: JobRecord) -> dict[str, Any]:
    """The fields of a RecordJson."""
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
            **recorded(record),
        )


def job_text(record: JobRecord, artifacts: str, is_lost: bool, *, full: bool) -> RenderableType:
    """One job: its state, metrics, files and spec; of the spec without `full` only what differs from the defaults."""
    table = PlainTable("", "", has_header=False)
    for name, value in _job_lines(record, artifacts, is_lost, full):
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def _job_lines(record: JobRecord, artifacts: str, is_lost: bool, full: bool) -> Iterable[tuple[str, str]]:
    yield "job", f"{record.title} ({record.key})"
    yield "sweep", record.sweep
    reason = f" ({record.stop_reason})" if record.stop_reason else ""
    state = f"lost: {record.state} when its driver died" if is_lost else f"{record.state}{reason}"
    yield "state", f"{state}, attempt {record.attempt}, last sign {to_the_minute(record.last_sign_at)}"
    result = record.result
    if result and result.has_failed:
        yield "failure", record.failure
    if result and result.metrics:
        for name, value in flatten(result.metrics.model_dump(exclude_none=True)):
            yield f"  {name}", _value_text(value)
    yield "artifacts", artifacts
    if result and result.checkpoint:
        yield "checkpoint", f"{result.checkpoint.path} (epoch {result.checkpoint.epoch})"
    fields = record.fields if full else _stated(record.fields)
    yield "spec", "" if full else "what differs from the defaults; --full shows every field"
    for name, value in flatten(fields):
        if value == {}:
            continue
        yield f"  {name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if result and result.has_failed and result.failure and result.failure.traceback:
        yield "traceback", result.failure.traceback


def _stated(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a spec that differ from the defaults; all of them if another version of orch wrote them."""
    try:
        spec = JobSpec.model_validate(fields)
        stated = spec.model_dump(mode="json", exclude_defaults=True, exclude=set(NAMING))
        return {**stated, "weights": {"source": spec.weights.source, **stated.get("weights", {})}}
    except ValidationError:
        return fields


def _value_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " to ".join(map(_value_text, value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)
