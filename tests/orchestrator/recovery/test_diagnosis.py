"""Causes of jobs that did not succeed, and the advice for each."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import typer.main

from orchestrator.cli.main import app
from orchestrator.execution.scheduler import RETRY, SAYS_NOTHING
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
    spent = {reason for reason, rule in RETRY.items() if rule.charged} | {R.WORKER_LOST, R.STORE_UNREACHABLE}
    assert spent <= set(ADVICE_BY_REASON)
    assert all(reason in ADVICE_BY_REASON or reason in SAYS_NOTHING for reason in RETRY)


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


@pytest.mark.parametrize("text", [*ADVICE_BY_REASON.values(), *ADVICE_BY_STATUS.values()])
def test_what_it_says_to_type_can_be_typed(text: str) -> None:
    group = typer.main.get_command(app)
    commands = [command.split() for command in re.findall(r"`orch ([^`]+)`", text)]
    for name, *words in commands:
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        known = {option for parameter in group.commands[name].params for option in parameter.opts}
        assert options <= known, text
