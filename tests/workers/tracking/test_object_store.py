"""Runs with artifacts in an object store: jobs train through an outage, and no artifact is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from schemas.errors import StoreUnreachable
from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkOrder
from schemas.results import JobMetrics
from tests.support.object_store import BUCKET, ObjectStore
from tests.support.toy import toy_spec
from workers.checkpoints.loading import find_checkpoint, load_checkpoint
from workers.job import run_job
from workers.tracking.run_log import RunLog

if TYPE_CHECKING:
    from tests.conftest import Store

METRICS = JobMetrics(test_accuracy=0.9, train_accuracy=1.0)


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    made = ObjectStore()
    for name, value in {**made.environment, "AWS_MAX_ATTEMPTS": "2"}.items():
        monkeypatch.setenv(name, value)
    yield made
    made.stop()


@pytest.fixture
def run_id(store: Store, objects: ObjectStore) -> str:
    """Return the order for a run whose artifacts go to the object store directly."""
    name = uuid4().hex
    experiment = store.client.create_experiment(name, artifact_location=f"s3://{BUCKET}/{name}")
    return str(store.client.create_run(experiment).info.run_id)


def test_a_file_that_cannot_be_left_is_an_outage_and_is_left_later(
    store: Store, objects: ObjectStore, run_id: str, tmp_path: Path
) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    log = RunLog(store.uri, run_id, 1)
    objects.stop()
    with pytest.raises(StoreUnreachable, match=r"cannot be used .*`orch resume`"):
        log.log_outcome((), METRICS, tmp_path)
    objects.start()
    log.log_outcome((), METRICS, tmp_path)
    assert [file.path for file in store.client.list_artifacts(run_id)] == ["metrics.json"]


@pytest.mark.slow
def test_a_job_trains_to_its_end_without_the_object_store_and_leaves_everything_when_it_is_back(
    store: Store, objects: ObjectStore, run_id: str, tmp_path: Path
) -> None:
    words: list[str] = []

    def come_back(progress: Progress) -> None:
        if progress.phase == "logging" and words.count("logging") == 1:
            objects.start()  # at the second report the first try has failed
        words.append(progress.phase)

    objects.stop()
    order = WorkOrder(
        spec=toy_spec("ordinary"), run_id=run_id, attempt=1, tracking_uri=store.uri, cache_dir=str(tmp_path / "cache"),
        checkpoint_dir=str(tmp_path / "checkpoints"), store_patience=60.0,
    )  # fmt: skip
    result = run_job(order, come_back, lambda: False)
    assert (result.stop_reason, result.failure) == (StopReason.FINISHED, None)
    steps = [point.step for point in store.client.get_metric_history(run_id, "train/task_loss")]
    assert steps == [1, 2, 3, 4]
    assert {file.path for file in store.client.list_artifacts(run_id)} == {
        "spec.json", "metrics.json", "tables", "figures", "checkpoint", "results",
    }  # fmt: skip
    final, checkpoints = result.checkpoint, tmp_path / "checkpoints"
    assert final is not None
    assert list(checkpoints.rglob("*.pt")) == []  # stored once: the worker has compared the object and deleted its own
    (kept,) = store.client.list_artifacts(run_id, "checkpoint")
    assert final.path == f"{store.client.get_run(run_id).info.artifact_uri}/{kept.path}"
    found = find_checkpoint(final, checkpoints, order.spec.key, RunLog(store.uri, run_id).fetch_checkpoint)
    assert "network" in load_checkpoint(found, order.spec.key)
    assert list(checkpoints.rglob("*.pt")) == [Path(found.path)]
