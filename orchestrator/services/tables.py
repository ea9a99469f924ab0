"""Reads the jobs of sweeps as tables, selects and groups their rows, and writes them to files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.planning.setting_layers import field_of
from orchestrator.report.frames import METRICS, USUAL_METRICS, column, frame_of, grouped, matching
from orchestrator.report.paired import PairedComparison, compare_paired
from orchestrator.services.choices import FrameFormat
from orchestrator.services.sweeps import sweep_status
from orchestrator.settings import Settings
from schemas.base import did_you_mean
from schemas.errors import SpecError, StoreError

if TYPE_CHECKING:
    import pandas as pd


def sweep_frame(settings: Settings, sweep: str) -> pd.DataFrame:
    """Return the jobs of a sweep, as `orchestrator.report.frames.frame_of`.

    Raises:
        StoreError: the store has no such sweep, or it was never planned.
    """
    found = sweep_status(settings, sweep)
    if found.record.plan is None:
        raise StoreError(f"Sweep {sweep!r} was stopped before it was planned. Repeat its `orch sweep` command.")
    return frame_of(found.jobs, found.record.plan.upstream_keys)


def job_table(
    settings: Settings, sweep: str, *, by: Sequence[str] = (), where: Mapping[str, str], metrics: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the jobs of a sweep without pre-training, or means over groups of those that have succeeded.

    Args:
        settings: where the store is.
        sweep: its name.
        by: fields whose values define a group; none means a row per job.
        where: values that fields must have.
        metrics: metrics to show; none means `USUAL_METRICS` of a group, and all of a job.

    Raises:
        SpecError: there is no such field or metric, or no job fits.
        StoreError: the store has no such sweep.
    """
    frame = sweep_frame(settings, sweep)
    frame = matching(frame[~frame["pretraining"]], where)
    named = check_metrics(metrics)
    if not by:
        return frame.drop(columns=[name for name in METRICS if named and name not in named]).reset_index(drop=True)
    names = list(dict.fromkeys(column(frame, word) for word in by))
    if metric := next((name for name in names if name in METRICS), ""):
        raise SpecError(f"{metric} is a metric, which no two jobs share. Average over a field, such as `--by seed`.")
    done = frame[frame["status"] == "done"]
    if done.empty:
        raise SpecError(f"None of these jobs has succeeded, so there is nothing to average. See `orch status {sweep}`.")
    return grouped(done, names, named or USUAL_METRICS)


def check_metrics(words: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that are named.

    Raises:
        SpecError: a job has no such metric.
    """
    for word in words:
        if word not in METRICS:
            raise SpecError(f"No metric is called {word!r}. {did_you_mean(word, METRICS)}")
    return tuple(dict.fromkeys(words))


def compare(settings: Settings, first: str, second: str, metrics: Sequence[str] = ()) -> PairedComparison:
    """Compare the succeeded jobs of two sweeps, or of two parts of sweeps, pair by pair.

    Args:
        settings: where the store is.
        first: `SWEEP`, or `SWEEP@FIELD=VALUE,FIELD=VALUE` for the jobs with these values.
        second: the same.
        metrics: metrics to compare; none means `USUAL_METRICS`.

    Raises:
        SpecError: an operand is not written like this, or names no job; or the jobs cannot be paired.
        StoreError: the store has no such sweep.
    """
    named = check_metrics(metrics) or USUAL_METRICS
    return compare_paired(_succeeded(settings, first), _succeeded(settings, second), named)


def _succeeded(settings: Settings, operand: str) -> pd.DataFrame:
    sweep, _, conditions = operand.partition("@")
    frame = matching(sweep_frame(settings, sweep), parse_where(conditions.split(",") if conditions else ()))
    return frame[~frame["pretraining"] & (frame["status"] == "done")]


def parse_where(words: Sequence[str]) -> dict[str, str]:
    """Read conditions written as FIELD=VALUE.

    Raises:
        SpecError: one is written otherwise, or a field is named twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        field = field_of(name.strip())
        if not equals or not field:
            raise SpecError(f"{word!r} is no condition. Write FIELD=VALUE, such as `variant=ordinary`.")
        if field in found:
            raise SpecError(f"{field} is named twice in the conditions; a job has one value.")
        found[field] = value.strip()
    return found


def write_frame(frame: pd.DataFrame, form: FrameFormat, out: Path) -> None:
    """Write a table to a file.

    Raises:
        SpecError: the file cannot be written.
    """
    try:
        if form is FrameFormat.PARQUET:
            frame.to_parquet(out, index=False)
        else:
            out.write_text(as_text(frame, form), encoding="utf-8")
    except OSError as error:
        why = error.strerror or error
        raise SpecError(f"The table cannot be written to {out} ({why}). Name another `--out`.") from error


def as_text(frame: pd.DataFrame, form: FrameFormat) -> str:
    """Write a table as CSV or as JSON: a list of objects."""
    if form is FrameFormat.CSV:
        return str(frame.to_csv(index=False))
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return json.dumps(rows, indent=2) + "\n"


def form_for(out: Path | None) -> FrameFormat:
    """Return the format that belongs to a file's suffix; a table for people without a file."""
    suffixes = {".parquet": FrameFormat.PARQUET, ".json": FrameFormat.JSON}
    return FrameFormat.TABLE if out is None else suffixes.get(out.suffix.lower(), FrameFormat.CSV)
