"""Which job runs next, and what becomes of one that stopped."""

from __future__ import annotations

import pytest

from orchestrator.execution.scheduler import (
    JITTER,
    MAX_BACKOFF_SECONDS,
    RETRY,
    WITH_SWEEP,
    QueueEntry,
    Stop,
    after,
    blocked,
    common_cause,
    is_over,
    micro_batches_after,
    next_move,
    ready,
    seconds_left,
    threads_for,
)
from schemas.lifecycle import TRANSITIONS, JobState, StopReason
from schemas.results import JobResult

S, R = JobState, StopReason


def board(*entries: QueueEntry) -> dict[str, QueueEntry]:
    return {entry.key: entry for entry in entries}


def test_jobs_wait_for_the_job_they_start_from() -> None:
    jobs = board(QueueEntry("up", S.RUNNING), QueueEntry("down", S.QUEUED, upstream="up"), QueueEntry("free", S.QUEUED))
    assert ready(jobs, now=0) == ["free"]
    jobs["up"] = QueueEntry("up", S.SUCCEEDED)
    assert ready(jobs, now=0) == ["down", "free"]


def test_a_requeued_job_waits_out_its_backoff() -> None:
    jobs = board(QueueEntry("a", S.REQUEUED, not_before=10.0))
    assert ready(jobs, now=9.9) == []
    assert ready(jobs, now=10.0) == ["a"]
    assert not is_over(jobs)


@pytest.mark.parametrize("end", [S.FAILED, S.CANCELLED])
def test_what_starts_from_a_failed_job_is_blocked_all_the_way_down(end: JobState) -> None:
    jobs = board(
        QueueEntry("up", end),
        QueueEntry("mid", S.QUEUED, upstream="up"),
        QueueEntry("low", S.QUEUED, upstream="mid"),
        QueueEntry("x", S.QUEUED),
    )
    assert blocked(jobs) == ["mid", "low"]
    assert ready(jobs, now=0) == ["x"]
    assert not is_over(jobs)
    jobs["x"] = QueueEntry("x", S.SUCCEEDED)
    assert is_over(jobs)


@pytest.mark.parametrize("reason", StopReason)
def test_every_stop_leads_along_a_legal_edge_and_never_for_ever(reason: StopReason) -> None:
    entry = QueueEntry("a", S.RUNNING)
    ends = []
    for _ in range(20):
        move = next_move(entry, reason, now=0)
        assert move.to in TRANSITIONS[S.RUNNING]
        ends.append(move.to)
        entry = after(entry, move)
    assert reason in WITH_SWEEP or S.REQUEUED not in ends[10:]


@pytest.mark.parametrize(
    ("reason", "retries"),
    [
        (R.WORKER_LOST, 5), (R.NODE_LOST, 5), (R.PREEMPTED, 10), (R.SUPERSEDED, 5), (R.STORE_UNREACHABLE, 5),
        (R.OUT_OF_MEMORY, 3), (R.CODE_RAISED, 1), (R.DIVERGED, 0), (R.BAD_DATA, 0), (R.BAD_SPEC, 0),
    ],
)  # fmt: skip
def test_each_reason_has_its_own_budget(reason: StopReason, retries: int) -> None:
    entry = QueueEntry("a", S.RUNNING)
    for _ in range(retries):
        move = next_move(entry, reason, now=0)
        assert move.to is S.REQUEUED
        entry = after(entry, move)
    assert next_move(entry, reason, now=0).to is S.FAILED


def test_one_reason_does_not_use_up_anothers_budget() -> None:
    entry = QueueEntry("a", S.RUNNING, stops=(R.WORKER_LOST,) * 5)
    assert next_move(entry, R.OUT_OF_MEMORY, now=0).to is S.REQUEUED


def waits_of(key: str) -> list[float]:
    entries = [QueueEntry(key, S.RUNNING, stops=(R.STORE_UNREACHABLE,) * n) for n in range(5)]
    return [next_move(entry, R.STORE_UNREACHABLE, 100.0).not_before - 100.0 for entry in entries]


def test_backoff_doubles_up_to_a_limit_and_a_little_more() -> None:
    base = RETRY[R.STORE_UNREACHABLE].backoff_seconds
    for n, wait in enumerate(waits_of("a")):
        least = min(base * 2**n, MAX_BACKOFF_SECONDS)
        assert least <= wait < least * (1 + JITTER)


def test_jobs_that_stopped_together_come_back_apart_and_always_alike() -> None:
    assert len({waits_of(key)[0] for key in "abcdefgh"}) == 8
    assert waits_of("a") == waits_of("a")


def result(reason: StopReason, micro_batches: int = 1) -> JobResult:
    return JobResult(job_key="a", attempt=1, stop_reason=reason, micro_batches=micro_batches)


@pytest.mark.parametrize(
    ("last", "parts"),
    [
        (None, 1),
        (result(R.OUT_OF_MEMORY), 2),
        (result(R.OUT_OF_MEMORY, 2), 4),
        (result(R.WORKER_LOST, 4), 4),
        (result(R.FINISHED), 1),
        (result(R.OUT_OF_MEMORY, 24), 32),
        (result(R.OUT_OF_MEMORY, 32), 32),
    ],
)
def test_too_little_memory_halves_the_batch_and_what_follows_keeps_to_it(last: JobResult | None, parts: int) -> None:
    assert micro_batches_after(last, batch_size=32) == parts


def test_only_what_is_the_jobs_own_doing_can_pause_a_sweep() -> None:
    outside = {R.WORKER_LOST, R.NODE_LOST, R.PREEMPTED, R.SUPERSEDED, R.STORE_UNREACHABLE}
    assert {reason for reason, rule in RETRY.items() if not rule.charged} == outside
    for reason in RETRY:
        stops = [Stop(key, reason, "same") for key in "abc"]
        assert (common_cause(stops) is None) == (reason in outside), reason


def test_success_and_the_users_word_are_final() -> None:
    assert next_move(QueueEntry("a", S.RUNNING), R.FINISHED, 0).to is S.SUCCEEDED
    assert next_move(QueueEntry("a", S.RUNNING), R.CANCELLED_BY_USER, 0).to is S.CANCELLED


def test_a_job_beside_which_no_other_can_run_takes_the_whole_machine() -> None:
    board = {
        e.key: e for e in (QueueEntry("up", S.QUEUED), QueueEntry("a", S.QUEUED, "up"), QueueEntry("b", S.QUEUED, "up"))
    }
    assert [threads_for(board, key, cpus_per_worker=2, cores=8) for key in board] == [8, 2, 2]
    chain = {
        e.key: e for e in (QueueEntry("up", S.QUEUED), QueueEntry("a", S.QUEUED, "up"), QueueEntry("a2", S.QUEUED, "a"))
    }
    assert [threads_for(chain, key, cpus_per_worker=1, cores=8) for key in chain] == [8, 8, 8]
    lone = {"up": QueueEntry("up", S.QUEUED), "other": QueueEntry("other", S.QUEUED)}
    assert [threads_for(lone, key, cpus_per_worker=1, cores=8) for key in lone] == [1, 1]


def test_the_last_job_left_computes_as_it_would_have_beside_the_others() -> None:
    board = {e.key: e for e in (QueueEntry("a", S.SUCCEEDED), QueueEntry("b", S.QUEUED))}
    assert threads_for(board, "b", cpus_per_worker=1, cores=8) == 1


def test_time_left_is_shared_among_the_slots() -> None:
    assert seconds_left([], 10, 2) is None
    assert seconds_left([2.0, 4.0], jobs_left=10, slots=2) == 15.0
