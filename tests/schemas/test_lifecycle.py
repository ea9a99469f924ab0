"""The table of moves, gone through pair by pair."""

from __future__ import annotations

from itertools import product

import pytest

from schemas.errors import IllegalTransition
from schemas.lifecycle import TRANSITIONS, JobState, advance

LEGAL = {
    ("planned", "queued"), ("planned", "cancelled"),
    ("queued", "running"), ("queued", "failed"), ("queued", "cancelled"),
    ("running", "succeeded"), ("running", "failed"), ("running", "requeued"), ("running", "cancelled"),
    ("requeued", "queued"), ("requeued", "failed"), ("requeued", "cancelled"),
    ("failed", "requeued"), ("cancelled", "requeued"), ("succeeded", "requeued"),
}  # fmt: skip


@pytest.mark.parametrize(("current", "target"), list(product(JobState, JobState)))
def test_every_pair_is_a_legal_move_or_raises(current: JobState, target: JobState) -> None:
    if (current, target) in LEGAL:
        assert advance("k", current, target) is target
    else:
        with pytest.raises(IllegalTransition, match=f"is {current} and cannot become {target}"):
            advance("k", current, target)


def test_the_message_lists_what_is_possible() -> None:
    with pytest.raises(IllegalTransition, match="can become: cancelled, failed, queued"):
        advance("k", JobState.REQUEUED, JobState.SUCCEEDED)
    with pytest.raises(IllegalTransition, match="can become: requeued"):
        advance("k", JobState.SUCCEEDED, JobState.RUNNING)


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(JobState)
    reached, fresh = {JobState.PLANNED}, {JobState.PLANNED}
    while fresh:
        fresh = {target for state in fresh for target in TRANSITIONS[state]} - reached
        reached |= fresh
    assert reached == set(JobState)


def test_from_every_state_success_is_possible() -> None:
    for state in JobState:
        reached, fresh = {state}, {state}
        while fresh:
            fresh = {target for s in fresh for target in TRANSITIONS[s]} - reached
            reached |= fresh
        assert JobState.SUCCEEDED in reached


def test_a_job_that_has_ended_can_only_be_put_back() -> None:
    ended = [state for state in JobState if state.has_ended]
    assert {state: set(TRANSITIONS[state]) for state in ended} == {
        JobState.SUCCEEDED: {JobState.REQUEUED},
        JobState.FAILED: {JobState.REQUEUED},
        JobState.CANCELLED: {JobState.REQUEUED},
    }
