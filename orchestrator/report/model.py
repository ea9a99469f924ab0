"""Data model of a report: the rows of the paper's Tables 1-7, with our value and the published one in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.report.coverage import TableCoverage
from orchestrator.report.measures import UNMEASURED, Measures
from orchestrator.report.significance import Comparison, Pair
from orchestrator.report.summary import VARIANTS
from schemas.paper import ALL, AVERAGE, MetricName
from schemas.results import JobMetrics

TITLES: Mapping[int, str] = {
    1: "Part interpretability of filters, one network per category, Pascal VOC Part",
    2: "Part interpretability of filters, one network for all categories, Pascal VOC Part",
    3: "Location instability, one network per category, ILSVRC 2013 DET Animal-Part",
    4: "Location instability, one network per category, Pascal VOC Part",
    5: "Location instability, one network per category, CUB-200-2011",
    6: "Location instability, one network for all categories",
    7: "Classification accuracy, per cent",
}
DATASET_TITLES: Mapping[str, str] = {"ilsvrc_animal_part": "ILSVRC Part", "voc_part": "VOC Part", "cub200": "CUB200"}
INSTABILITY_TABLES = (3, 4, 5)
NOT_MEASURED = "not measured"
"""Reason for a missing cell whose job is done."""


@dataclass(frozen=True)
class Metric:
    """A measure of the paper, and how its values are read and written."""

    title: str
    of: Callable[[JobMetrics], float | None]
    """Reads the value of a job; None if the job did not measure it."""
    digits: int
    """Decimals shown."""
    lower_is_better: bool
    change_is_relative: bool = True
    """Whether interpretable against ordinary is a ratio; otherwise it is a difference."""
    left_out: Callable[[JobMetrics], int] | None = None
    """Reads the number of filters without a value; None for a measure that is not per filter."""


METRICS: Mapping[MetricName, Metric] = {
    "part_interpretability": Metric(
        "part interpretability", lambda m: m.part_interpretability, 3, False, left_out=lambda m: m.part_filters_left_out
    ),
    "location_instability": Metric(
        "location instability", lambda m: m.location_instability, 3, True, left_out=lambda m: m.filters_left_out
    ),
    "accuracy_percent": Metric("accuracy", lambda m: 100 * m.test_accuracy, 2, False, change_is_relative=False),
}


class Place(NamedTuple):
    """Position of a value in the paper's tables, or in those of an imported data set, without backbone and variant."""

    task: str
    dataset: str
    loss: str
    category: str


@dataclass(frozen=True)
class TableEntry:
    """Our value and the published one for one network, or for a mean over networks."""

    ours: float | None = None
    published: float | None = None
    jobs: int = 0
    """Number of jobs averaged in `ours`."""
    covered: int = 0
    """Number of categories in `ours`."""
    total: int = 1
    """Number of categories in the paper's value."""
    comparable: bool = True
    """Whether both values are of the same categories."""
    filters: int = 0
    """Number of filters of the jobs."""
    left_out: int = 0
    """Number of these filters that have no value."""
    accuracy: float | None = None
    """Mean accuracy of the networks in `ours`, in per cent."""
    chance: float | None = None
    """Mean accuracy of the best constant answer on their test images, in per cent."""
    measures: Measures = UNMEASURED
    """What their location instability is worth."""
    images: tuple[str, ...] = ()
    """Descriptions of the images that `ours` is measured on."""

    @property
    def difference(self) -> float | None:
        """Ours minus the published value; None if they are not comparable."""
        if self.ours is None or self.published is None or not self.comparable:
            return None
        return self.ours - self.published


@dataclass(frozen=True)
class Line:
    """A row of a table: the entries of both variants at one place."""

    place: Place
    entries: Mapping[str, TableEntry]
    """By variant."""
    change_is_relative: bool

    @property
    def ours(self) -> tuple[float | None, ...]:
        """Our values, in the order of `VARIANTS`."""
        return tuple(self.entries[variant].ours for variant in VARIANTS)

    @property
    def has_ours(self) -> bool:
        """Whether the sweep has a value for any variant."""
        return any(entry.ours is not None for entry in self.entries.values())

    @property
    def covered(self) -> int:
        """Number of categories in our values, the smaller one if the variants differ."""
        return min((entry.covered for entry in self.entries.values() if entry.ours is not None), default=0)

    @property
    def total(self) -> int:
        """Number of categories in the paper's value."""
        return max(entry.total for entry in self.entries.values())

    @property
    def change(self) -> float | None:
        """Our interpretable value against the ordinary one; None if one is missing."""
        return self._change(self.ours)

    @property
    def published_change(self) -> float | None:
        """The published interpretable value against the ordinary one; None if one is missing."""
        return self._change([self.entries[variant].published for variant in VARIANTS])

    def _change(self, values: Sequence[float | None]) -> float | None:
        ordinary, interpretable = values
        if not ordinary or interpretable is None:
            return None
        return interpretable / ordinary - 1 if self.change_is_relative else interpretable - ordinary


@dataclass(frozen=True)
class Block:
    """The lines of one backbone under one setting of the sweep's further axes."""

    backbone: str
    setting: str
    """Such as `filter_loss.weight=0.1`; empty if the sweep has no further axes."""
    lines: tuple[Line, ...]
    comparison: Comparison | None = None
    """Interpretable against ordinary over the categories; None without a pair."""

    @property
    def has_ours(self) -> bool:
        """Whether the sweep has a value for any line."""
        return any(line.has_ours for line in self.lines)

    @property
    def shown(self) -> tuple[Line, ...]:
        """Lines to print: those for which the sweep has a value."""
        return tuple(line for line in self.lines if line.has_ours)

    def pairs(self) -> list[Pair]:
        """Return (ordinary, interpretable) for each single category that has both."""
        return [(a, b) for line in self.paired if (a := line.ours[0]) and (b := line.ours[1]) is not None]

    @property
    def paired(self) -> tuple[Line, ...]:
        """Lines of the single categories that have both variants."""
        single = (line for line in self.lines if line.place.category not in (AVERAGE, ALL))
        return tuple(line for line in single if line.ours[0] and line.ours[1] is not None)


@dataclass(frozen=True)
class ReportTable:
    """One of the paper's tables, or a table of an imported data set."""

    number: int | None
    """None for a table of an imported data set, which has no published values."""
    metric: MetricName
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        """Number, such as `Table 5`, or the name of the imported data set."""
        return self._place.dataset if self.number is None else f"Table {self.number}"

    @property
    def title(self) -> str:
        """Number and title, such as `Table 5. Location instability, ...`."""
        if self.number is not None:
            return f"Table {self.number}. {TITLES[self.number]}"
        one = self._place.task == "single"
        networks = "one network per category" if one else f"one network for all categories, {self._place.loss} loss"
        return f"Imported data set {self.name}: {METRICS[self.metric].title}, {networks}"

    @property
    def anchor(self) -> str:
        """Name of the table in a page."""
        parts = (self.name, self.metric, self._place.task, self._place.loss) if self.number is None else (self.number,)
        return "-".join(map(str, ("table", *parts)))

    @property
    def _place(self) -> Place:
        return next(line.place for block in self.blocks for line in block.lines)

    @property
    def is_one_data_set(self) -> bool:
        """Whether the lines are categories of one data set and their mean; otherwise each line is a data set."""
        return len({(line.place.dataset, line.place.loss) for block in self.blocks for line in block.lines}) == 1


@dataclass(frozen=True)
class Missing:
    """A network behind one of the paper's values for which the sweep has no value."""

    table: int
    place: Place
    backbone: str
    variant: str
    setting: str
    why: str
    """Status of its job, or `NOT_MEASURED`; empty if the sweep has no such job."""


@dataclass(frozen=True)
class Overall:
    """Comparison of location instability over the categories of all data sets."""

    backbone: str
    setting: str
    comparison: Comparison


@dataclass(frozen=True)
class Report:
    """The paper's tables with the values of one sweep, and those of imported data sets."""

    sweep: str
    caption: str
    """What our values are of: images, split, weights, networks."""
    caveats: tuple[str, ...]
    """Reasons why our values are not comparable with the published ones."""
    tables: tuple[ReportTable, ...]
    overall: tuple[Overall, ...]
    """One per network; empty unless at least two data sets have both variants."""
    missing: tuple[Missing, ...]
    given: tuple[TableCoverage, ...]
    """How many of the paper's values the sweep has, for each table that was asked for."""

    @property
    def title(self) -> str:
        """Heading of the report."""
        is_own = bool(self.tables) and all(table.number is None for table in self.tables)
        return f"{self.sweep}: results" if is_own else f"{self.sweep}: the paper's tables"
