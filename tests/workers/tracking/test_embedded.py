"""Runs that are read with SQLite alone are those that MLflow returns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from workers.tracking.embedded import EmbeddedRuns

if TYPE_CHECKING:
    from tests.conftest import Store


def test_a_run_has_the_tags_and_the_state_that_mlflow_gives_it(store: Store, new_run: Callable[[], str]) -> None:
    run_id, reader = new_run(), EmbeddedRuns(store.uri)
    reader.run(run_id)  # before the changes, so that no connection keeps an earlier view
    store.client.set_tag(run_id, "orch.state", "running")
    store.client.update_run(run_id, status="SCHEDULED")
    expected, found = store.client.get_run(run_id), reader.run(run_id)
    assert found is not None
    assert found.data.tags == reader.tags(run_id) == expected.data.tags
    assert dict(found.info) == dict(expected.info)


def test_runs_are_found_by_a_tag_oldest_first_with_deleted_ones(store: Store) -> None:
    client, reader = store.client, EmbeddedRuns(store.uri)
    runs = [
        client.create_run(store.experiment_id, start_time=start, tags={"orch.test_tag": "a"}).info.run_id
        for start in (3, 1, 2)
    ]
    other = client.create_experiment(f"other of {runs[0]}")
    client.create_run(other, tags={"orch.test_tag": "a"})
    client.create_run(store.experiment_id, tags={"orch.test_tag": "b"})
    client.delete_run(runs[2])
    found = reader.having("orch.test_tag", "a", store.experiment_id)
    assert found is not None
    assert [(run.info.run_id, run.info.lifecycle_stage) for run in found] == [
        (runs[1], "active"), (runs[2], "deleted"), (runs[0], "active")
    ]  # fmt: skip
    assert reader.having("orch.test_tag", "c", store.experiment_id) == []


def test_mlflow_is_left_to_say_that_a_run_is_unknown(store: Store) -> None:
    reader = EmbeddedRuns(store.uri)
    assert reader.run("0" * 32) is None
    assert reader.tags("0" * 32) is None


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "sqlite:///relative.db", "sqlite:////absent/mlflow.db"])
def test_mlflow_is_left_to_read_every_other_store(uri: str) -> None:
    assert EmbeddedRuns(uri).run("0" * 32) is None
    assert EmbeddedRuns(uri).having("orch.job_key", "0", "1") is None
    EmbeddedRuns(uri).flush()  # of what there is not


def test_mlflow_is_left_to_say_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database")
    assert EmbeddedRuns(f"sqlite:///{tmp_path / 'mlflow.db'}").tags("0" * 32) is None
