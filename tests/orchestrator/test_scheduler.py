"""Which job runs next, and what becomes of one that stopped."""

from __future__ import annotations

import pytest

from orchestrator.scheduler import (
    MAX_BACKOFF_SECONDS,
    RETRY,
    Entry,
    after,
    blocked,
    is_over,
    next_move,
    ready,
    seconds_left,
    threads_for,
)
from schemas.lifecycle import TRANSITIONS, JobState, StopReason

S, R = JobState, StopReason


def board(*entries: Entry) -> dict[str, Entry]:
    return {entry.key: entry for entry in entries}


def test_jobs_wait_for_the_job_they_start_from() -> None:
    jobs = board(Entry("up", S.RUNNING), Entry("down", S.QUEUED, upstream="up"), Entry("free", S.QUEUED))
    assert ready(jobs, now=0) == ["free"]
    jobs["up"] = Entry("up", S.SUCCEEDED)
    assert ready(jobs, now=0) == ["down", "free"]


def test_a_requeued_job_waits_out_its_backoff() -> None:
    jobs = board(Entry("a", S.REQUEUED, not_before=10.0))
    assert ready(jobs, now=9.9) == []
    assert ready(jobs, now=10.0) == ["a"]
    assert not is_over(jobs)


@pytest.mark.parametrize("end", [S.FAILED, S.CANCELLED])
def test_what_starts_from_a_failed_job_is_blocked_all_the_way_down(end: JobState) -> None:
    jobs = board(
        Entry("up", end),
        Entry("mid", S.QUEUED, upstream="up"),
        Entry("low", S.QUEUED, upstream="mid"),
        Entry("x", S.QUEUED),
    )
    assert blocked(jobs) == ["mid", "low"]
    assert ready(jobs, now=0) == ["x"]
    assert not is_over(jobs)
    jobs["x"] = Entry("x", S.SUCCEEDED)
    assert is_over(jobs)


@pytest.mark.parametrize("reason", StopReason)
def test_every_stop_leads_along_a_legal_edge_and_never_for_ever(reason: StopReason) -> None:
    entry = Entry("a", S.RUNNING)
    ends = []
    for _ in range(20):
        move = next_move(entry, reason, now=0)
        assert move.to in TRANSITIONS[S.RUNNING]
        ends.append(move.to)
        entry = after(entry, move)
    assert reason is R.INTERRUPTED or S.REQUEUED not in ends[10:]


@pytest.mark.parametrize(
    ("reason", "retries"),
    [
        (R.WORKER_LOST, 5), (R.STORE_UNREACHABLE, 5), (R.OUT_OF_MEMORY, 1), (R.CODE_RAISED, 1),
        (R.DIVERGED, 0), (R.BAD_DATA, 0), (R.BAD_SPEC, 0),
    ],
)  # fmt: skip
def test_each_reason_has_its_own_budget(reason: StopReason, retries: int) -> None:
    entry = Entry("a", S.RUNNING)
    for _ in range(retries):
        move = next_move(entry, reason, now=0)
        assert move.to is S.REQUEUED
        entry = after(entry, move)
    assert next_move(entry, reason, now=0).to is S.FAILED


def test_one_reason_does_not_use_up_anothers_budget() -> None:
    entry = Entry("a", S.RUNNING, stops=(R.WORKER_LOST,) * 5)
    assert next_move(entry, R.OUT_OF_MEMORY, now=0).to is S.REQUEUED


def test_backoff_doubles_up_to_a_limit() -> None:
    base = RETRY[R.STORE_UNREACHABLE].backoff_seconds
    waits = [
        next_move(Entry("a", S.RUNNING, stops=(R.STORE_UNREACHABLE,) * n), R.STORE_UNREACHABLE, 100.0) for n in range(5)
    ]
    assert [move.not_before - 100.0 for move in waits] == [min(base * 2**n, MAX_BACKOFF_SECONDS) for n in range(5)]


def test_success_and_the_users_word_are_final() -> None:
    assert next_move(Entry("a", S.RUNNING), R.FINISHED, 0).to is S.SUCCEEDED
    assert next_move(Entry("a", S.RUNNING), R.CANCELLED_BY_USER, 0).to is S.CANCELLED


def test_only_a_job_alone_takes_the_whole_machine() -> None:
    assert threads_for(waiting=1, running=0, cpus_per_worker=1, cores=8) == 8
    assert threads_for(waiting=2, running=0, cpus_per_worker=1, cores=8) == 1
    assert threads_for(waiting=1, running=1, cpus_per_worker=2, cores=8) == 2


def test_time_left_is_shared_among_the_slots() -> None:
    assert seconds_left([], 10, 2) is None
    assert seconds_left([2.0, 4.0], jobs_left=10, slots=2) == 15.0
