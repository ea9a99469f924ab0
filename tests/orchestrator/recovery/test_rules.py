"""The rules of `orch fsck`, one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger.base import RUN_STATUS
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.records import JobRecord, JobRun, StoredPlan, SweepEntry, SweepRecord
from orchestrator.recovery.rules import CheckpointStatus, Evidence, Leftover, Repair, check, known_keys
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer
from tests.support.doubles import metrics, plan_of, record_of

S = JobState
SWEEP = plan_of("smoke", categories=("cat",), backbones=("alexnet",))
UP, ORDINARY, INTERPRETABLE = SWEEP.jobs
PLAN = StoredPlan.of("s", "laptop", None, SWEEP.jobs, SWEEP.upstream_keys, SWEEP.resources)
LEASE = Lease(host="h", pid=1, since=0.0, sign_at=0.0)


def done(number: int = 0) -> JobRecord:
    record = record_of(SWEEP.jobs[number], S.SUCCEEDED, StopReason.FINISHED)
    assert record.result is not None
    pointer = CheckpointPointer(path="/c.pt", epoch=1, sha256="0")
    result = record.result.model_copy(update={"metrics": metrics(), "checkpoint": pointer})
    return replace(record, result=result)


def run_of(record: JobRecord, **more: Any) -> JobRun:
    return JobRun(record.run_id, record.key, record.title, RUN_STATUS[record.state], record, **more)


def sweep(lease: Lease | None = None, status: str = "FINISHED", problem: str = "") -> SweepEntry:
    return SweepEntry(SweepRecord("s", "r", 0.0, lambda: None if problem else PLAN, lease), status, problem)


def evidence(*runs: JobRun, **more: Any) -> Evidence:
    """Evidence of a store without findings, except for the fields given."""
    succeeded = [run.run_id for run in runs if run.record and run.record.state is S.SUCCEEDED]
    fields: dict[str, Any] = {
        "runs": runs,
        "sweeps": (sweep(),),
        "missing": dict.fromkeys(succeeded, ()),
        "checkpoints": dict.fromkeys(succeeded, CheckpointStatus.INTACT),
        "folders": {run.key: Path("/checkpoints") / run.key for run in runs},
        "partial": (),
    }
    return Evidence(**(fields | more))


def found(of: Evidence, alive: bool = False) -> list[tuple[str, Repair]]:
    return [(finding.rule, finding.repair) for finding in check(of, lambda name: alive)]


def test_a_store_in_order_has_nothing_to_say() -> None:
    failed = record_of(ORDINARY, S.FAILED, StopReason.BAD_DATA)
    assert found(evidence(run_of(done()), run_of(failed), run_of(record_of(INTERPRETABLE, S.REQUEUED)))) == []


@pytest.mark.parametrize(
    ("checkpoint", "repair"),
    [
        (CheckpointStatus.DAMAGED, Repair.REQUEUE),
        (CheckpointStatus.MISSING, Repair.REQUEUE),
        (CheckpointStatus.INTACT, None),
    ],
)
def test_a_job_without_its_final_checkpoint_runs_again(checkpoint: CheckpointStatus, repair: Repair | None) -> None:
    run = run_of(done())
    seen = evidence(run, checkpoints={run.run_id: checkpoint})
    assert found(seen) == ([("a succeeded job has its results", repair)] if repair else [])


def test_results_that_are_missing_are_named() -> None:
    run = run_of(done())
    (finding,) = check(evidence(run, missing={run.run_id: ("metrics.json",)}), lambda name: False)
    assert (finding.what, finding.repair) == ("missing: metrics.json", Repair.REQUEUE)
    bare = run_of(record_of(UP, S.SUCCEEDED))
    (finding,) = check(evidence(bare), lambda name: False)
    assert finding.what == "missing: metrics, path of the checkpoint"


def test_a_running_job_needs_a_driver() -> None:
    running = run_of(record_of(UP, S.RUNNING))
    assert found(evidence(running)) == [("a running job has a driver", Repair.REQUEUE)]
    assert found(evidence(running), alive=True) == []


def test_mlflow_must_say_what_the_job_is() -> None:
    torn = replace(run_of(done()), status="RUNNING")
    assert found(evidence(torn)) == [("MLflow's status is the job's state", Repair.STATUS)]
    waiting = replace(run_of(record_of(UP, S.REQUEUED)), status="RUNNING")
    assert found(evidence(waiting), alive=True) == []  # in the middle of a move


@pytest.mark.parametrize(("lease", "status"), [(LEASE, "KILLED"), (None, "RUNNING")])
def test_an_open_sweep_needs_a_driver(lease: Lease | None, status: str) -> None:
    assert found(evidence(sweeps=(sweep(lease, status),))) == [("a running sweep has a driver", Repair.LIFT)]
    assert found(evidence(sweeps=(sweep(lease, status),)), alive=True) == []


def test_the_younger_of_two_runs_of_a_job_is_the_one_too_many() -> None:
    first = run_of(done())
    second = replace(first, run_id="younger")
    (finding,) = check(evidence(first, second), lambda name: False)
    assert (finding.rule, finding.where, finding.repair) == ("one run per job", "run younger", Repair.NOTHING)


def test_what_cannot_be_read_is_said_and_left() -> None:
    foreign = JobRun("r9", "k", "t", "RUNNING", None, "Run r9 was not written by this version of orch.")
    damaged = sweep(problem="The plan of sweep s is gone.")
    assert found(evidence(foreign, sweeps=(damaged,), folders={})) == [
        ("every run can be read", Repair.NOTHING),
        ("every plan can be read", Repair.NOTHING),
    ]


def test_a_folder_of_checkpoints_belongs_to_a_job_that_was_begun_or_is_planned() -> None:
    folders = {ORDINARY.key: Path("/c/planned"), "0123": Path("/c/0123")}
    (finding,) = check(evidence(folders=folders), lambda name: False)
    assert (finding.where, finding.repair) == ("/c/0123", Repair.NOTHING)
    assert "orch gc" in finding.advice
    assert known_keys([run_of(done())], [sweep()]) == {job.key for job in SWEEP.jobs}


def test_half_written_files_are_waste_once_nobody_can_be_writing_them() -> None:
    run = run_of(record_of(UP, S.REQUEUED))
    partial = (Leftover(Path("/c/x.partial"), UP.key), Leftover(Path("/mlflow.partial")))
    seen = evidence(run, partial=partial, sweeps=(sweep(),))
    assert found(seen) == [("no file is partial", Repair.DELETE)] * 2
    assert found(seen, alive=True) == []


def test_where_no_succeeded_job_has_a_file_none_runs_again() -> None:
    """That is what a disk that is not mounted looks like."""
    runs = [run_of(done(number)) for number in (1, 2)]
    ids = [run.run_id for run in runs]
    all_gone = dict.fromkeys(ids, ("metrics.json",))
    rule = "a succeeded job has its results"
    assert found(evidence(*runs, missing=all_gone, bare=frozenset(ids))) == [(rule, Repair.NOTHING)] * 2
    assert found(evidence(*runs, missing=all_gone, bare=frozenset(ids[:1]))) == [(rule, Repair.REQUEUE)] * 2
