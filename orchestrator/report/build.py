"""Builds a report: assigns a sweep's jobs to the values of the paper's Tables 1-7."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, get_args

from orchestrator.planning.diff import PlannedJob, PlanStatus
from orchestrator.planning.setting_layers import lookup
from orchestrator.report.caveats import FinishedJob, caption, caveats
from orchestrator.report.coverage import TableCoverage
from orchestrator.report.model import (
    INSTABILITY_TABLES,
    METRICS,
    NOT_MEASURED,
    TITLES,
    Block,
    Line,
    Metric,
    Missing,
    Overall,
    Place,
    Report,
    ReportTable,
    TableEntry,
)
from orchestrator.report.significance import Comparison, Pair, compare_families
from orchestrator.report.summary import VARIANTS, by_setting
from schemas.categories import BY_ID, CATEGORIES
from schemas.errors import SpecError
from schemas.job import BackboneName
from schemas.paper import ALL, AVERAGE, PRINTED_AS, Published, published_values
from schemas.results import JobMetrics


@dataclass(frozen=True)
class _Job:
    """A job at its place in the paper's tables."""

    place: Place
    backbone: str
    variant: str
    fields: dict[str, Any]
    metrics: JobMetrics | None
    covered: int
    """Number of categories of its network."""
    why: str
    """Reason, if it has no value."""


_JobsByCategory = dict[tuple[str, str], list[_Job]]
"""Jobs by category and variant, several if seeds differ."""


class _Results:
    """A sweep's jobs, indexed by their place in the paper's tables."""

    def __init__(self, jobs: Iterable[_Job]) -> None:
        self._settings: dict[tuple[str, str, str, str], dict[str, _JobsByCategory]] = defaultdict(dict)
        panels: dict[tuple[str, str, str], list[_Job]] = defaultdict(list)
        for job in jobs:
            panels[job.place[:3]].append(job)
        for panel, members in panels.items():
            for setting, job in by_setting(members):
                members_of = self._settings[*panel, job.backbone].setdefault(setting, defaultdict(list))
                members_of[job.place.category, job.variant].append(job)

    def settings(self, places: Collection[Place], backbone: str) -> list[str]:
        """Settings of a backbone's jobs at these places; one empty setting if it has no job there."""
        found = [s for panel in _panels(places) for s in self._settings.get((*panel, backbone), {})]
        return list(dict.fromkeys(found)) or [""]

    def at(self, place: Place, backbone: str, setting: str) -> _JobsByCategory:
        """Jobs of the setting. A data set that has only one setting provides its jobs for every setting."""
        settings = self._settings.get((*place[:3], backbone), {})
        return settings.get(setting) or (next(iter(settings.values())) if len(settings) == 1 else {})


def build_report(
    sweep: str, jobs: Iterable[PlannedJob], upstream_keys: Collection[str], numbers: Collection[int] = ()
) -> Report:
    """Build the report of a sweep.

    Args:
        sweep: its name.
        jobs: all jobs of its plan.
        upstream_keys: keys of the jobs that only provide weights; they are left out.
        numbers: the tables to build; empty means all for which the sweep has a value.

    Returns:
        The report, without the tables for which the sweep has no value. Jobs over several data sets
        have no place in the paper's tables and are left out.
    """
    measured = (job for job in jobs if job.spec.key not in upstream_keys)
    placed = [found for job in measured if (found := _job(job))]
    done = [job for job in placed if job.metrics]
    finished = [FinishedJob(job.fields, job.metrics) for job in placed if job.metrics]
    results = _Results(placed)
    wanted = [n for n in TITLES if n in numbers] if numbers else [n for n in TITLES if _concerns(n, done)]
    built = [_table(number, results) for number in wanted]
    tables = tuple(table for table in built if any(block.has_ours for block in table.blocks))
    return Report(
        sweep=sweep,
        caption=caption(finished),
        caveats=tuple(caveats(finished)),
        tables=tables,
        overall=_overall(tables),
        missing=tuple(missing for number in wanted for missing in _missing(number, results)),
        given=tuple(_given(table) for table in built),
    )


def check_table_numbers(numbers: Collection[int]) -> None:
    """Check that the paper has the tables.

    Raises:
        SpecError: the paper has no such table of results.
    """
    unknown = sorted(set(numbers) - set(TITLES))
    if unknown:
        listed = "; ".join(f"{number} {title}" for number, title in TITLES.items())
        raise SpecError(f"The paper has no Table {unknown[0]} of results. It has: {listed}.")


def _job(job: PlannedJob) -> _Job | None:
    """The job at its place; None for a job over several data sets, which has no place in the paper's tables."""
    spec = job.spec
    datasets = {BY_ID[name].dataset for name in spec.data.categories}
    if len(datasets) > 1:
        return None
    category = BY_ID[spec.data.categories[0]].name if spec.is_single else ALL
    metrics = job.record.result.metrics if job.record and job.record.result else None
    return _Job(
        place=Place("single" if spec.is_single else "multi", datasets.pop(), spec.loss, category),
        backbone=spec.model.backbone,
        variant=spec.model.variant,
        fields=spec.model_dump(mode="json"),
        metrics=metrics if job.status is PlanStatus.DONE else None,
        covered=len(spec.data.categories),
        why=NOT_MEASURED if job.status is PlanStatus.DONE else job.status.value,
    )


def _concerns(number: int, done: Sequence[_Job]) -> bool:
    """Whether the sweep has a value for the table."""
    values = _of_table(number)
    metric, panels = METRICS[values[0].metric], _panels(_places(values))
    return any(job.place[:3] in panels and job.metrics and metric.of(job.metrics) is not None for job in done)


def _of_table(number: int) -> list[Published]:
    return [value for value in published_values() if value.table == number]


def _places(values: Iterable[Published]) -> list[Place]:
    return list(dict.fromkeys(Place(v.task, v.dataset, v.loss, v.category) for v in values))


def _panels(places: Iterable[Place]) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys(place[:3] for place in places))


def _names(dataset: str) -> list[str]:
    return [category.name for category in CATEGORIES if category.dataset == dataset]


# -- one table ----------------------------------------------------------------------------------------------------


def _table(number: int, results: _Results) -> ReportTable:
    values = _of_table(number)
    metric, places = METRICS[values[0].metric], _places(values)
    printed: dict[tuple[Place, str, str], float] = {
        (Place(v.task, v.dataset, v.loss, v.category), v.backbone, v.variant): v.value for v in values
    }
    published_backbones = {v.backbone for v in values}
    blocks = [
        _Builder(results, metric, places, printed, backbone, setting).block()
        for backbone in get_args(BackboneName)
        for setting in results.settings(places, backbone)
    ]
    blocks = [block for block in blocks if block.backbone in published_backbones or block.has_ours]
    compared = compare_families([block.pairs() for block in blocks], metric.lower_is_better)
    with_tests = (
        replace(block, comparison=_with_accuracy(comparison, block.paired))
        for block, comparison in zip(blocks, compared, strict=True)
    )
    return ReportTable(number, values[0].metric, tuple(with_tests))


def _with_accuracy(comparison: Comparison | None, lines: Iterable[Line]) -> Comparison | None:
    """Add the mean accuracy of the compared networks, because a change of instability can be bought with it."""
    pairs = [[line.entries[variant].accuracy for variant in VARIANTS] for line in lines]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if comparison is None or not known:
        return comparison
    return replace(comparison, accuracy=(fmean(a for a, _ in known), fmean(b for _, b in known)))


def _given(table: ReportTable) -> TableCoverage:
    """Count the published values beside which the report has one of ours of the same categories."""
    given = {
        (line.place, PRINTED_AS.get(block.backbone, block.backbone), variant)
        for block in table.blocks
        for line in block.lines
        for variant, entry in line.entries.items()
        if entry.ours is not None and entry.published is not None and entry.covered == entry.total
    }
    return TableCoverage(table.number, len(given), len(_of_table(table.number)))


@dataclass(frozen=True)
class _Builder:
    results: _Results
    metric: Metric
    places: Sequence[Place]
    printed: Mapping[tuple[Place, str, str], float]
    backbone: str
    setting: str

    def block(self) -> Block:
        lines = (self._line(place) for place in self.places)
        kept = tuple(
            line for line in lines if any(e.ours is not None or e.published is not None for e in line.entries.values())
        )
        return Block(self.backbone, self.setting, kept)

    def _line(self, place: Place) -> Line:
        entry = self._average if place.category == AVERAGE else self._single
        return Line(place, {variant: entry(place, variant) for variant in VARIANTS}, self.metric.change_is_relative)

    def _published(self, place: Place, variant: str) -> float | None:
        return self.printed.get((place, PRINTED_AS.get(self.backbone, self.backbone), variant))

    def _single(self, place: Place, variant: str) -> TableEntry:
        """The entry of one category, or of one network for all categories."""
        total = len(_names(place.dataset)) if place.category == ALL else 1
        jobs = self.results.at(place, self.backbone, self.setting).get((place.category, variant), [])
        covered = max((job.covered for job in jobs if job.metrics), default=0)
        whole = [job for job in jobs if job.metrics and job.covered == covered]
        found = [m for job in whole if (m := job.metrics)]
        ours = [value for m in found if (value := self.metric.of(m)) is not None]
        return TableEntry(
            ours=fmean(ours) if ours else None,
            published=self._published(place, variant),
            jobs=len(ours),
            covered=covered,
            total=total,
            comparable=covered == total,
            filters=sum(m.filters for m in found),
            left_out=sum(self.metric.left_out(m) for m in found) if self.metric.left_out else 0,
            accuracy=fmean(100 * m.test_accuracy for m in found) if ours else None,
            images=tuple(dict.fromkeys(_images(job.fields, self.metric) for job in whole)),
        )

    def _average(self, place: Place, variant: str) -> TableEntry:
        """The mean over the categories that have every variant of the sweep, so that both means are of the same ones.

        Over some of the categories, the published mean is recomputed from the published values of the same ones.
        """
        names = _names(place.dataset)
        entries = {(n, v): self._single(place._replace(category=n), v) for n in names for v in VARIANTS}
        present = {v for (_, v), entry in entries.items() if entry.ours is not None}
        shared = [n for n in names if present and all(entries[n, v].ours is not None for v in present)]
        mine = [entries[n, variant] for n in shared if variant in present]
        ours = [entry.ours for entry in mine if entry.ours is not None]
        theirs = [entry.published for entry in mine if entry.published is not None]
        accuracies = [entry.accuracy for entry in mine if entry.accuracy is not None]
        recomputed = bool(ours) and len(shared) < len(names) and len(theirs) == len(shared)
        return TableEntry(
            ours=fmean(ours) if ours else None,
            published=fmean(theirs) if recomputed else self._published(place, variant),
            jobs=sum(entry.jobs for entry in mine),
            covered=len(shared),
            total=len(names),
            comparable=recomputed or len(shared) == len(names),
            filters=sum(entry.filters for entry in mine),
            left_out=sum(entry.left_out for entry in mine),
            accuracy=fmean(accuracies) if accuracies else None,
            images=tuple(dict.fromkeys(words for entry in mine for words in entry.images)),
        )


def _images(fields: Mapping[str, Any], metric: Metric) -> str:
    """Images that a job's value is measured on; accuracy is always measured on held-out ones."""
    if metric.left_out and lookup(fields, "evaluation.split") == "all":
        return "all annotated images, training images included"
    if lookup(fields, "data.images") == "generated":
        return "held-out images, generated separately"
    share = f"{lookup(fields, 'data.test_fraction'):.0%}"
    seed = lookup(fields, "data.split_seed")
    how = {"even": f"{share}, evenly spaced", "official": "the published split", "seeded": f"{share}, seed {seed}"}
    return f"held-out images ({how[str(lookup(fields, 'data.split'))]})"


# -- what is missing ----------------------------------------------------------------------------------------------


def _missing(number: int, results: _Results) -> Iterator[Missing]:
    values = _of_table(number)
    metric, places = METRICS[values[0].metric], _places(values)
    networks = dict.fromkeys(network for value in values for network in _networks_behind(value))
    for place, backbone, variant in sorted(networks, key=lambda network: get_args(BackboneName).index(network[1])):
        total = len(_names(place.dataset)) if place.category == ALL else 1
        for setting in results.settings(places, backbone):
            jobs = results.at(place, backbone, setting).get((place.category, variant), [])
            measured = [job for job in jobs if job.metrics and metric.of(job.metrics) is not None]
            if not any(job.covered == total for job in measured):
                whole = [job for job in jobs if job.covered == total]
                yield Missing(number, place, backbone, variant, setting, whole[0].why if whole else "")


def _networks_behind(value: Published) -> Iterator[tuple[Place, str, str]]:
    """Place, backbone and variant of the networks behind a published value; for an average, one per category."""
    names = _names(value.dataset) if value.category == AVERAGE else [value.category]
    for name in names:
        yield Place(value.task, value.dataset, value.loss, name), value.backbone, value.variant


# -- over all data sets -------------------------------------------------------------------------------------------


def _overall(tables: Sequence[ReportTable]) -> tuple[Overall, ...]:
    """Comparisons over all data sets; empty with fewer than two, where the table's own comparison says the same."""
    pairs: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    lines: dict[tuple[str, str], list[Line]] = defaultdict(list)
    members = [table for table in tables if table.number in INSTABILITY_TABLES]
    for table in members:
        for block in table.blocks:
            pairs[block.backbone, block.setting] += block.pairs()
            lines[block.backbone, block.setting] += block.paired
    if sum(any(block.pairs() for block in table.blocks) for table in members) < 2:
        return ()
    compared = compare_families(list(pairs.values()), lower_is_better=True)
    families = zip(pairs, compared, strict=True)
    return tuple(Overall(*key, found) for key, each in families if (found := _with_accuracy(each, lines[key])))
