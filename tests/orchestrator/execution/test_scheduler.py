"""Which job runs next, and what happens to one that stopped."""

from __future__ import annotations

from itertools import pairwise

import pytest

from orchestrator.execution.circuit_breaker import Stop, common_cause
from orchestrator.execution.job_queue import JobQueue
from orchestrator.execution.retry_policy import (
    JITTER,
    MAX_BACKOFF_SECONDS,
    RETRY,
    WITH_SWEEP,
    after,
    micro_batches_after,
    next_move,
)
from orchestrator.execution.scheduler import QueueEntry, blocked, threads_for
from schemas.lifecycle import TRANSITIONS, JobState, StopReason
from schemas.results import JobResult

S, R = JobState, StopReason


def board(*entries: QueueEntry) -> dict[str, QueueEntry]:
    return {entry.key: entry for entry in entries}


@pytest.mark.parametrize("end", [S.FAILED, S.CANCELLED])
def test_what_starts_from_a_failed_job_is_blocked_all_the_way_down(end: JobState) -> None:
    jobs = board(
        QueueEntry("up", end),
        QueueEntry("mid", S.QUEUED, upstream="up"),
        QueueEntry("low", S.QUEUED, upstream="mid"),
        QueueEntry("x", S.QUEUED),
    )
    assert blocked(jobs) == ["mid", "low"]
    assert JobQueue(jobs.values()).ready(now=0) == ["x"]
    assert not JobQueue(jobs.values()).is_over
    jobs["x"] = QueueEntry("x", S.SUCCEEDED)
    assert JobQueue(jobs.values()).is_over


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


def retries_of(reason: StopReason, stops: tuple[StopReason, ...] = ()) -> list[float]:
    """Seconds of each wait before a retry, of a job that stops for one reason until it has failed."""
    entry, waits = QueueEntry("a", S.RUNNING, stops=stops), []
    while (move := next_move(entry, reason, now=100.0)).to is S.REQUEUED:
        waits.append(move.not_before - 100.0 if move.not_before else 0.0)
        entry = after(entry, move)
    assert move.to is S.FAILED
    return waits


@pytest.mark.parametrize("reason", RETRY)
def test_each_reason_has_its_own_budget(reason: StopReason) -> None:
    spent = tuple(other for other in RETRY if other is not reason for _ in retries_of(other))
    assert len(retries_of(reason, stops=spent)) == len(retries_of(reason))
    assert (
        next_move(QueueEntry("a", S.RUNNING, stops=spent), reason, now=0).to
        is next_move(QueueEntry("a", S.RUNNING), reason, now=0).to
    )


@pytest.mark.parametrize(
    ("reason", "seconds"),
    [(R.WORKER_LOST, 30), (R.NODE_LOST, 120), (R.SUPERSEDED, 120), (R.STORE_UNREACHABLE, 120), (R.PREEMPTED, 300)],
)
def test_retries_outlast_what_ends_by_itself(reason: StopReason, seconds: float) -> None:
    """A worker is restarted in seconds, a machine or a store in two minutes; a preempted one may take five."""
    waits = retries_of(reason)
    assert seconds <= sum(waits) < 2 * seconds
    assert waits[0] < 10, "what is back at once is not waited for"


@pytest.mark.parametrize("reason", [R.DIVERGED, R.BAD_DATA, R.BAD_SPEC])
def test_what_would_end_the_same_way_again_is_not_retried(reason: StopReason) -> None:
    assert retries_of(reason) == []


def test_an_exception_gets_one_more_chance_at_once() -> None:
    assert retries_of(R.CODE_RAISED) == [0.0]


def test_a_job_without_memory_is_retried_at_once_with_up_to_eight_micro_batches() -> None:
    parts, tried = 1, []
    for wait in retries_of(R.OUT_OF_MEMORY):
        parts = micro_batches_after(result(R.OUT_OF_MEMORY, parts), batch_size=32)
        tried.append((parts, wait))
    assert tried == [(2, 0.0), (4, 0.0), (8, 0.0)]


def waits_of(key: str) -> list[float]:
    entries = [QueueEntry(key, S.RUNNING, stops=(R.STORE_UNREACHABLE,) * n) for n in range(5)]
    return [next_move(entry, R.STORE_UNREACHABLE, 100.0).not_before - 100.0 for entry in entries]


def test_backoff_doubles_up_to_a_limit_and_a_little_more() -> None:
    waits = waits_of("a")
    for wait, longer in pairwise(waits[:-1]):
        assert 2 / (1 + JITTER) < longer / wait < 2 * (1 + JITTER)
    assert MAX_BACKOFF_SECONDS <= waits[-1] < MAX_BACKOFF_SECONDS * (1 + JITTER)
    assert max(waits[:-1]) < MAX_BACKOFF_SECONDS


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


OWN_DOING = [R.OUT_OF_MEMORY, R.CODE_RAISED, R.DIVERGED, R.BAD_DATA, R.BAD_SPEC]


@pytest.mark.parametrize("reason", StopReason)
def test_only_what_is_the_jobs_own_doing_can_pause_a_sweep(reason: StopReason) -> None:
    if reason is R.RESULTS_LOST:
        return  # `orch fsck` gives it to a job; no attempt stops for it
    cause = common_cause([Stop(key, reason, "same") for key in "abc"])
    assert (cause is not None) == (reason in OWN_DOING)


@pytest.mark.parametrize("reason", OWN_DOING)
def test_what_the_jobs_did_not_cause_neither_counts_nor_hides_what_they_did(reason: StopReason) -> None:
    outside = [Stop(key, R.WORKER_LOST, "same") for key in "abcdef"]
    own = [Stop(key, reason, "same") for key in "ab"]
    assert common_cause(outside + own) is None
    assert common_cause([*outside, *own, Stop("c", reason, "same")]) is not None


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
