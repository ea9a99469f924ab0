"""`orch fsck` on a real store: its findings, its repairs, and what it leaves to a driver that started meanwhile."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.execution.control import WALL
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.mlflow_ledger import MlflowLedger
from orchestrator.ledger.records import JobRecord, StoredPlan
from orchestrator.recovery import evidence
from orchestrator.recovery.evidence import inspect
from orchestrator.recovery.repairs import repair
from orchestrator.settings import Settings
from schemas.errors import StoreError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer, JobResult
from tests.support.doubles import metrics, plan_of
from workers.tracking import final_checkpoint
from workers.tracking.run_log import FILTERS_FILE, METRICS_FILE, SPEC_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tests.conftest import Store

S = JobState
NAMES = itertools.count(1)
WEIGHTS = b"final weights"
FORMER = f"{final_checkpoint.FOLDER}/{final_checkpoint.FORMER_NAME}"


class Bench:
    """A store with one sweep of two jobs."""

    def __init__(self, settings: Settings, client: MlflowClient, experiment: str) -> None:
        self.settings = settings
        self.client = client
        self.ledger = MlflowLedger(client, settings.store_uri, experiment)
        sweep = plan_of(
            "smoke", categories=("cat",), backbones=("alexnet",), sets={"weights.source": "random", "seed": next(NAMES)}
        )
        self.jobs: tuple[JobSpec, ...] = sweep.jobs
        plan = StoredPlan.of("s", "laptop", None, sweep.jobs, sweep.upstream_keys, sweep.resources)
        self.ledger.begin_sweep(plan, 1.0)
        self.ledger.conclude_sweep("s", "", {}, "KILLED")

    def run(self, number: int = 0) -> JobRecord:
        self.ledger.add(self.jobs[number], "s", 1.0)
        return self.ledger.move(self.jobs[number].key, S.RUNNING, 2.0)

    def finish(self, number: int = 0) -> JobRecord:
        """A job as earlier versions left it: results and checkpoint in its run, checkpoint on the disk too."""
        record = self.run(number)
        folder = self.settings.checkpoint_dir / record.key / "attempt-1"
        folder.mkdir(parents=True)
        path = folder / "epoch-0002.pt"
        path.write_bytes(WEIGHTS)
        self.client.log_text(record.run_id, "{}", SPEC_FILE)
        self.client.log_text(record.run_id, "{}", METRICS_FILE)
        self.client.log_text(record.run_id, "filter\n", FILTERS_FILE)
        self.client.log_text(record.run_id, WEIGHTS.decode(), FORMER)
        pointer = CheckpointPointer(path=str(path), epoch=2, sha256=hashlib.sha256(WEIGHTS).hexdigest())
        result = JobResult(
            job_key=record.key, attempt=1, stop_reason=StopReason.FINISHED, metrics=metrics(), checkpoint=pointer
        )
        return self.ledger.move(record.key, S.SUCCEEDED, 3.0, reason=StopReason.FINISHED, result=result)

    def checkpoint(self, number: int = 0) -> Path:
        return self.settings.checkpoint_dir / self.jobs[number].key / "attempt-1/epoch-0002.pt"

    def artifact(self, record: JobRecord, name: str) -> Path:
        return Path(str(self.client.get_run(record.run_id).info.artifact_uri)) / name

    def found(self) -> list[str]:
        return [f"{finding.rule}: {finding.what}" for finding in inspect(self.settings, self.ledger)]

    def repaired(self) -> list[str]:
        done = repair(self.settings, self.ledger, inspect(self.settings, self.ledger), WALL)
        return [one.done for one in done]


@pytest.fixture
def bench(tmp_path: Path, store: Store) -> Bench:
    """A separate experiment in the session's database, which counts as shared, like a server's."""
    name = f"fsck-{next(NAMES)}"
    store.client.create_experiment(name, artifact_location=str(tmp_path / "artifacts"))
    settings = Settings.model_validate({"home": tmp_path, "tracking_uri": store.uri})
    return Bench(settings, store.client, name)


def test_a_plan_of_another_version_hides_nothing_else(bench: Bench) -> None:
    known = bench.ledger.sweep("s")
    assert known is not None
    assert known.plan is not None
    jobs = tuple({**job, "gone_since": 1} for job in known.plan.jobs)
    bench.ledger.begin_sweep(known.plan.model_copy(update={"name": "old", "jobs": jobs}), 1.0)
    bench.ledger.begin_sweep(known.plan.model_copy(update={"name": "older", "jobs": jobs, "names": ()}), 1.0)
    for name in ("old", "older"):
        bench.ledger.conclude_sweep(name, "", {}, "KILLED")
    bench.finish()
    (found,) = bench.found()
    assert found.startswith("every plan can be read: Sweep older was planned by another version of orch")


def test_a_store_in_order_is_left_as_it_is(bench: Bench) -> None:
    bench.finish()
    assert bench.found() == []
    assert bench.repaired() == []


def test_a_final_checkpoint_needs_one_whole_file_in_its_run_or_on_the_disk(bench: Bench) -> None:
    record = bench.finish()
    bench.checkpoint().write_bytes(WEIGHTS[:-1] + b"!")
    assert bench.found() == []
    bench.checkpoint().unlink()
    assert bench.found() == []
    kept = bench.artifact(record, FORMER)
    kept.rename(kept.with_name(f"final-{hashlib.sha256(WEIGHTS).hexdigest()[:8]}.pt"))  # as it is called now
    assert bench.found() == []
    bench.checkpoint().write_bytes(WEIGHTS)
    next(kept.parent.glob("final-*")).write_bytes(b"torn")
    assert bench.found() == []


def test_a_final_checkpoint_behind_a_server_is_not_fetched_to_check_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.finish()
    bench.checkpoint().unlink()
    bench.artifact(record, FORMER).write_bytes(b"not looked at")
    monkeypatch.setattr(final_checkpoint, "folder_of", lambda uri: None)
    assert bench.found() == []
    bench.artifact(record, FORMER).unlink()
    assert bench.found() == ["a succeeded job has its results: the final checkpoint is missing: the job must run again"]


def test_a_home_that_cannot_be_looked_at_is_no_defect(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(13, "Permission denied")

    bench.finish()
    monkeypatch.setattr(evidence, "checkpoint_status", refused)
    with pytest.raises(StoreError, match=r"cannot be checked \(Permission denied\)"):
        bench.found()


def test_a_job_whose_checkpoint_is_nowhere_whole_runs_again(bench: Bench) -> None:
    record = bench.finish()
    bench.checkpoint().write_bytes(b"torn")
    bench.artifact(record, FORMER).write_bytes(b"torn too")
    what = "the final checkpoint is damaged: the job must run again"
    assert bench.found() == [f"a succeeded job has its results: {what}"]
    assert bench.repaired() == ["requeued"]
    after = bench.ledger.get(record.key)
    assert (after.state, after.stop_reason) == (S.REQUEUED, StopReason.RESULTS_LOST)
    assert bench.client.get_run(record.run_id).info.status == "SCHEDULED"


@pytest.mark.parametrize("name", [SPEC_FILE, METRICS_FILE, FILTERS_FILE])
def test_a_job_without_one_of_its_tables_runs_again(bench: Bench, name: str) -> None:
    bench.artifact(bench.finish(), name).write_bytes(b"")
    assert bench.found() == [f"a succeeded job has its results: missing: {name}"]
    assert bench.repaired() == ["requeued"]


def test_what_a_dead_driver_left_is_repaired_and_mlflow_shows_it(bench: Bench) -> None:
    record = bench.run()
    dead = Lease(host="elsewhere", pid=1, since=1.0, sign_at=1.0)
    bench.ledger.set_lease("s", dead)
    assert bench.found() == [
        "a running sweep has a driver: its driver died",
        "a running job has a driver: attempt 1 runs without a driver",
    ]
    assert bench.repaired() == ["lease removed", "requeued"]
    sweep = bench.ledger.sweep("s")
    assert sweep is not None
    assert (sweep.lease, bench.client.get_run(sweep.run_id).info.status) == (None, "KILLED")
    assert bench.ledger.get(record.key).stop_reason is StopReason.WORKER_LOST
    assert bench.found() == []


def test_a_status_that_was_never_written_is_set(bench: Bench) -> None:
    record = bench.finish()
    bench.client.update_run(record.run_id, status="RUNNING")
    assert bench.repaired() == ["MLflow status set"]
    assert bench.client.get_run(record.run_id).info.status == "FINISHED"


def test_a_job_that_finished_since_it_was_found_is_not_run_again(bench: Bench) -> None:
    bench.run()
    findings = inspect(bench.settings, bench.ledger)
    assert [finding.rule for finding in findings] == ["a running job has a driver"]
    bench.ledger.move(bench.jobs[0].key, S.SUCCEEDED, 9.0, reason=StopReason.FINISHED)
    assert [one.done for one in repair(bench.settings, bench.ledger, findings, WALL)] == [""]
    assert bench.ledger.get(bench.jobs[0].key).state is S.SUCCEEDED


def test_a_job_that_a_driver_took_in_hand_since_is_left_to_it(bench: Bench) -> None:
    bench.run()
    findings = inspect(bench.settings, bench.ledger)
    driver = Locks(bench.settings.lock_dir)
    assert driver.take_job(bench.jobs[0].key)
    assert [one.done for one in repair(bench.settings, bench.ledger, findings, WALL)] == [""]
    driver.release_all()
    now = WALL.now()
    bench.ledger.set_lease("s", Lease(host="another machine", pid=1, since=now, sign_at=now))
    assert [one.done for one in repair(bench.settings, bench.ledger, findings, WALL)] == [""]
    assert bench.ledger.get(bench.jobs[0].key).state is S.RUNNING


def test_a_claim_that_was_made_anew_since_is_not_lifted(bench: Bench) -> None:
    dead = Lease(host="elsewhere", pid=1, since=1.0, sign_at=1.0)
    bench.ledger.set_lease("s", dead)
    findings = inspect(bench.settings, bench.ledger)
    now = WALL.now()
    anew = dead.model_copy(update={"since": now, "sign_at": now})
    bench.ledger.set_lease("s", anew)
    assert [one.done for one in repair(bench.settings, bench.ledger, findings, WALL)] == [""]
    sweep = bench.ledger.sweep("s")
    assert sweep is not None
    assert sweep.lease == anew


def test_half_written_files_go_and_sets_of_images_in_the_making_stay(bench: Bench) -> None:
    record = bench.finish()
    torn = bench.settings.checkpoint_dir / record.key / "attempt-1/.epoch-0003.pt.17.partial"
    torn.write_bytes(b"x")
    bench.artifact(record, FORMER).with_name(".final-1.pt.17.partial").write_bytes(b"x")
    (bench.settings.checkpoint_dir / ".fetched-1").mkdir()
    going_on = bench.settings.cache_dir / "image-sets" / ".cat-r5.partial"
    going_on.mkdir(parents=True)
    assert bench.repaired() == ["deleted"] * 3
    assert (torn.exists(), going_on.exists(), bench.found()) == (False, True, [])


def test_a_second_run_of_a_job_is_reported(bench: Bench) -> None:
    record = bench.finish()
    run = bench.client.get_run(record.run_id)
    bench.client.create_run(run.info.experiment_id, tags=dict(run.data.tags), start_time=run.info.start_time + 1)
    assert bench.found() == [f"one run per job: {record.title} has 2 runs; this one is a duplicate"]
    assert bench.repaired() == [""]


def test_a_disk_that_cannot_be_written_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    record = bench.finish()
    (bench.settings.checkpoint_dir / record.key / "attempt-1/.epoch-0003.pt.17.partial").write_bytes(b"x")
    findings = inspect(bench.settings, bench.ledger)
    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(StoreError, match=r"Read-only file system.*Free disk space"):
        repair(bench.settings, bench.ledger, findings, WALL)
