"""The jobs of a sweep as a pandas table: a row per job, a column per field of its spec and per metric. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.ledger.records import JobOutline
from orchestrator.planning.diff import PlannedJob
from orchestrator.planning.setting_layers import field_of, flatten
from orchestrator.planning.typed import CATEGORIES_FIELD
from schemas.base import did_you_mean
from schemas.errors import SpecError
from schemas.job import NAMING
from schemas.results import JobMetrics

if TYPE_CHECKING:
    import pandas as pd

METRICS = tuple(
    name for name, field in JobMetrics.model_fields.items() if field.annotation in (float, int, float | None)
)
"""Metrics that are one number."""
USUAL_METRICS = (
    "test_accuracy", "chance_accuracy", "location_instability", "held_out_instability", "tracking_share", "consistency",
)  # fmt: skip
"""Metrics that are shown if none is named."""
FACTS = ("key", "title", "pretraining", "status", "state", "stop_reason", "attempt", "seconds")
"""Columns that are neither fields of a spec nor metrics."""
_FILES = ("recipe", "digest", "label_names", "path", "sha256", "label", *NAMING)
"""Last parts of the names of fields that follow from others, or from files."""
_CONTENTS = ("recipe", "digest", "path")
"""Those of them that decide a result."""


def frame_of(jobs: Iterable[PlannedJob[JobOutline]], upstream_keys: frozenset[str]) -> pd.DataFrame:
    """Return a row per job, in their order.

    Args:
        jobs: the jobs of a sweep with their records.
        upstream_keys: keys of the jobs that run because others start from their weights.

    Returns:
        The columns `FACTS`, the fields of the specs by dotted name, and `METRICS`. Lists are joined with ` + `.
    """
    import pandas as pd

    rows = []
    for job in jobs:
        record = job.record
        result = record.result if record else None
        facts = {
            "key": job.spec.key,
            "title": job.spec.title,
            "pretraining": job.spec.key in upstream_keys,
            "status": job.status.value,
            "state": str(record.state) if record else None,
            "stop_reason": str(record.stop_reason) if record and record.stop_reason else None,
            "attempt": record.attempt if record else 0,
            "seconds": result.seconds if result else None,
        }
        fields = {name: _cell(value) for name, value in flatten(job.spec.model_dump(mode="json"))}
        metrics = result.metrics if result else None
        rows.append(facts | fields | {name: getattr(metrics, name, None) for name in METRICS})
    frame = pd.DataFrame(rows, dtype=object)  # else whole numbers beside missing ones become floats
    return frame.astype({name: _dtype(name, frame[name]) for name in frame.columns})


def _dtype(name: str, values: pd.Series[Any]) -> str:
    """Type of a column: one that holds missing values, and that a Parquet file knows."""
    kinds = set(values.dropna().map(type))
    if name in (*METRICS, "seconds") or kinds in ({float}, {int, float}):
        return "float64"
    return "Int64" if kinds == {int} else "boolean" if kinds == {bool} else "string"


def _cell(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return " + ".join(map(str, value))
    return None if isinstance(value, Mapping) else value


def column(frame: pd.DataFrame, word: str) -> str:
    """Return the name of a column: a field of the spec, its alias such as `category`, a fact or a metric.

    Raises:
        SpecError: there is no such column.
    """
    name = field_of(word.strip())
    if name not in frame:
        known = did_you_mean(name, [str(one) for one in frame.columns])
        raise SpecError(f"No field or metric of these jobs is called {word!r}. {known}")
    return name


def matching(frame: pd.DataFrame, conditions: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows whose fields have the given values. `cat` also means `voc_part/cat`.

    Raises:
        SpecError: there is no such column, or no row fits.
    """
    for word, value in conditions.items():
        name = column(frame, word)
        texts = frame[name].map(text_of)
        fits = texts == value
        if name == CATEGORIES_FIELD:
            fits |= (texts.str.rpartition("/")[2] == value) & ~texts.str.contains(" + ", regex=False)
        if not fits.any():
            there = sorted(set(texts) - {""})
            raise SpecError(f"No job has {word}={value}. Its values here: {', '.join(there[:12]) or 'none'}.")
        frame = frame[fits]
    return frame


def text_of(value: Any) -> str:
    """Write a value as in a sweep file; nothing for one that is missing."""
    import pandas as pd

    if pd.isna(value):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def varying(frame: pd.DataFrame, *, contents: bool = False) -> list[str]:
    """Return the fields of the specs in which the rows differ.

    Args:
        frame: the rows.
        contents: also return the digests of data, the files of weights and the recipe's version.
    """
    left_out = set(_FILES) - (set(_CONTENTS) if contents else set())
    fields = [
        name for name in frame.columns if name not in (*FACTS, *METRICS) and name.rpartition(".")[2] not in left_out
    ]
    return [name for name in fields if frame[name].map(text_of).nunique() > 1]


def grouped(frame: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return the means over the jobs with equal fields.

    Args:
        frame: as of `frame_of`.
        by: columns whose values define a group.
        metrics: columns to average.

    Returns:
        A row per group: its fields, `jobs`, and for each metric its mean and, as NAME_sd, the standard deviation over
        its jobs.
    """
    groups = frame.assign(**{name: frame[name].map(text_of) for name in by}).groupby(list(by), sort=False)
    found = groups.size().to_frame("jobs")
    for metric in metrics:
        found[metric], found[f"{metric}_sd"] = groups[metric].mean(), groups[metric].std()
    return found.reset_index()
