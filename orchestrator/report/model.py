"""What a report holds: the places of the paper's tables, and for each ours beside the published value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.report.significance import Comparison, Pair
from orchestrator.report.summary import VARIANTS
from schemas.categories import DatasetName
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
"""Why a cell is missing although its job is done."""


@dataclass(frozen=True)
class Metric:
    title: str
    of: Callable[[JobMetrics], float | None]
    digits: int
    lower_is_better: bool
    change_is_relative: bool = True
    left_out: Callable[[JobMetrics], int] | None = None
    """Filters without a value; None where nothing of single filters is measured."""


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
    """Where in the paper's tables a number stands, backbone and variant apart."""

    task: str
    dataset: DatasetName
    loss: str
    category: str


@dataclass(frozen=True)
class TableEntry:
    ours: float | None = None
    published: float | None = None
    jobs: int = 0
    covered: int = 0
    """Categories in ours, of `total` in the published value."""
    total: int = 1
    comparable: bool = True
    """Both are of the same categories."""
    filters: int = 0
    left_out: int = 0
    images: tuple[str, ...] = ()
    """Of which split ours are, in words."""

    @property
    def difference(self) -> float | None:
        if self.ours is None or self.published is None or not self.comparable:
            return None
        return self.ours - self.published


@dataclass(frozen=True)
class Line:
    place: Place
    entries: Mapping[str, TableEntry]
    change_is_relative: bool

    @property
    def has_ours(self) -> bool:
        return any(entry.ours is not None for entry in self.entries.values())

    @property
    def covered(self) -> int:
        return min((entry.covered for entry in self.entries.values() if entry.ours is not None), default=0)

    @property
    def total(self) -> int:
        return max(entry.total for entry in self.entries.values())

    @property
    def change(self) -> float | None:
        return self._change([self.entries[variant].ours for variant in VARIANTS])

    @property
    def published_change(self) -> float | None:
        return self._change([self.entries[variant].published for variant in VARIANTS])

    def _change(self, values: Sequence[float | None]) -> float | None:
        ordinary, interpretable = values
        if not ordinary or interpretable is None:
            return None
        return interpretable / ordinary - 1 if self.change_is_relative else interpretable - ordinary


@dataclass(frozen=True)
class Block:
    """The lines of one backbone under one setting of the sweep's own axes."""

    backbone: str
    setting: str
    lines: tuple[Line, ...]
    comparison: Comparison | None = None

    @property
    def has_ours(self) -> bool:
        return any(line.has_ours for line in self.lines)

    @property
    def shown(self) -> tuple[Line, ...]:
        """A network of which nothing is ours needs no line per category."""
        averages = tuple(line for line in self.lines if line.place.category == AVERAGE)
        return averages if not self.has_ours and len(averages) == 1 else self.lines

    def pairs(self) -> list[Pair]:
        """Categories that have both variants."""
        values = [
            [line.entries[variant].ours for variant in VARIANTS]
            for line in self.lines
            if line.place.category not in (AVERAGE, ALL)
        ]
        return [(a, b) for a, b in values if a and b is not None]


@dataclass(frozen=True)
class ReportTable:
    number: int
    metric: MetricName
    blocks: tuple[Block, ...]

    @property
    def title(self) -> str:
        return f"Table {self.number}. {TITLES[self.number]}"

    @property
    def is_one_data_set(self) -> bool:
        """Its lines are the categories of one data set and their mean; else each line is a data set of its own."""
        return len({(line.place.dataset, line.place.loss) for block in self.blocks for line in block.lines}) == 1


@dataclass(frozen=True)
class Missing:
    """A cell that the paper has and the sweep has not."""

    table: int
    place: Place
    backbone: str
    variant: str
    setting: str
    why: str
    """Empty where the sweep has no such job."""


@dataclass(frozen=True)
class Overall:
    """Location instability over the categories of all data sets."""

    backbone: str
    setting: str
    comparison: Comparison


@dataclass(frozen=True)
class Report:
    sweep: str
    caption: str
    reservations: tuple[str, ...]
    """Why ours cannot, or not simply, be held against the published numbers."""
    tables: tuple[ReportTable, ...]
    overall: tuple[Overall, ...]
    missing: tuple[Missing, ...]
