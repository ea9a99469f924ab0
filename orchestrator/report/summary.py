"""Builds the result table of a sweep: ordinary against interpretable networks, category by category."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from orchestrator.ledger.records import JobRecord
from orchestrator.planning.request import BACKBONE_FIELD, VARIANT_FIELD
from orchestrator.planning.setting_layers import flatten, lookup
from orchestrator.planning.typed import CATEGORIES_FIELD
from orchestrator.report import measures
from orchestrator.report.measures import UNMEASURED, Measures
from orchestrator.report.tables import TableFormat, render_table
from schemas.job import NAMING, SPECIES_OF, FilterLossSpec, JobSpec, categories_label
from schemas.lifecycle import JobState
from schemas.results import JobMetrics

VARIANTS = ("ordinary", "interpretable")
_INTERPRETABLE_ONLY = ("filter_loss", "model.mask", "model.new_layer_std")
_DEFAULTS = {
    "filter_loss": "a section",
    "model.mask": "True",
    "model.new_layer_std": "None",
    **{f"filter_loss.{name}": str(value) for name, value in FilterLossSpec().model_dump().items()},
}
_NOT_A_SETTING = (
    CATEGORIES_FIELD, BACKBONE_FIELD, VARIANT_FIELD, "data.digest", "seed", "weights.data.digest",
    "weights.data.label_names", "weights.path", "weights.sha256", "evaluation.stability_images", *NAMING,
)  # fmt: skip


LEAST_GAIN = 0.2
"""Smallest mean share of what chance answers wrong that networks must answer rightly for other numbers to count."""
UNTRAINED = (
    "Accuracy is hardly above chance: the networks have learned next to nothing, so the other numbers say nothing "
    "about the method."
)


class Described(Protocol):
    """A job with the fields of its spec."""

    @property
    def fields(self) -> dict[str, Any]:
        """The spec as nested dictionaries."""
        ...


Job = TypeVar("Job", bound=Described)


@dataclass(frozen=True)
class ResultCell:
    """Means over the jobs of one category, backbone and variant; several jobs if seeds differ."""

    accuracy: float
    """On held-out images, in [0, 1]."""
    instability: float | None
    """Location instability; None if no job measured it."""
    jobs: int
    """Number of jobs."""
    chance: float | None = None
    """Accuracy of the best constant answer, in [0, 1]."""
    measures: Measures = UNMEASURED
    """What the location instability is worth."""


@dataclass(frozen=True)
class Row:
    """A row of the result table."""

    category: str
    backbone: str
    settings: str
    """Further fields in which the jobs of the sweep differ, such as `train.epochs=5`."""
    cells: Mapping[str, ResultCell]
    """By variant."""

    @property
    def change(self) -> float | None:
        """Interpretable over ordinary location instability, minus 1. Negative means more stable."""
        values = [self.cells[v].instability if v in self.cells else None for v in VARIANTS]
        ordinary, interpretable = values
        return None if not ordinary or interpretable is None else interpretable / ordinary - 1

    @property
    def chance(self) -> float | None:
        """Accuracy of the best constant answer; equal for both variants, which have the same test images."""
        return measures.mean_of(cell.chance for cell in self.cells.values())

    @property
    def headline(self) -> str:
        """By how much interpretable is below ordinary, and how much of it follows the part; empty without both."""
        if any(variant not in self.cells for variant in VARIANTS):
            return ""
        found = measures.headline(*(self.cells[variant].measures for variant in VARIANTS))
        network = f"{self.backbone}, {self.settings}" if self.settings else self.backbone
        return f"{network}, {self.category}: {found}" if found else ""


@dataclass(frozen=True)
class ResultTable:
    """Results of a sweep."""

    rows: tuple[Row, ...]
    averages: tuple[Row, ...]
    """Means over the categories that have every variant, one row per backbone and setting."""
    caption: str
    """What the values are of: images, split and weights."""
    failed: tuple[tuple[str, str], ...]
    """Title and reason of each failed job."""
    skipped_images: int
    """Number of unreadable images, over all jobs."""

    @property
    def headlines(self) -> tuple[str, ...]:
        """One per backbone and setting: of the mean over categories, or of the only category.

        Where the networks have learned next to nothing, a first sentence says so.
        """
        averaged = {(row.backbone, row.settings) for row in self.averages}
        alone = (row for row in self.rows if (row.backbone, row.settings) not in averaged)
        found = tuple(row.headline for row in (*self.averages, *alone) if row.headline)
        cells = [cell for row in self.rows for cell in row.cells.values()]
        known = [(cell.accuracy, cell.chance) for cell in cells if cell.chance is not None and cell.chance < 1]
        gain = measures.mean_of((accuracy - chance) / (1 - chance) for accuracy, chance in known)
        return (UNTRAINED, *found) if gain is not None and gain < LEAST_GAIN else found


def result_table(records: Iterable[JobRecord], upstream_keys: frozenset[str] = frozenset()) -> ResultTable:
    """Build the result table of a sweep.

    Args:
        records: all jobs of the sweep.
        upstream_keys: keys of the jobs that only provide weights; they are left out.
    """
    measured = [record for record in records if record.key not in upstream_keys]
    done = [record for record in measured if record.state is JobState.SUCCEEDED and _metrics(record) is not None]
    groups: dict[tuple[str, str, str], dict[str, list[JobRecord]]] = defaultdict(lambda: defaultdict(list))
    for setting, record in by_setting(done):
        key = (_category(record), str(lookup(record.fields, BACKBONE_FIELD)), setting)
        groups[key][str(lookup(record.fields, VARIANT_FIELD))].append(record)
    rows = tuple(
        Row(*key, cells={variant: _cell(records) for variant, records in cells.items()})
        for key, cells in groups.items()
    )
    single = {_category(record) for record in done if len(lookup(record.fields, CATEGORIES_FIELD)) == 1}
    return ResultTable(
        rows=rows,
        averages=_averages([row for row in rows if row.category in single]),
        caption=caption_of([_metrics(record) for record in done]),
        failed=tuple((r.title, r.failure or str(r.stop_reason)) for r in failed_records(measured)),
        skipped_images=sum(m.skipped_images for r in done if (m := _metrics(r))),
    )


def failed_records(records: Iterable[JobRecord]) -> list[JobRecord]:
    """Return the failed jobs."""
    return [record for record in records if record.state is JobState.FAILED]


def _metrics(record: JobRecord) -> Any:
    return record.result.metrics if record.result else None


def _category(record: JobRecord) -> str:
    return categories_label(lookup(record.fields, CATEGORIES_FIELD), lookup(record.fields, "loss"))


def by_setting(jobs: list[Job]) -> list[tuple[str, Job]]:
    """Pair each job with its setting: the fields in which it differs from others of its variant and backbone.

    An ordinary job is repeated for every setting that only interpretable jobs have, as the baseline of each.
    """
    whole = _completed(jobs)
    varying = _varying_fields(whole)
    return [
        (setting, job)
        for job, described in zip(jobs, whole, strict=True)
        for setting in _settings_of(described, whole, varying)
    ]


@dataclass(frozen=True)
class _Whole:
    """A job with every field of its spec."""

    fields: dict[str, Any]


def _completed(jobs: Sequence[Described]) -> list[Described]:
    """The jobs, those of earlier versions of orch with the default of each field that there was not yet.

    Validation takes long for thousands of jobs, so of jobs with the same fields one shows whether all are complete.
    """
    found, complete = [], dict[frozenset[str], bool]()
    for job in jobs:
        names = _names(job)
        if names not in complete:
            complete[names] = _names(_validated(job)) == names
        found.append(job if complete[names] else _validated(job))
    return found


def _names(job: Described) -> frozenset[str]:
    return frozenset(name for name, _ in flatten(job.fields))


def _validated(job: Described) -> Described:
    try:
        return _Whole(JobSpec.model_validate(job.fields).model_dump(mode="json"))
    except ValidationError:  # of another version of orch
        return job


def _leaves(record: Described) -> dict[str, Any]:
    return {name: str(value) for name, value in flatten(record.fields) if name not in _NOT_A_SETTING}


def _varying_fields(records: Sequence[Described]) -> list[str]:
    """Fields that differ among jobs of one variant and backbone: the further axes of the sweep."""
    found: dict[str, None] = {}
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[_experiment(record)].append(_leaves(record))
    for leaves in groups.values():
        for name in dict.fromkeys(name for leaf in leaves for name in leaf):
            if len({leaf.get(name) for leaf in leaves}) > 1:
                found[name] = None
    return list(found)


def _experiment(record: Described) -> tuple[str, ...]:
    """The experiment of the paper that a job belongs to. Profiles set further fields for several categories and CUB."""
    categories = lookup(record.fields, CATEGORIES_FIELD) or ()
    is_own = len(categories) > 1 or list(categories) == [SPECIES_OF]
    own = (str(categories), str(lookup(record.fields, "loss"))) if is_own else ()
    return (str(lookup(record.fields, BACKBONE_FIELD)), str(lookup(record.fields, VARIANT_FIELD)), *own)


def _settings_of(record: Described, all_records: Sequence[Described], varying: list[str]) -> list[str]:
    """Settings of the rows that a job belongs to; for an ordinary job, those of its interpretable counterparts."""
    shared = [name for name in varying if not name.startswith(_INTERPRETABLE_ONLY)]
    special = [name for name in varying if name.startswith(_INTERPRETABLE_ONLY)]
    own = _named(record, shared)
    if not special:
        return [own]
    if lookup(record.fields, VARIANT_FIELD) == "interpretable":
        return [_join(own, _non_defaults(record, special))]
    partners = [
        other
        for other in all_records
        if lookup(other.fields, VARIANT_FIELD) == "interpretable"
        and _named(other, shared) == own
        and all(lookup(other.fields, f) == lookup(record.fields, f) for f in (CATEGORIES_FIELD, BACKBONE_FIELD))
    ]
    return list(dict.fromkeys(_join(own, _non_defaults(other, special)) for other in partners)) or [own]


def _named(record: Described, fields: list[str]) -> str:
    leaves = _leaves(record)
    return ", ".join(f"{name}={leaves[name]}" for name in fields if name in leaves)


def _non_defaults(record: Described, fields: list[str]) -> str:
    """The fields of the interpretable layers that differ from their defaults."""
    leaves = _leaves(record)
    changed = [f"{name}={leaves[name]}" for name in fields if leaves.get(name, _DEFAULTS[name]) != _DEFAULTS[name]]
    return ", ".join(changed) or "default"


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _cell(records: list[JobRecord]) -> ResultCell:
    metrics = [_metrics(record) for record in records]
    measured = [m.location_instability for m in metrics if m.location_instability is not None]
    return ResultCell(
        accuracy=fmean(m.test_accuracy for m in metrics),
        instability=fmean(measured) if measured else None,
        jobs=len(records),
        chance=measures.mean_of(m.chance_accuracy for m in metrics),
        measures=measures.of_jobs(metrics),
    )


def _averages(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Means over the categories that have every variant of the sweep, so that both means are of the same ones."""
    variants = {variant for row in rows for variant in row.cells}
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if set(row.cells) == variants:
            groups[row.backbone, row.settings].append(row)
    return tuple(
        Row(
            f"mean of {len(group)}",
            backbone,
            settings,
            {v: _mean_cell([row.cells[v] for row in group]) for v in variants},
        )
        for (backbone, settings), group in groups.items()
        if len(group) > 1
    )


def _mean_cell(cells: list[ResultCell]) -> ResultCell:
    measured = [cell.instability for cell in cells if cell.instability is not None]
    return ResultCell(
        accuracy=fmean(cell.accuracy for cell in cells),
        instability=fmean(measured) if measured else None,
        jobs=sum(cell.jobs for cell in cells),
        chance=measures.mean_of(cell.chance for cell in cells),
        measures=measures.over_categories([cell.measures for cell in cells]),
    )


def caption_of(metrics: Sequence[JobMetrics]) -> str:
    """Describe what the values are of: generated images or photographs, measured split, and weights."""
    images = {"generated": "generated animals", "photographs": "photographs"}
    splits = {"test": "held-out images", "all": "all annotated images"}
    parts = (
        " and ".join(sorted({images[m.images] for m in metrics})),
        "filters measured on " + " and ".join(sorted({splits[m.measured_split] for m in metrics})),
        "weights from " + " and ".join(sorted({m.weights for m in metrics})),
        *_chance_words([m.chance_accuracy for m in metrics if m.chance_accuracy is not None]),
    )
    return "; ".join(parts) if metrics else "no job has finished"


def _chance_words(levels: Sequence[float]) -> list[str]:
    if not levels:
        return []
    low, high = f"{min(levels):.2f}", f"{max(levels):.2f}"
    return [f"accuracy by chance {low}{'' if low == high else f' to {high}'}"]


HEADINGS = (
    "category", "backbone", "settings", "accuracy ordinary", "accuracy interp.", "chance", "instability ordinary",
    "instability interp.", "change", "tracking ordinary", "tracking interp.",
)  # fmt: skip
OPTIONAL = ("tracking ordinary", "tracking interp.", "chance")
"""Headings of the columns that a narrow terminal leaves out, the first ones first."""
TEXT_COLUMNS = 3
"""Number of leading headings whose cells are text."""


def cells_of(row: Row) -> tuple[str, ...]:
    """Format a row, in the order of `HEADINGS`. A dash marks a missing value."""
    accuracies = [f"{row.cells[v].accuracy:.3f}" if v in row.cells else "-" for v in VARIANTS]
    values = [row.cells[v].instability if v in row.cells else None for v in VARIANTS]
    instabilities = ["-" if value is None else f"{value:.4f}" for value in values]
    change = "-" if row.change is None else f"{row.change:+z.0%}"
    chance = "-" if row.chance is None else f"{row.chance:.3f}"
    shares = [row.cells[v].measures.tracking if v in row.cells else None for v in VARIANTS]
    tracking = ["-" if share is None else f"{round(share, 2) + 0.0:.0%}" for share in shares]
    return (row.category, row.backbone, row.settings, *accuracies, chance, *instabilities, change, *tracking)


def used_columns(table: ResultTable) -> list[int]:
    """Return the indices of the columns to show: settings, chance and tracking only if any row has some."""
    cells = [cells_of(row) for row in table.rows]
    unless_empty = ("settings", *OPTIONAL)
    return [
        i for i, name in enumerate(HEADINGS) if name not in unless_empty or any(c[i] not in ("", "-") for c in cells)
    ]


def as_markdown(table: ResultTable) -> str:
    """Format the table as Markdown, means first, with failed jobs and skipped images below."""
    columns = used_columns(table)
    headings = [HEADINGS[i] for i in columns]
    lines = [f"**{table.caption}**", ""]
    if table.rows:
        cells = [[cells_of(row)[i] for i in columns] for row in (*table.averages, *table.rows)]
        text_columns = sum(i < TEXT_COLUMNS for i in columns)
        lines.append(render_table(headings, cells, text_columns, TableFormat.MARKDOWN))
    lines += [f"\n{line}" for line in table.headlines]
    lines += [f"\nfailed: {title} - {reason}" for title, reason in table.failed]
    if table.skipped_images:
        lines.append(f"\n{table.skipped_images} unreadable images were skipped.")
    return "\n".join(lines)


def as_json(table: ResultTable) -> dict[str, Any]:
    """Convert the table to JSON values."""
    return {
        "caption": table.caption,
        "rows": [_row_json(row) for row in table.rows],
        "averages": [_row_json(row) for row in table.averages],
        "headlines": list(table.headlines),
        "failed": [{"job": title, "reason": reason} for title, reason in table.failed],
        "skipped_images": table.skipped_images,
    }


def _row_json(row: Row) -> dict[str, Any]:
    cells = {
        v: {
            "accuracy": c.accuracy, "chance": c.chance, "location_instability": c.instability, "jobs": c.jobs,
            "measures": asdict(c.measures),
        }
        for v, c in row.cells.items()
    }  # fmt: skip
    return {
        "category": row.category, "backbone": row.backbone, "settings": row.settings, **cells,
        "instability_change": row.change,
    }  # fmt: skip
