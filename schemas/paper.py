"""What the paper printed: every value of its Tables 1-7, as data that ships with the package."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Literal

from schemas.base import Frozen
from schemas.categories import DatasetName
from schemas.job import BackboneName, LossKind, Variant

MetricName = Literal["part_interpretability", "location_instability", "accuracy_percent"]
Task = Literal["single", "multi"]

PRINTED_AS: dict[str, str] = {"alexnet_2012": "alexnet"}
"""Under which backbone the tables print a network of ours, where it is another: their AlexNet is the original one."""

FILE = Path(__file__).with_name("paper_tables.csv")

AVERAGE = "average"
"""In the place of a category: the mean over the data set's categories, one network each."""
ALL = "all"
"""In the place of a category: one network for all categories of the data set."""


class Published(Frozen):
    table: int
    metric: MetricName
    task: Task
    dataset: DatasetName
    loss: LossKind
    category: str
    """A category's name within its data set, `average` or `all`."""
    backbone: BackboneName
    variant: Variant
    value: float


@cache
def published_values() -> tuple[Published, ...]:
    """In the order of the tables, and within a table as printed."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return tuple(Published.model_validate(row) for row in rows)
