"""A plan compared with the ledger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.ledger.job_moves import first_record
from orchestrator.ledger.records import JobName, JobRecord, StoredPlan, standings_of
from orchestrator.planning import diff
from orchestrator.planning.diff import PlanStatus, check_same_sweep, compare
from schemas.errors import SpecError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import Failure, JobResult
from tests.support.doubles import Plan, metrics, plan_of


def record(spec: JobSpec, state: JobState, reason: StopReason | None = None) -> JobRecord:
    result = JobResult(
        job_key=spec.key,
        attempt=1,
        stop_reason=reason or StopReason.FINISHED,
        metrics=metrics() if state is JobState.SUCCEEDED else None,
        failure=Failure(kind="Diverged", message="loss is nan") if state is JobState.FAILED else None,
    )
    return replace(first_record(spec, "earlier", 0.0, "r"), state=state, attempt=1, stop_reason=reason, result=result)


def statuses(specs: tuple[JobSpec, ...], *records: JobRecord, alive: bool = False) -> list[PlanStatus]:
    """The statuses that `compare` finds, which must be those that are found without records."""
    found = compare(specs, known := {r.key: r for r in records}, lambda sweep: alive)
    names = [JobName(spec.key, spec.title, spec.upstream.key if spec.upstream else None) for spec in specs]
    quickly = diff.statuses(names, standings_of(known), lambda sweep: alive)
    assert quickly == {
        job.spec.key: PlanStatus.NEW if job.status is PlanStatus.CHANGED else job.status for job in found
    }
    return [job.status for job in found]


@pytest.fixture
def jobs(plan_grid: Plan) -> tuple[JobSpec, ...]:
    """One pre-training job and the two that start from it."""
    return plan_grid("smoke", categories=("cat",), backbones=("alexnet",)).jobs


def test_nothing_known_is_all_new(jobs: tuple[JobSpec, ...]) -> None:
    assert statuses(jobs) == [PlanStatus.NEW] * 3


@pytest.mark.parametrize(
    ("state", "alive", "status"),
    [
        (JobState.SUCCEEDED, False, PlanStatus.DONE),
        (JobState.RUNNING, True, PlanStatus.RUNNING),
        (JobState.RUNNING, False, PlanStatus.LOST),
        (JobState.QUEUED, True, PlanStatus.RUNNING),
        (JobState.QUEUED, False, PlanStatus.INTERRUPTED),
        (JobState.REQUEUED, False, PlanStatus.INTERRUPTED),
        (JobState.FAILED, False, PlanStatus.FAILED),
        (JobState.CANCELLED, False, PlanStatus.CANCELLED),
    ],
)
def test_each_state_has_its_status(jobs: tuple[JobSpec, ...], state: JobState, alive: bool, status: PlanStatus) -> None:
    assert statuses(jobs, record(jobs[0], state), alive=alive)[0] is status


def test_what_starts_from_a_failed_job_is_blocked_until_that_is_put_back(jobs: tuple[JobSpec, ...]) -> None:
    failed = record(jobs[0], JobState.FAILED, StopReason.DIVERGED)
    assert statuses(jobs, failed) == [PlanStatus.FAILED, PlanStatus.BLOCKED, PlanStatus.BLOCKED]
    put_back = record(jobs[0], JobState.REQUEUED, StopReason.DIVERGED)
    assert statuses(jobs, put_back) == [PlanStatus.INTERRUPTED, PlanStatus.NEW, PlanStatus.NEW]


def test_a_cancelled_job_says_whether_it_was_meant_alone(jobs: tuple[JobSpec, ...]) -> None:
    reasons = (StopReason.CANCELLED_BY_USER, StopReason.SWEEP_CANCELLED)
    records = [record(spec, JobState.CANCELLED, reason) for spec, reason in zip(jobs[1:], reasons, strict=True)]
    found = compare(jobs, {r.key: r for r in records}, lambda sweep: False)
    assert [job.why for job in found[1:]] == ["by the user", "with its sweep"]


def test_a_done_job_stays_done_when_its_upstream_is_forgotten(jobs: tuple[JobSpec, ...]) -> None:
    assert statuses(jobs, record(jobs[1], JobState.SUCCEEDED))[1] is PlanStatus.DONE


def test_a_changed_job_names_the_field(jobs: tuple[JobSpec, ...]) -> None:
    earlier = plan_of("smoke", categories=("cat",), backbones=("alexnet",), sets={"train.epochs": 3}).jobs
    known = {spec.key: record(spec, JobState.SUCCEEDED) for spec in earlier}
    found = compare(jobs, known, lambda sweep: False)
    assert found[0].status is PlanStatus.DONE  # pre-training has epochs of its own
    assert [(job.status, job.why) for job in found[1:]] == [(PlanStatus.CHANGED, "train.epochs 3 -> 2")] * 2


def test_a_namesake_that_differs_everywhere_is_another_job(jobs: tuple[JobSpec, ...]) -> None:
    earlier = plan_of("all-categories", categories=("voc_part/cat",)).jobs
    known = {spec.key: record(spec, JobState.SUCCEEDED) for spec in earlier}
    assert [job.status for job in compare(jobs, known, lambda sweep: False)][1:] == [PlanStatus.NEW] * 2


def test_failures_say_why(jobs: tuple[JobSpec, ...]) -> None:
    failed = record(jobs[1], JobState.FAILED, StopReason.DIVERGED)
    assert compare(jobs, {failed.key: failed}, lambda sweep: False)[1].why == "Diverged: loss is nan"


def stored(jobs: tuple[JobSpec, ...]) -> StoredPlan:
    return StoredPlan(name="s", profile="laptop", jobs=tuple(job.model_dump(mode="json") for job in jobs))


def test_a_stored_plan_gives_back_the_same_jobs(jobs: tuple[JobSpec, ...]) -> None:
    again = StoredPlan.model_validate_json(stored(jobs).model_dump_json())
    assert [spec.key for spec in again.specs] == [spec.key for spec in jobs]
    check_same_sweep(again, jobs)


def test_a_name_that_means_other_jobs_shows_the_difference(jobs: tuple[JobSpec, ...]) -> None:
    changed = plan_of("smoke", categories=("cat",), backbones=("alexnet",), sets={"seed": 4, "train.epochs": 9}).jobs
    fewer, others = (
        jobs[:2],
        plan_of("smoke", categories=("cat",), backbones=("alexnet",), sets={"train.epochs": 9}).jobs,
    )
    with pytest.raises(SpecError, match=r"\n  train\.epochs 2 -> 9 \(2 jobs\)\n.*--name.*orch resume s"):
        check_same_sweep(stored(jobs), others)
    with pytest.raises(SpecError, match=r"\n  1 job removed: voc-cat alexnet interpretable\n"):
        check_same_sweep(stored(jobs), fewer)
    with pytest.raises(SpecError, match=r"\n  2 jobs added: voc-cat alexnet ordinary seed 4, .*\n  2 jobs removed: "):
        check_same_sweep(stored(jobs), changed)


def test_every_changed_field_of_a_sweep_is_shown_with_how_many_jobs_it_changes(jobs: tuple[JobSpec, ...]) -> None:
    sets = {"train.epochs": 9, "train.momentum": 0.5, "data.train_per_category": 8}
    others = plan_of("smoke", categories=("cat",), backbones=("alexnet",), sets=sets).jobs
    with pytest.raises(SpecError) as refused:
        check_same_sweep(stored(jobs), others)
    changes = {line.strip() for line in str(refused.value).splitlines() if "->" in line}
    assert changes == {
        "train.epochs 2 -> 9 (2 jobs)",
        "train.momentum 0.9 -> 0.5 (2 jobs)",
        "data.train_per_category 24 -> 8 (2 jobs)",
    }


def test_a_job_that_its_driver_will_try_again_says_so(jobs: tuple[JobSpec, ...]) -> None:
    waiting = record(jobs[0], JobState.REQUEUED, StopReason.WORKER_LOST)
    whys = [compare(jobs, {waiting.key: waiting}, lambda sweep, alive=alive: alive)[0].why for alive in (True, False)]
    assert whys == [
        "stopped in attempt 1 (worker_lost), will be retried",
        "stopped in attempt 1 (worker_lost)",
    ]
