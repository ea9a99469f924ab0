"""What the driver keeps between two pictures of a sweep is what it would find anew."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from orchestrator.execution import sweep_state
from orchestrator.execution.estimate import Estimate
from orchestrator.execution.sweep_state import SweepState
from orchestrator.planning.diff import PlannedJob, PlanStatus
from schemas.lifecycle import JobState
from schemas.order import Progress
from tests.support.doubles import plan_of

S = JobState
JOBS = [PlannedJob(spec, PlanStatus.NEW, "") for spec in plan_of({"grid": "smoke", "axes": {"seed": [0, 1]}}).jobs]


@pytest.mark.parametrize("seed", range(10))
def test_the_cells_are_those_of_a_search_of_all_jobs(seed: int) -> None:
    chance, state = random.Random(seed), SweepState.of(JOBS)
    keys = list(state.board)
    for turn in range(60):
        key = chance.choice(keys)
        free = [worker for worker in range(3) if worker not in state.running]
        if state.running and (not free or chance.random() < 0.5):
            worker = chance.choice(list(state.running))
            key = state.running.pop(worker)
            state.board[key] = replace(state.board[key], state=chance.choice((S.SUCCEEDED, S.FAILED, S.REQUEUED)))
            state.accuracies[key] = 0.5
        elif key not in state.running.values():
            state.running[free[0]] = key
            state.set_state(key, S.RUNNING)
        told = {
            worker: Progress(job_key=key, phase="training", epoch=turn, epochs=99)
            for worker, key in state.running.items()
        }
        anew = SweepState(state.specs, state.board, running=state.running, accuracies=state.accuracies)
        expected = tuple(
            anew._cell(key, place, key in state.board.blocked(), {k: told[w] for w, k in state.running.items()})
            for key, place in anew.places.items()
        )
        assert state.cells(told) == expected


def test_a_large_sweep_is_estimated_again_only_after_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    state, computed = SweepState.of(JOBS), []
    state.running[0] = next(iter(state.board))
    pause = sweep_state.ESTIMATE_SECONDS_A_JOB * len(JOBS)

    def compute(self: SweepState, slots: int, now: float, places: int) -> Estimate:
        computed.append(now)
        return Estimate(1.0, 10.0)

    monkeypatch.setattr(SweepState, "_time_left", compute)
    assert state.time_left({}, 1, 100.0) == Estimate(1.0, 10.0)
    assert state.time_left({}, 1, 100.0 + pause / 2) == pytest.approx((1.0 - pause / 2, 10.0 - pause / 2, 0))
    assert computed == [100.0]
    state.time_left({}, 1, 100.0 + 2 * pause)
    state.time_left({}, 2, 100.0 + 2 * pause)
    state.running.clear()
    state.time_left({}, 2, 100.0 + 2 * pause)
    assert len(computed) == 4
