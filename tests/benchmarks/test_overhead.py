"""The benchmark of the overhead runs real jobs that do not compute."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import workers.job
from benchmarks import one_process, overhead
from benchmarks.metering import Cost, cost_of
from schemas.lifecycle import JobState


def test_a_job_that_does_not_compute_leaves_a_whole_run_in_a_store_of_finished_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.job._Job, "run", workers.job._Job.run)  # which the benchmark replaces
    store = one_process.preload(tmp_path, 3)
    (spec,) = store.begin("measured", "voc_part/dog", 1)
    store.run(spec, "measured")
    records = store.ledger.jobs()
    assert [record.state for record in records.values()] == [JobState.SUCCEEDED] * 4
    run_id = records[spec.key].run_id
    run = store.ledger.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_accuracy"] == 0.9
    assert run.data.params["model.backbone"] == "alexnet"
    listed = [store.ledger.client.list_artifacts(run_id, folder) for folder in ("tables", "checkpoint")]
    files = {file.path for some in listed for file in some}
    assert files == {"tables/filters.csv", "checkpoint/final.pt"}
    copies = [record for record in records.values() if record.key != spec.key]
    assert {len(store.ledger.client.get_run(copy.run_id).data.params) for copy in copies} == {len(run.data.params)}


def test_the_table_has_what_each_system_takes_relative_to_mlflow_alone() -> None:
    found = {"orch": Cost(60.0, 20.0, 40.0), overhead.TITLES["mlflow"]: Cost(30.0, 15.0, 0.0)}
    *_, orch, alone = overhead.table(found).splitlines()
    assert orch == "| orch | 60.0 | 60.0 | 20.0 | 40.0 | 2.00 | 4.00 |"
    assert alone.endswith("| 1.00 | 1.00 |")


def test_only_what_was_used_between_two_readings_counts() -> None:
    before, after = {os.getpid(): 1.0, 2: 5.0}, {os.getpid(): 3.0, 2: 6.0, 3: 1.0}
    assert cost_of(4.0, before, after, 2) == Cost(2000.0, 1000.0, 1000.0)


def test_the_driver_alone_runs_every_job(tmp_path: Path) -> None:
    driver = one_process.untracked_driver(tmp_path, 5)
    driver.run()
    assert driver.begun == 5
    assert {record.state for record in driver.ledger.jobs().values()} == {JobState.SUCCEEDED}  # type: ignore[attr-defined]
