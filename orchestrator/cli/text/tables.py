"""What `orch table` and `orch compare` print.

orch table --json           a list of objects, a column per key, as written by `orch table --format json`
orch table --out --json     FileJson
orch compare --json         ComparisonJson
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.report.frames import METRICS, USUAL_METRICS, varying
from orchestrator.report.paired import Difference, PairedComparison
from orchestrator.report.significance import MIN_PAIRS

if TYPE_CHECKING:
    import pandas as pd

MOST_FIELDS = 4
"""Fields that a line of text names."""


class FileJson(JsonModel):
    """The answer of `orch table --out FILE --json`."""

    file: Path
    rows: int


def written_text(out: Path, rows: int) -> RenderableType:
    """Say which file was written."""
    return Text(f"{out}: {rows} rows")


def jobs_text(frame: pd.DataFrame, metrics: Sequence[str]) -> RenderableType:
    """A row per job: its name, its status and the metrics that are named, or the usual ones."""
    shown = [name for name in metrics or USUAL_METRICS if frame[name].notna().any()]
    table = PlainTable("key", "job", "status", *map(_heading, shown), numbers=tuple(map(_heading, shown)))
    for row in frame.to_dict("records"):
        table.add_row(str(row["key"]), str(row["title"]), str(row["status"]), *(_number(row[name]) for name in shown))
    fields = [name for name in varying(frame) if not name.startswith("data.categories")]
    note = f"--by averages over fields in which the jobs differ: {_listed(fields)}" if fields else ""
    return Group(table, *([Text(note, style="dim")] if note else []))


def groups_text(frame: pd.DataFrame, by: Sequence[str]) -> RenderableType:
    """A row per group: its fields, how many jobs, and means with standard deviations."""
    metrics = [name for name in METRICS if name in frame and frame[name].notna().any()]
    fields = list(frame.columns[: len(by)])
    headings = [_heading(name) for name in metrics]
    table = PlainTable(*fields, "jobs", *headings, numbers=("jobs", *headings))
    for row in frame.to_dict("records"):
        cells = [f"{_number(row[name])}{_spread(row[f'{name}_sd'])}" for name in metrics]
        table.add_row(*(str(row[name]) for name in fields), str(row["jobs"]), *cells)
    return Group(table, Text("Means over the succeeded jobs of a row, ± their standard deviation.", style="dim"))


def comparison_text(found: PairedComparison, list_pairs: bool) -> RenderableType:
    """The fields that tell the two apart, and a row per metric."""
    between = [f"{name} {first} -> {second}" for name, (first, second) in found.between.items()]
    head = [Text(f"first -> second: {_listed(between) or 'no field differs'}")]
    head.append(Text(f"{len(found.pairs)} pairs, by {_listed(found.paired_by) or 'nothing'}"))
    if any(found.alone):
        head.append(Text(f"without a partner: {found.alone[0]} of the first, {found.alone[1]} of the second"))
    numbers = ("pairs", "first", "second", "difference", "95 % interval", "p", "better")
    table = PlainTable("metric", *numbers, numbers=numbers)
    for one in found.differences:
        table.add_row(_heading(one.metric), *_cells(one))
    few = any(one.interval is None for one in found.differences)
    parts: list[RenderableType] = [*head, Text(""), table]
    if few:
        parts.append(Text(f"Fewer than {MIN_PAIRS} pairs have neither interval nor test.", style="dim"))
    if list_pairs:
        parts += [Text(""), _pair_table(found)]
    return Group(*parts)


def _cells(one: Difference) -> list[str]:
    interval = f"{one.interval[0]:+z.4f} to {one.interval[1]:+z.4f}" if one.interval else ""
    return [
        str(one.pairs),
        f"{one.first:.4f}",
        f"{one.second:.4f}",
        f"{one.mean:+z.4f}",
        interval,
        "" if one.p is None else f"{one.p:.3g}",
        "" if one.better is None else f"{one.better} of {one.pairs}",
    ]


def _pair_table(found: PairedComparison) -> PlainTable:
    numbers = [name for name in found.pairs.columns if name not in found.paired_by and found.pairs[name].notna().any()]
    headings = [_heading(name) for name in numbers]
    table = PlainTable(*found.paired_by, *headings, numbers=headings)
    for row in found.pairs.to_dict("records"):
        table.add_row(*(str(row[name]) for name in found.paired_by), *(_number(row[name]) for name in numbers))
    return table


def _heading(metric: str) -> str:
    return metric.removeprefix("test_").removeprefix("location_").replace("_", " ")


def _number(value: Any) -> str:
    return "" if value is None or isnan(value) else f"{value:.4f}"


def _spread(value: Any) -> str:
    return "" if isnan(value) else f" ± {value:.4f}"


def _listed(words: Sequence[str]) -> str:
    more = len(words) - MOST_FIELDS
    return ", ".join(words[:MOST_FIELDS]) + (f" and {more} more" if more > 0 else "")


class DifferenceJson(JsonModel):
    """One metric: the second minus the first, over the pairs that have both."""

    metric: str
    pairs: int
    first: float
    second: float
    mean: float
    interval: tuple[float, float] | None
    """95 % bootstrap interval over pairs."""
    p: float | None
    """Two-sided Wilcoxon signed-rank test."""
    better: int | None
    """Pairs in which the second is better; null for a metric that is neither good nor bad."""


class ComparisonJson(JsonModel):
    """The answer of `orch compare --json`."""

    between: dict[str, tuple[str, str]]
    """Fields that tell the two apart, with their values."""
    paired_by: tuple[str, ...]
    alone: tuple[int, int]
    """Jobs of each without a partner."""
    differences: list[DifferenceJson]
    pairs: list[dict[str, Any]]
    """A pair's fields, and each metric of both as NAME_first and NAME_second."""

    @classmethod
    def of_comparison(cls, found: PairedComparison) -> Self:
        """Convert the answer of the service."""
        return cls(
            between=found.between,
            paired_by=found.paired_by,
            alone=found.alone,
            differences=[DifferenceJson.of(one) for one in found.differences],
            pairs=found.pairs.to_dict("records"),
        )
