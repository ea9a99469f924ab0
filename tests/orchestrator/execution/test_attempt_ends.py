"""Ends of attempts: told once, and a loss only after Ray was seen to answer."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from orchestrator.execution.attempt_ends import AttemptEnds
from orchestrator.execution.pool import Ended
from schemas.errors import ResourceError
from schemas.lifecycle import StopReason
from tests.orchestrator.execution.test_pool_and_faults import ORDER
from tests.support.doubles import result_of

GONE = ResourceError("Ray has gone")


def worker(number: int = 0, *, is_busy: bool = True) -> Any:
    return SimpleNamespace(id=number, order=ORDER if is_busy else None, node="a")


def reasons(ended: list[Ended]) -> list[tuple[int, StopReason]]:
    return [(one.worker, one.result.stop_reason) for one in ended]


def test_an_end_is_told_once() -> None:
    ends = AttemptEnds()
    assert not ends
    ends.add(Ended(3, result_of(ORDER), "a", is_told=True))
    ends.end(worker(1, is_busy=False), StopReason.INTERRUPTED, None)
    assert ends
    assert reasons(ends.take()) == [(3, StopReason.FINISHED)]
    assert not ends
    assert ends.take() == []


def test_a_loss_is_told_once_ray_was_seen_to_answer_after_it() -> None:
    ends, before = AttemptEnds(), time.monotonic()
    ends.hold(worker(), StopReason.WORKER_LOST, GONE)
    ends.hold(worker(1, is_busy=False), StopReason.WORKER_LOST, GONE)
    ends.release(before)
    assert ends.take() == []
    ends.release(time.monotonic() + 1)
    assert reasons(ends.take()) == [(0, StopReason.WORKER_LOST)]


def test_with_ray_all_attempts_are_lost_with_their_machine_and_those_held_too() -> None:
    ends = AttemptEnds()
    ends.hold(worker(), StopReason.WORKER_LOST, ResourceError("silent"))
    ends.lose_ray([worker(1), worker(2, is_busy=False)], GONE)
    ended = ends.take()
    assert reasons(ended) == [(0, StopReason.NODE_LOST), (1, StopReason.NODE_LOST)]
    assert {one.result.failure.message for one in ended if one.result.failure} == {str(GONE)}
    ends.release(time.monotonic() + 1)
    assert ends.take() == []
