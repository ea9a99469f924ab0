"""Reads what a run has already, so that an attempt logs only what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.tracking.embedded import EmbeddedRuns

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Logged:
    """What a run has at one moment."""

    tags: Mapping[str, str]
    params: frozenset[str]
    """Names of the parameters."""
    metrics: Mapping[str, float]
    """Last values of the metrics."""
    last_step: int
    """Largest step of the curve that was asked for; 0 if it has no points."""
    has_data_set: bool
    start_time: int
    """When the run was created, in Unix milliseconds."""
    artifact_uri: str


def read_logged(client: MlflowClient, embedded: EmbeddedRuns, run_id: str, curve: str) -> Logged:
    """Return what a run has: from the embedded store with SQLite alone, from any other store through MLflow.

    Args:
        client: a client of the store.
        embedded: a reader of the same store.
        run_id: ID of the run.
        curve: the metric whose last step is wanted.

    Raises:
        MlflowException: there is no such run, or the store does not answer; further `store_errors` likewise.
    """
    return _read_embedded(embedded, run_id, curve) or _ask(client, run_id, curve)


def _read_embedded(embedded: EmbeddedRuns, run_id: str, curve: str) -> Logged | None:
    run = embedded.run(run_id)
    params = embedded.rows("SELECT key FROM params WHERE run_uuid = ?", run_id)
    metrics = embedded.rows("SELECT key, value, is_nan FROM latest_metrics WHERE run_uuid = ?", run_id)
    steps = embedded.rows("SELECT max(step) FROM metrics WHERE run_uuid = ? AND key = ?", run_id, curve)
    inputs = embedded.rows(
        "SELECT 1 FROM inputs WHERE destination_type = 'RUN' AND destination_id = ? AND source_type = 'DATASET'", run_id
    )
    if run is None or params is None or metrics is None or steps is None or inputs is None:
        return None
    return Logged(
        tags=run.data.tags,
        params=frozenset(name for (name,) in params),
        metrics={name: math.nan if is_nan else value for name, value, is_nan in metrics},
        last_step=steps[0][0] or 0,
        has_data_set=bool(inputs),
        start_time=run.info.start_time,
        artifact_uri=run.info.artifact_uri,
    )


def _ask(client: MlflowClient, run_id: str, curve: str) -> Logged:
    run = client.get_run(run_id)
    history = client.get_metric_history(run_id, curve) if curve in run.data.metrics else []
    return Logged(
        tags=run.data.tags,
        params=frozenset(run.data.params),
        metrics=run.data.metrics,
        last_step=max((point.step for point in history), default=0),
        has_data_set=bool(run.inputs and run.inputs.dataset_inputs),
        start_time=run.info.start_time,
        artifact_uri=run.info.artifact_uri,
    )
