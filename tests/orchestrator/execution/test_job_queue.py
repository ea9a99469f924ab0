"""The queue answers as searches of all jobs do, whatever has happened to its jobs."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from orchestrator.execution import scheduler
from orchestrator.execution.job_queue import JobQueue
from orchestrator.execution.scheduler import QueueEntry
from schemas.lifecycle import JobState

S = JobState


def queue_of(*entries: QueueEntry) -> JobQueue:
    return JobQueue(entries)


def entries(chance: random.Random, share_features: bool, have_upstream: bool) -> list[QueueEntry]:
    """Return jobs of any state, of which some may start from an earlier one."""
    keys = [f"job-{number}" for number in range(30)]
    return [
        QueueEntry(
            key,
            chance.choice(list(S)),
            upstream=chance.choice(keys[:place]) if have_upstream and place and chance.random() < 0.4 else None,
            features=chance.choice((None, "a", "b")) if share_features else None,
        )
        for place, key in enumerate(keys)
    ]


def ended(board: scheduler.Board) -> int:
    return sum(entry.state in (S.SUCCEEDED, S.FAILED) for entry in board.values())


def ready(board: scheduler.Board, now: float) -> list[str]:
    found = [
        entry
        for entry in board.values()
        if entry.state in (S.QUEUED, S.REQUEUED) and scheduler.can_start(board, entry, now)
    ]
    there = {entry.features for entry in board.values() if entry.state is S.SUCCEEDED}
    begun = {entry.features for entry in board.values() if entry.state is S.RUNNING}
    waiting = set[str]()
    for entry in found:
        if entry.features is not None and entry.features not in there:
            if entry.features in begun:
                waiting.add(entry.key)
            begun.add(entry.features)
    return sorted((entry.key for entry in found), key=waiting.__contains__)


def is_over(board: scheduler.Board) -> bool:
    stuck = set(scheduler.blocked(board))
    return not any(
        entry.state is S.RUNNING or (entry.state in (S.QUEUED, S.REQUEUED) and entry.key not in stuck)
        for entry in board.values()
    )


def test_jobs_wait_for_the_job_they_start_from() -> None:
    jobs = queue_of(
        QueueEntry("up", S.RUNNING), QueueEntry("down", S.QUEUED, upstream="up"), QueueEntry("free", S.QUEUED)
    )
    assert jobs.ready(now=0) == ["free"]
    jobs["up"] = QueueEntry("up", S.SUCCEEDED)
    assert jobs.ready(now=0) == ["down", "free"]


def test_a_job_that_would_wait_for_anothers_features_comes_last_until_they_are_there() -> None:
    jobs = queue_of(
        *(QueueEntry(f"cat {n}", S.QUEUED, features="cat") for n in (1, 2)),
        *(QueueEntry(f"dog {n}", S.QUEUED, features="dog") for n in (1, 2)),
        *(QueueEntry(f"plain {n}", S.QUEUED) for n in (1, 2)),
    )
    assert jobs.ready(now=0) == ["cat 1", "dog 1", "plain 1", "plain 2", "cat 2", "dog 2"]
    jobs["cat 1"] = replace(jobs["cat 1"], state=S.RUNNING)
    assert jobs.ready(now=0) == ["dog 1", "plain 1", "plain 2", "cat 2", "dog 2"]
    jobs["cat 1"] = replace(jobs["cat 1"], state=S.SUCCEEDED)
    assert jobs.ready(now=0) == ["cat 2", "dog 1", "plain 1", "plain 2", "dog 2"]


def test_a_requeued_job_waits_out_its_backoff() -> None:
    jobs = queue_of(QueueEntry("a", S.REQUEUED, not_before=10.0))
    assert jobs.ready(now=9.9) == []
    assert jobs.ready(now=10.0) == ["a"]
    assert not jobs.is_over


@pytest.mark.parametrize("seed", range(20))
def test_after_any_changes_it_answers_as_a_search_of_all_jobs(seed: int) -> None:
    chance = random.Random(seed)
    queue = JobQueue(entries(chance, share_features=seed % 2 == 0, have_upstream=seed % 3 > 0))
    for now in range(100):
        key = chance.choice(list(queue))
        queue[key] = replace(queue[key], state=chance.choice(list(S)), not_before=float(chance.choice((0, now + 5))))
        board = dict(queue)
        assert queue.ready(now) == ready(board, now)
        assert queue.ready(now, 3) == ready(board, now)[:3]
        assert queue.count_ready(now, 3) == min(3, len(ready(board, now)))
        assert queue.count_ready(now, 99) == len(ready(board, now))
        assert queue.take_replaced() == ({key} if now else set(board))
        assert queue.blocked() == scheduler.blocked(board)
        assert queue.is_over == is_over(board)
        assert queue.ended == ended(board)


def test_a_sweep_whose_last_jobs_cannot_start_is_over() -> None:
    queue = JobQueue([QueueEntry("up", S.RUNNING), QueueEntry("down", S.QUEUED, upstream="up")])
    assert not queue.is_over
    queue["up"] = replace(queue["up"], state=S.FAILED)
    assert queue.is_over
    queue["up"] = replace(queue["up"], state=S.SUCCEEDED)
    assert not queue.is_over


def test_a_job_that_is_put_back_keeps_its_place() -> None:
    queue = JobQueue(QueueEntry(key, S.QUEUED) for key in "abc")
    queue["a"] = replace(queue["a"], state=S.RUNNING)
    assert queue.ready(0.0) == ["b", "c"]
    queue["a"] = replace(queue["a"], state=S.REQUEUED)
    assert queue.ready(0.0) == ["a", "b", "c"]
