"""The curves of a job's training: one metric for each number that an epoch has."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from workers.training.records import EpochRecord

CURVES: Mapping[str, str] = {
    "task_loss": "train/task_loss",
    "filter_loss": "train/filter_loss",
    "lambda_": "train/lambda",
    "mean_peak": "train/mean_peak",
    "train_accuracy": "train/accuracy",
    "validation_accuracy": "validation/accuracy",
    "mutual_information": "filters/mutual_information",
    "category_entropy": "filters/category_entropy",
    "spatial_entropy": "filters/spatial_entropy",
    "learning_rate": "train/learning_rate",
    "seconds": "train/seconds",
}
"""Metric name by field of EpochRecord; MLflow groups charts by the part before the slash."""

LAST_CURVE = "train/task_loss"
"""The metric that shows which epochs the store has."""

EPOCHS_AT_ONCE = 1000 // len(CURVES)
"""Epochs per request: MLflow splits more than 1000 points into several requests, which could log half an epoch."""


def points_of(records: Iterable[EpochRecord]) -> list[Metric]:
    """Return the points of some epochs, one epoch after the other."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [
        Metric(curve, getattr(record, field), now, record.epoch)
        for record in records
        for field, curve in CURVES.items()
    ]
