"""The short version of `python -m tests.chaos`: eight jobs and three faults, compared with an undisturbed sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.blows import JOBS, KINDS, Kind, plan_round
from tests.chaos.campaign import play, undisturbed

SEED = 1900


def test_a_seed_always_means_the_same_round() -> None:
    assert plan_round(7) == plan_round(7)
    assert plan_round(7) != plan_round(8)


def test_twenty_five_seeds_have_every_blow_and_cut_both_stores() -> None:
    rounds = [plan_round(seed) for seed in range(1, 26)]
    assert {blow.kind for played in rounds for blow in played.blows} == set(KINDS)
    assert {played.store for played in rounds if Kind.CUT_STORE in {blow.kind for blow in played.blows}} == {
        "file", "server",
    }  # fmt: skip
    with_objects = [played for played in rounds if played.store == "objects"]
    assert all(Kind.CUT_OBJECTS in {blow.kind for blow in played.blows} for played in with_objects)
    assert {played.store == "file" for played in rounds if played.small_disk} == {True, False}


def test_blows_come_in_the_order_of_progress_and_before_the_end() -> None:
    for seed in range(100):
        finished = [blow.when.count for blow in plan_round(seed).blows if blow.when.sign == "finished"]
        assert finished == sorted(finished)
        assert all(count < JOBS for count in finished)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_nothing_is_lost_or_repeated_under_blows(tmp_path: Path) -> None:
    plan = plan_round(SEED, jobs=8, blows=3)
    assert {blow.kind for blow in plan.blows} == {Kind.KILL_DRIVER, Kind.KILL_WORKER, Kind.SPOIL_CHECKPOINT}
    outcome = play(tmp_path / "round", plan, undisturbed(tmp_path / "undisturbed", jobs=8))
    assert outcome.wrong == (), outcome
    assert len(outcome.struck) == 3
