"""Logging to a real store: under fixed names, and twice is the same as once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from schemas.errors import StoreError
from schemas.job import FileWeights
from schemas.results import JobMetrics
from tests.support.toy import toy_spec
from workers.tracking.curves import CURVES
from workers.tracking.run_log import RunLog, flatten
from workers.training.records import EpochRecord

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from tests.conftest import Store


def records(epochs: int) -> list[EpochRecord]:
    return [
        EpochRecord(epoch, 0.5, 3.0, 1 / epoch, 2.0, 0.9, 0.95, 0.01, 1.0, 3.2, 0.05, 0.6)
        for epoch in range(1, epochs + 1)
    ]


def test_an_epoch_is_logged_once_however_often_it_is_told(store: Store, new_run: Callable[[], str]) -> None:
    run_id = new_run()
    log = RunLog(store.uri, run_id)
    log.log_epochs(records(1))
    log.log_epochs(records(2))
    RunLog(store.uri, run_id).log_epochs(records(3))  # the job resumed on another worker
    for curve in CURVES.values():
        assert [point.step for point in store.client.get_metric_history(run_id, curve)] == [1, 2, 3]
    weights = [point.value for point in store.client.get_metric_history(run_id, "train/lambda")]
    assert weights == pytest.approx([1, 1 / 2, 1 / 3])


def test_more_epochs_than_one_request_takes_are_sent_whole(
    store: Store, new_run: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long outage, the split into requests must not fall within an epoch."""
    run_id, sent = new_run(), []
    log = RunLog(store.uri, run_id)
    log_batch = log._client.log_batch

    def send(run: str, metrics: list[Metric]) -> None:
        assert len(metrics) <= 1000
        sent.append({point.step for point in metrics})
        log_batch(run, metrics=metrics)

    monkeypatch.setattr(log._client, "log_batch", send)
    log.log_epochs(records(200))
    assert len(sent) == 3
    assert not sent[0] & sent[1]
    assert [point.step for point in store.client.get_metric_history(run_id, "train/lambda")] == list(range(1, 201))


def test_the_spec_becomes_parameters_and_may_be_logged_again(store: Store, new_run: Callable[[], str]) -> None:
    run_id = new_run()
    spec = toy_spec("ordinary", weights=FileWeights(path="/one/vgg.pth", sha256="ab" * 32))
    moved = spec.model_copy(update={"weights": FileWeights(path="/two/vgg.pth", sha256="ab" * 32)})
    RunLog(store.uri, run_id).log_spec(spec)
    RunLog(store.uri, run_id).log_spec(moved)
    params = store.client.get_run(run_id).data.params
    assert params["model.backbone"] == "alexnet"
    assert params["data.categories"] == "voc_part/cat"
    assert params["train.freeze_below"] == "None"
    assert params["weights.path"] == "/one/vgg.pth"


def test_a_run_says_on_what_it_was_computed_and_from_which_data(
    store: Store, new_run: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, other_id = new_run(), new_run()
    RunLog(store.uri, run_id).log_spec(toy_spec())
    monkeypatch.setattr("workers.tracking.run_log.surroundings", lambda: {"device": "another one"})
    RunLog(store.uri, run_id).log_spec(toy_spec())  # another attempt, elsewhere
    RunLog(store.uri, other_id).log_spec(toy_spec(data__test_per_category=7))
    run = store.client.get_run(run_id)
    assert run.data.tags["device"] == "another one"
    assert run.data.tags["version.torch"] == version("torch")
    (data,) = (one.dataset for one in run.inputs.dataset_inputs)
    assert (data.name, json.loads(data.profile)["test_per_category"]) == ("generated voc-cat", 6)
    (other,) = (one.dataset for one in store.client.get_run(other_id).inputs.dataset_inputs)
    assert other.digest != data.digest


@pytest.mark.parametrize(("refusals", "shown"), [(1, 1), (2, 0)])
def test_a_data_set_that_another_job_adds_at_the_same_time_fails_no_job(
    store: Store, new_run: Callable[[], str], monkeypatch: pytest.MonkeyPatch, refusals: int, shown: int
) -> None:
    log_inputs, left = MlflowClient.log_inputs, [MlflowException("UNIQUE constraint failed", BAD_REQUEST)] * refusals

    def refuse(client: MlflowClient, *arguments: Any) -> None:
        if left:
            raise left.pop()
        log_inputs(client, *arguments)

    monkeypatch.setattr(MlflowClient, "log_inputs", refuse)
    run_id = new_run()
    RunLog(store.uri, run_id).log_spec(toy_spec())
    assert len(store.client.get_run(run_id).inputs.dataset_inputs) == shown


def test_the_outcome_is_summary_metrics_and_files_at_fixed_paths(
    store: Store, new_run: Callable[[], str], tmp_path: Path
) -> None:
    run_id = new_run()
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "filters.csv").write_text("filter\n0\n")
    metrics = JobMetrics(
        test_accuracy=0.9,
        train_accuracy=1.0,
        peak_spread=0.2,
        landmark_instability={"head": 0.1},
        part_interpretability=0.4,
        part_association={"tail": 0.3},
    )
    for _ in range(2):
        RunLog(store.uri, run_id).log_outcome((), metrics, tmp_path)
    run = store.client.get_run(run_id)
    assert run.data.metrics["test_accuracy"] == 0.9
    assert len(store.client.get_metric_history(run_id, "test_accuracy")) == 1
    assert run.data.metrics["peak_spread"] == 0.2
    assert run.data.metrics["location_instability.head"] == 0.1
    assert run.data.metrics["part_interpretability"] == 0.4
    assert run.data.metrics["part_association.tail"] == 0.3
    assert "location_instability" not in run.data.metrics  # not measured, which is not 0
    assert [item.path for item in store.client.list_artifacts(run_id, "tables")] == ["tables/filters.csv"]


def test_the_last_epoch_and_the_outcome_are_one_request_and_nothing_is_logged_again(
    store: Store, new_run: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, sent = new_run(), []
    log_batch = MlflowClient.log_batch

    def send(client: MlflowClient, run: str, **points: Any) -> None:
        sent.append({point.key for point in points["metrics"]})
        log_batch(client, run, **points)

    log, outcome = RunLog(store.uri, run_id), JobMetrics(test_accuracy=0.9, train_accuracy=1.0)
    log.log_epochs(records(2))
    monkeypatch.setattr(MlflowClient, "log_batch", send)
    for _ in range(2):
        log.log_outcome(records(3), outcome, tmp_path)
    RunLog(store.uri, run_id).log_outcome(records(3), outcome, tmp_path)  # a later attempt
    (request,) = sent
    assert request > {*CURVES.values(), "test_accuracy"}
    assert [point.step for point in store.client.get_metric_history(run_id, "train/lambda")] == [1, 2, 3]
    assert [point.step for point in store.client.get_metric_history(run_id, "test_accuracy")] == [3]


def test_the_outcome_is_on_the_disk_when_it_is_logged(
    store: Store, new_run: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave a job whose end is known and whose metrics are gone."""
    done: list[str] = []
    log, fsync, log_batch = RunLog(store.uri, new_run()), os.fsync, MlflowClient.log_batch

    def flush(number: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        fsync(number)

    def send(*arguments: Any, **points: Any) -> None:
        log_batch(*arguments, **points)
        done.append("logged")

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(MlflowClient, "log_batch", send)
    log.log_outcome(records(1), JobMetrics(test_accuracy=0.9, train_accuracy=1.0), tmp_path)
    assert done == ["logged", "mlflow.db-wal"]


def test_the_runs_state_is_left_to_the_driver(store: Store, new_run: Callable[[], str], tmp_path: Path) -> None:
    run_id = new_run()
    before = store.client.get_run(run_id)
    log = RunLog(store.uri, run_id)
    log.log_spec(toy_spec())
    log.log_epochs(records(1))
    log.log_outcome((), JobMetrics(test_accuracy=0.9, train_accuracy=1.0), tmp_path)
    after = store.client.get_run(run_id)
    assert (after.info.status, after.info.end_time) == (before.info.status, before.info.end_time)
    assert {name for name in after.data.tags if name.startswith("orch.")} == set()


def test_a_store_that_does_not_answer_is_a_store_error_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match=r"http://me:\*\*\*@127.0.0.1:9 cannot be used .*`orch resume`"):
        RunLog("http://me:secret@127.0.0.1:9", "run")


def test_an_unknown_run_is_no_store_error(store: Store) -> None:
    with pytest.raises(Exception, match="not found") as caught:
        RunLog(store.uri, "0" * 32)
    assert not isinstance(caught.value, StoreError)


def test_flattening_names_fields_by_their_path() -> None:
    nested = {
        "train": {"epochs": 5, "horizontal_flip": True},
        "data": {"categories": ["a", "b"]},
        "seed": 0,
        "loss": None,
    }
    assert flatten(nested) == {
        "train.epochs": "5",
        "train.horizontal_flip": "True",
        "data.categories": "a, b",
        "seed": "0",
        "loss": "None",
    }
