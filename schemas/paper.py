"""The published results: every value of the paper's Tables 1-7, as data that ships with the package."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Literal

from schemas.base import Frozen
from schemas.categories import DatasetName
from schemas.model_spec import BackboneName, Variant
from schemas.training_spec import LossKind

MetricName = Literal["part_interpretability", "location_instability", "accuracy_percent"]
"""Metrics of the tables."""
Task = Literal["single", "multi"]
"""Single-category or multi-category classification (Sec. 5.1)."""

PRINTED_AS: dict[str, str] = {"alexnet_2012": "alexnet"}
"""Our backbone -> name in the tables, where they differ: the paper's AlexNet is the original one."""

FILE = Path(__file__).with_name("paper_tables.csv")
"""Table of all published values, in long form."""

AVERAGE = "average"
"""Value of `Published.category` for the mean over single-category networks of a data set."""
ALL = "all"
"""Value of `Published.category` for one multi-category network of a data set."""


class Published(Frozen):
    """One value of one table."""

    table: int
    """Number of the table."""
    metric: MetricName
    """What was measured."""
    task: Task
    """Whether the network learned one category or several."""
    dataset: DatasetName
    """Data set of the images."""
    loss: LossKind
    """Task loss."""
    category: str
    """Name of a category within its data set, `average` or `all`."""
    backbone: BackboneName
    """Backbone as printed."""
    variant: Variant
    """Ordinary or interpretable."""
    value: float
    """The number as printed; accuracies are in percent."""


@cache
def published_values() -> tuple[Published, ...]:
    """Return all values in the order of the tables, and within a table in the printed order."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return tuple(Published.model_validate_strings(row) for row in rows)
