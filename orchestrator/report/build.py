"""Builds a report: assigns a sweep's jobs to the values of the paper's Tables 1-7, or of imported data sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from orchestrator.planning.diff import PlannedJob, PlanStatus
from orchestrator.planning.setting_layers import lookup
from orchestrator.report.caveats import FinishedJob, caption, caveats, share_weights
from orchestrator.report.coverage import TableCoverage
from orchestrator.report.measures import mean_of, of_jobs, over_categories
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
from orchestrator.report.results import PlacedJob, Results, names_of, panels_of
from orchestrator.report.significance import Comparison, Pair, compare_families
from orchestrator.report.summary import VARIANTS
from schemas.categories import category_of, is_imported
from schemas.errors import SpecError
from schemas.paper import ALL, AVERAGE, PRINTED_AS, MetricName, Published, published_values


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
        have no place in any table and are left out. Without `numbers`, tables of imported data sets are last.
    """
    measured = (job for job in jobs if job.spec.key not in upstream_keys)
    placed = [found for job in measured if (found := _job(job)) and not (numbers and is_imported(found.place.dataset))]
    done = [job for job in placed if job.metrics]
    finished = [FinishedJob(job.fields, job.metrics) for job in placed if job.metrics]
    results = Results(placed)
    wanted = [n for n in TITLES if n in numbers] if numbers else [n for n in TITLES if _concerns(n, done)]
    built = [_table(number, results) for number in wanted]
    own = [] if numbers else _imported_tables(results)
    tables = tuple(table for table in (*built, *own) if any(block.has_ours for block in table.blocks))
    published = [job for job in done if not is_imported(job.place.dataset)]
    beside_published = [FinishedJob(job.fields, job.metrics) for job in published if job.metrics]
    return Report(
        sweep=sweep,
        caption=caption(finished),
        caveats=(*caveats(finished, beside_published), *_without_landmarks(done)),
        tables=tables,
        overall=_overall(tables, results),
        missing=tuple(missing for number in wanted for missing in _missing(number, results)),
        given=tuple(_given(number, table) for number, table in zip(wanted, built, strict=True)),
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


def _job(job: PlannedJob) -> PlacedJob | None:
    """The job at its place; None for a job over several data sets, which has no place in the paper's tables."""
    spec = job.spec
    datasets = {category_of(name).dataset for name in spec.data.categories}
    if len(datasets) > 1:
        return None
    category = category_of(spec.data.categories[0]).name if spec.is_single else ALL
    metrics = job.record.result.metrics if job.record and job.record.result else None
    return PlacedJob(
        place=Place("single" if spec.is_single else "multi", datasets.pop(), spec.loss, category),
        backbone=spec.model.backbone,
        variant=spec.model.variant,
        fields=spec.model_dump(mode="json"),
        metrics=metrics if job.status is PlanStatus.DONE else None,
        covered=len(spec.data.categories),
        why=NOT_MEASURED if job.status is PlanStatus.DONE else job.status.value,
    )


def _concerns(number: int, done: Sequence[PlacedJob]) -> bool:
    """Whether the sweep has a value for the table."""
    values = _of_table(number)
    metric, panels = METRICS[values[0].metric], panels_of(_places(values))
    return any(job.place[:3] in panels and job.metrics and metric.of(job.metrics) is not None for job in done)


def _of_table(number: int) -> list[Published]:
    return [value for value in published_values() if value.table == number]


def _places(values: Iterable[Published]) -> list[Place]:
    return list(dict.fromkeys(Place(v.task, v.dataset, v.loss, v.category) for v in values))


# -- one table ----------------------------------------------------------------------------------------------------


def _table(number: int, results: Results) -> ReportTable:
    values = _of_table(number)
    printed: dict[tuple[Place, str, str], float] = {
        (Place(v.task, v.dataset, v.loss, v.category), v.backbone, v.variant): v.value for v in values
    }
    return ReportTable(number, values[0].metric, _compared(values[0].metric, _places(values), printed, results))


def _imported_tables(results: Results) -> list[ReportTable]:
    """One table per measure of the networks of each imported data set, which has no published values."""
    tables = []
    for panel, names in results.imported_panels().items():
        means = [AVERAGE] if len(names) > 1 else []
        places = [Place(*panel, name) for name in (*names, *means)]
        for metric in METRICS:
            blocks = tuple(block for block in _compared(metric, places, {}, results) if block.has_ours)
            if blocks:
                tables.append(ReportTable(None, metric, blocks))
    return tables


def _without_landmarks(done: Sequence[PlacedJob]) -> Iterator[str]:
    """Yield a sentence if networks of imported data sets have no location instability."""
    lacking = dict.fromkeys(
        f"{job.place.dataset} {job.place.category}"
        for job in done
        if is_imported(job.place.dataset) and job.metrics and job.metrics.location_instability is None
    )
    if lacking:
        yield (
            f"No location instability of {', '.join(lacking)}: their images have no landmarks, or no filter fires on "
            "two images that show one. Accuracy and pictures of filters need none."
        )


def _compared(
    name: MetricName, places: Sequence[Place], printed: Mapping[tuple[Place, str, str], float], results: Results
) -> tuple[Block, ...]:
    """The blocks of a table, each with its comparison."""
    metric = METRICS[name]
    published_backbones = {backbone for _, backbone, _ in printed}
    blocks = [
        _Builder(results, metric, places, printed, backbone, setting).block()
        for backbone in results.backbones
        for setting in results.settings(places, backbone)
    ]
    blocks = [block for block in blocks if block.backbone in published_backbones or block.has_ours]
    compared = compare_families([block.pairs() for block in blocks], metric.lower_is_better)
    return tuple(
        replace(block, comparison=_with_context(comparison, block.paired, name, results.jobs_of([block])))
        for block, comparison in zip(blocks, compared, strict=True)
    )


def _with_context(
    comparison: Comparison | None, lines: Sequence[Line], metric: MetricName, jobs: Sequence[FinishedJob]
) -> Comparison | None:
    """Add what a change is bought with, the mean accuracy of the compared networks, and for instability its worth.

    Args:
        comparison: the comparison of the lines.
        lines: lines with both variants.
        metric: what is compared.
        jobs: the jobs of these lines.
    """
    pairs = [[line.entries[variant].accuracy for variant in VARIANTS] for line in lines]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if comparison is None or not known:
        return comparison
    entries = [[line.entries[variant] for line in lines] for variant in VARIANTS]
    ordinary, interpretable = (over_categories([entry.measures for entry in each]) for each in entries)
    return replace(
        comparison,
        accuracy=(fmean(a for a, _ in known), fmean(b for _, b in known)),
        chance=mean_of(entry.chance for each in entries for entry in each),
        shares_weights=share_weights(jobs),
        measures=(ordinary, interpretable) if metric == "location_instability" else None,
    )


def _given(number: int, table: ReportTable) -> TableCoverage:
    """Count the published values beside which the report has one of ours of the same categories."""
    given = {
        (line.place, PRINTED_AS.get(block.backbone, block.backbone), variant)
        for block in table.blocks
        for line in block.lines
        for variant, entry in line.entries.items()
        if entry.ours is not None and entry.published is not None and entry.covered == entry.total
    }
    return TableCoverage(number, len(given), len(_of_table(number)))


@dataclass(frozen=True)
class _Builder:
    results: Results
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
        jobs = self.results.at(place, self.backbone, self.setting).get((place.category, variant), [])
        covered = max((job.covered for job in jobs if job.metrics), default=0)
        total = len(self.results.names(place)) or covered if place.category == ALL else 1
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
            chance=mean_of(None if m.chance_accuracy is None else 100 * m.chance_accuracy for m in found),
            measures=of_jobs(found),
            images=tuple(dict.fromkeys(_images(job.fields, self.metric) for job in whole)),
        )

    def _average(self, place: Place, variant: str) -> TableEntry:
        """The mean over the categories that have every variant of the sweep, so that both means are of the same ones.

        Over some of the categories, the published mean is recomputed from the published values of the same ones.
        """
        names = self.results.names(place)
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
            chance=mean_of(entry.chance for entry in mine),
            measures=over_categories([entry.measures for entry in mine]),
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


def _missing(number: int, results: Results) -> Iterator[Missing]:
    values = _of_table(number)
    metric, places = METRICS[values[0].metric], _places(values)
    networks = dict.fromkeys(network for value in values for network in _networks_behind(value))
    for place, backbone, variant in sorted(networks, key=lambda network: results.backbones.index(network[1])):
        total = len(names_of(place.dataset)) if place.category == ALL else 1
        for setting in results.settings(places, backbone):
            jobs = results.at(place, backbone, setting).get((place.category, variant), [])
            measured = [job for job in jobs if job.metrics and metric.of(job.metrics) is not None]
            if not any(job.covered == total for job in measured):
                whole = [job for job in jobs if job.covered == total]
                yield Missing(number, place, backbone, variant, setting, whole[0].why if whole else "")


def _networks_behind(value: Published) -> Iterator[tuple[Place, str, str]]:
    """Place, backbone and variant of the networks behind a published value; for an average, one per category."""
    names = names_of(value.dataset) if value.category == AVERAGE else [value.category]
    for name in names:
        yield Place(value.task, value.dataset, value.loss, name), value.backbone, value.variant


# -- over all data sets -------------------------------------------------------------------------------------------


def _overall(tables: Sequence[ReportTable], results: Results) -> tuple[Overall, ...]:
    """Comparisons over all data sets; empty with fewer than two, where the table's own comparison says the same."""
    pairs: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    blocks: dict[tuple[str, str], list[Block]] = defaultdict(list)
    members = [table for table in tables if table.number in INSTABILITY_TABLES]
    for table in members:
        for block in table.blocks:
            pairs[block.backbone, block.setting] += block.pairs()
            blocks[block.backbone, block.setting].append(block)
    if sum(any(block.pairs() for block in table.blocks) for table in members) < 2:
        return ()
    compared = compare_families(list(pairs.values()), lower_is_better=True)
    families = zip(pairs, compared, strict=True)
    return tuple(
        Overall(*key, found)
        for key, each in families
        if (found := _with_context(each, _paired(blocks[key]), "location_instability", results.jobs_of(blocks[key])))
    )


def _paired(blocks: Iterable[Block]) -> list[Line]:
    return [line for block in blocks for line in block.paired]
