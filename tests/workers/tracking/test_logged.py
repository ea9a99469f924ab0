"""What a run has already is the same whether SQLite or MLflow says it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.support.toy import toy_spec
from workers.tracking.embedded import EmbeddedRuns
from workers.tracking.logged import read_logged
from workers.tracking.run_facts import dataset_input

if TYPE_CHECKING:
    from tests.conftest import Store

NO_CLIENT = cast(MlflowClient, None)
SERVER = EmbeddedRuns("http://127.0.0.1:1")
CURVE = "train/task_loss"


def test_a_run_with_everything_is_read_as_mlflow_reads_it(store: Store, new_run: Callable[[], str]) -> None:
    run_id, other_id, embedded = new_run(), new_run(), EmbeddedRuns(store.uri)
    for step in (3, 12, 7):
        store.client.log_metric(run_id, CURVE, 1 / step, step=step)
    store.client.log_metric(run_id, "another", math.inf, step=20)
    store.client.log_param(run_id, "seed", 1)
    store.client.set_tag(run_id, "orch.attempt", "2")
    store.client.log_inputs(run_id, [dataset_input(toy_spec())])
    found, expected = (read_logged(one, where, run_id, CURVE) for one, where in both(store, embedded))
    assert found == expected
    assert (found.params, found.last_step, found.has_data_set) == ({"seed"}, 12, True)
    assert read_logged(NO_CLIENT, embedded, other_id, CURVE).metrics == {}  # what another run has is not this one's
    assert not read_logged(NO_CLIENT, embedded, other_id, CURVE).has_data_set


def test_a_metric_that_is_no_number_is_none_either_way(store: Store, new_run: Callable[[], str]) -> None:
    run_id = new_run()
    store.client.log_metric(run_id, "odd", math.nan)
    found, expected = (read_logged(one, where, run_id, CURVE) for one, where in both(store, EmbeddedRuns(store.uri)))
    assert math.isnan(found.metrics["odd"])
    assert math.isnan(expected.metrics["odd"])
    assert replace(found, metrics={}) == replace(expected, metrics={})
    assert found.last_step == 0


def test_mlflow_is_left_to_say_that_a_run_is_unknown(store: Store) -> None:
    with pytest.raises(MlflowException, match="not found"):
        read_logged(store.client, EmbeddedRuns(store.uri), "0" * 32, CURVE)


def both(store: Store, embedded: EmbeddedRuns) -> tuple[tuple[MlflowClient, EmbeddedRuns], ...]:
    return (NO_CLIENT, embedded), (store.client, SERVER)
