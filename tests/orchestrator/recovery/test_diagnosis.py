"""Causes of jobs that did not succeed, and the advice for each."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import typer.main

from orchestrator.cli.main import app
from orchestrator.execution.retry_policy import RETRY
from orchestrator.ledger.records import JobRecord
from orchestrator.planning.diff import PlannedJob, PlanStatus, compare
from orchestrator.recovery.diagnosis import ADVICE_BY_REASON, ADVICE_BY_STATUS, find_causes
from schemas.lifecycle import JobState, StopReason
from schemas.results import Failure
from tests.support.doubles import plan_of, record_of

S, R, P = JobState, StopReason, PlanStatus
JOBS = plan_of("smoke", categories=("cat",), backbones=("alexnet", "vgg16"), sets={"weights.source": "random"}).jobs


def planned(*records: JobRecord, alive: bool = False) -> list[PlannedJob]:
    return compare(JOBS, {record.key: record for record in records}, lambda sweep: alive)


def failed(number: int, reason: StopReason, *, line: int = 1) -> JobRecord:
    """A failed job. Failures of one reason have one fingerprint, whatever the line number."""
    record = record_of(JOBS[number], S.FAILED, reason)
    assert record.result is not None
    trace = Failure(kind="Boom", message=f"job {number}", traceback=f'File "/x/a.py", line {line}, in {reason}')
    return replace(record, result=record.result.model_copy(update={"failure": trace}))


def test_failures_that_took_the_same_way_are_one_cause_and_the_most_frequent_comes_first() -> None:
    found = find_causes(planned(failed(0, R.BAD_DATA), failed(1, R.CODE_RAISED), failed(2, R.CODE_RAISED, line=7)))
    assert [(cause.reason, len(cause.jobs), cause.attempts) for cause in found] == [
        (R.CODE_RAISED, 2, 2),
        (R.BAD_DATA, 1, 1),
    ]
    assert found[0].message == "job 1"
    assert len(found[0].fingerprint) == 8


def test_failures_come_before_what_only_waits() -> None:
    waiting = [record_of(JOBS[n], S.RUNNING) for n in (1, 2, 3)]
    assert [cause.status for cause in find_causes(planned(failed(0, R.BAD_DATA), *waiting))] == [P.FAILED, P.LOST]


def test_what_is_done_new_or_running_is_no_cause() -> None:
    assert find_causes(planned(record_of(JOBS[0], S.SUCCEEDED), record_of(JOBS[1], S.RUNNING), alive=True)) == []


def test_a_job_whose_upstream_failed_is_told_apart_from_it() -> None:
    jobs = plan_of("smoke", categories=("cat",), backbones=("alexnet",)).jobs
    upstream = record_of(jobs[0], S.FAILED, R.BAD_DATA)
    found = find_causes(compare(jobs, {upstream.key: upstream}, lambda sweep: False))
    assert [(cause.status, len(cause.jobs)) for cause in found] == [(P.FAILED, 1), (P.BLOCKED, 2)]
    assert "resolve that one first" in found[1].advice("s")


def test_every_reason_for_which_a_job_can_fail_has_its_own_advice() -> None:
    assert set(RETRY) <= set(ADVICE_BY_REASON)


def test_a_cancelled_sweep_is_resumed_and_a_cancelled_job_put_back() -> None:
    alone, with_sweep = record_of(JOBS[0], S.CANCELLED, R.CANCELLED_BY_USER), record_of(
        JOBS[1], S.CANCELLED, R.SWEEP_CANCELLED)  # fmt: skip
    advice = {cause.reason: cause.advice("mine") for cause in find_causes(planned(alone, with_sweep))}
    assert advice[R.CANCELLED_BY_USER].startswith("`orch requeue mine --cancelled`")
    assert advice[R.SWEEP_CANCELLED].startswith("`orch resume mine`")


def test_who_is_still_driven_is_not_told_to_type_what_would_be_refused() -> None:
    again, gone = record_of(JOBS[0], S.REQUEUED, R.WORKER_LOST), failed(1, R.BAD_DATA)
    advice = {
        cause.status: cause.advice("mine", is_driven=True) for cause in find_causes(planned(again, gone, alive=True))
    }
    assert "automatically" in advice[P.INTERRUPTED]
    assert "orch resume" not in advice[P.INTERRUPTED]
    assert "`orch pause mine`" in advice[P.FAILED]


def with_failure(record: JobRecord, attempt: int = 1) -> JobRecord:
    """The record with a failed last result, of the given attempt."""
    failure = Failure(kind="Boom", message="boom", traceback='File "a.py", line 1, in x')
    assert record.result is not None
    return replace(record, result=record.result.model_copy(update={"failure": failure, "attempt": attempt}))


def test_only_an_interrupted_job_of_a_driven_sweep_is_retried_automatically() -> None:
    lost, requeued = record_of(JOBS[0], S.RUNNING), record_of(JOBS[1], S.REQUEUED, R.WORKER_LOST)
    advice = {cause.status: cause for cause in find_causes(planned(lost, requeued))}
    assert "automatically" in advice[P.INTERRUPTED].advice("mine", is_driven=True)
    assert advice[P.INTERRUPTED].advice("mine").startswith("`orch resume mine` continues")
    outside = advice[P.INTERRUPTED].advice("mine", resume="orch resume mine --detach")
    assert outside.startswith("`orch resume mine --detach` continues")
    assert "automatically" not in advice[P.LOST].advice("mine", is_driven=True)


def test_only_a_driven_sweep_must_end_first_and_a_blocked_job_waits_for_another_one() -> None:
    jobs = plan_of("smoke", categories=("cat",), backbones=("alexnet",)).jobs
    upstream = record_of(jobs[0], S.FAILED, R.BAD_DATA)
    failed_one, blocked = find_causes(compare(jobs, {upstream.key: upstream}, lambda sweep: False))
    for cause, must_wait in ((failed_one, True), (blocked, False)):
        assert ("orch pause" in cause.advice("mine", is_driven=True)) is must_wait
        assert "orch pause" not in cause.advice("mine", is_driven=False)


def test_the_advice_for_a_reason_is_for_failed_jobs_alone() -> None:
    requeued = record_of(JOBS[0], S.REQUEUED, R.WORKER_LOST)
    (cause,) = find_causes(planned(requeued))
    assert cause.advice("mine") == ADVICE_BY_STATUS[P.INTERRUPTED].format(resume="orch resume mine")
    (cause,) = find_causes(planned(record_of(JOBS[0], S.FAILED, None)))
    assert cause.advice("mine") == "`orch requeue mine --failed`, then `orch resume mine`."


def test_a_requeued_job_keeps_its_failure_and_one_that_was_told_to_stop_has_none() -> None:
    (cause,) = find_causes(planned(with_failure(record_of(JOBS[0], S.REQUEUED, R.OUT_OF_MEMORY))))
    assert (cause.kind, cause.message, len(cause.fingerprint)) == ("Boom", "boom", 8)
    (cause,) = find_causes(planned(with_failure(record_of(JOBS[0], S.REQUEUED, R.INTERRUPTED))))
    assert (cause.kind, cause.fingerprint) == ("interrupted", "")


def test_a_failure_of_an_earlier_attempt_is_not_the_cause() -> None:
    (cause,) = find_causes(planned(replace(failed(0, R.CODE_RAISED), attempt=2)))
    assert (cause.kind, cause.fingerprint) == ("failed", "")


def test_a_job_that_is_neither_failed_nor_interrupted_has_no_failure() -> None:
    cancelled = with_failure(record_of(JOBS[0], S.CANCELLED, R.CODE_RAISED))
    (cause,) = find_causes(planned(cancelled))
    assert (cause.kind, cause.fingerprint) == ("cancelled", "")
    assert cause.message == "by the user"


def test_a_job_without_a_result_has_its_reason_as_message() -> None:
    bare = replace(record_of(JOBS[0], S.FAILED, R.WORKER_LOST), result=None)
    (cause,) = find_causes(planned(bare))
    assert (cause.kind, cause.message, cause.attempts) == ("failed", "worker_lost", 1)


def test_a_blocked_job_has_no_reason_of_its_own() -> None:
    jobs = plan_of("smoke", categories=("cat",), backbones=("alexnet",)).jobs
    upstream, begun = record_of(jobs[0], S.FAILED, R.BAD_DATA), record_of(jobs[1], S.REQUEUED, R.WORKER_LOST)
    records = {record.key: record for record in (upstream, begun)}
    found = find_causes(compare(jobs, records, lambda sweep: False))
    assert [(cause.status, cause.reason, len(cause.jobs)) for cause in found] == [
        (P.FAILED, R.BAD_DATA, 1),
        (P.BLOCKED, None, 2),
    ]


def test_a_message_lists_three_reasons_and_says_that_there_are_more() -> None:
    jobs = [PlannedJob(spec, P.LOST, f"reason {n}", None) for n, spec in enumerate(JOBS)]
    assert len(jobs) == 4
    assert [cause.message for cause in find_causes(jobs[:3])] == ["reason 0; reason 1; reason 2"]
    assert [cause.message for cause in find_causes(jobs)] == ["reason 0; reason 1; reason 2; ..."]


@pytest.mark.parametrize("text", [*ADVICE_BY_REASON.values(), *ADVICE_BY_STATUS.values()])
def test_what_it_says_to_type_can_be_typed(text: str) -> None:
    group = typer.main.get_command(app)
    commands = [command.split() for command in re.findall(r"`orch ([^`]+)`", text)]
    for name, *words in commands:
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        known = {option for parameter in group.commands[name].params for option in parameter.opts}
        assert options <= known, text
