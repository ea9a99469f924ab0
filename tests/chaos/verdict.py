"""What must hold after every round, whatever the blows were."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.chaos.adversary import Adversary
from tests.chaos.evidence import Run, processes_of, weights_digest
from tests.chaos.stage import Stage, wait_for

Point = tuple[str, int, float]


class Reference(NamedTuple):
    """The undisturbed sweep."""

    folder: Path
    weights: dict[str, str]
    """By job key."""
    points: dict[str, list[Point]]
    seconds: float


def read_reference(stage: Stage, jobs: int, seconds: float) -> Reference:
    runs = stage.store.runs()
    assert len(runs) == jobs + 1, stage.log.read_text()
    checkpoints = stage.home / "checkpoints"
    return Reference(
        stage.folder, {run.key: weights_digest(checkpoints, run) for run in runs}, stage.store.points(), seconds
    )


def check(stage: Stage, adversary: Adversary, reference: Reference) -> list[str]:
    """Everything that is wrong; empty where nothing was lost and nothing repeated."""
    runs = stage.store.runs()
    return [
        *_check_runs(runs, stage.store.sweep_statuses(), reference),
        *_check_nothing_ran_again(runs, adversary.seen, stage.home / "logs"),
        *_check_numbers(stage.store.points(), reference),
        *_check_weights(stage, runs, reference),
        *_check_fsck(stage),
        *_check_processes(stage),
        *_check_talk(stage),
    ]


def _check_runs(runs: list[Run], sweeps: list[str], reference: Reference) -> list[str]:
    wrong = []
    doubled = [key for key, count in Counter(run.key for run in runs).items() if count > 1]
    if doubled:
        wrong.append(f"jobs with several runs: {doubled}")
    if {run.key for run in runs} != set(reference.weights):
        wrong.append(f"{len({run.key for run in runs})} keys instead of {len(reference.weights)}")
    wrong += [f"{run.title} is {run.status}, {run.state}" for run in runs
              if (run.status, run.state) != ("FINISHED", "succeeded")]  # fmt: skip
    if sweeps != ["FINISHED"]:
        wrong.append(f"runs of the sweep itself: {sweeps}")
    return wrong


def _check_nothing_ran_again(runs: list[Run], seen: dict[str, Run], logs: Path) -> list[str]:
    wrong = []
    for run in runs:
        first = seen.get(run.key)
        if first is not None and (first.attempt, first.result) != (run.attempt, run.result):
            wrong.append(f"{run.title} was finished in attempt {first.attempt} and ran again in {run.attempt}")
        later = [path.name for path in (logs / run.key).glob("attempt-*.log") if _number(path) > run.attempt]
        if later:
            wrong.append(f"{run.title} has logs of attempts that the store does not know: {later}")
    return wrong


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("attempt-"))


def _check_numbers(points: dict[str, list[Point]], reference: Reference) -> list[str]:
    wrong = []
    for key, expected in reference.points.items():
        found = points.get(key, [])
        repeated = [where for where, count in Counter((name, step) for name, step, _ in found).items() if count > 1]
        if repeated:
            wrong.append(f"{key}: steps logged twice: {repeated[:3]}")
        elif found != expected:
            differing = sorted(set(found) ^ set(expected))
            wrong.append(f"{key}: {len(differing)} points differ from the undisturbed sweep's: {differing[:4]}")
    return wrong


def _check_weights(stage: Stage, runs: list[Run], reference: Reference) -> list[str]:
    checkpoints = stage.home / "checkpoints"
    return [
        f"{run.title} ({run.key}) ends with other weights than undisturbed"
        for run in runs
        if run.state == "succeeded" and weights_digest(checkpoints, run) != reference.weights.get(run.key)
    ]


def _check_fsck(stage: Stage) -> list[str]:
    fsck = stage.type("fsck")
    try:
        code = fsck.wait(120)
    except subprocess.TimeoutExpired:
        fsck.kill()
        return ["`orch fsck` hangs"]
    return [] if code == 0 else [f"`orch fsck` ends with {code}: {stage.log.read_text()[-800:]}"]


def _check_processes(stage: Stage) -> list[str]:
    try:
        wait_for(lambda: not processes_of(stage.home), 30.0, "all processes to end")
    except AssertionError:
        return [f"left over: {process.pid} {process.name()}" for process in processes_of(stage.home)]
    return []


def _check_talk(stage: Stage) -> list[str]:
    """A user sees messages, never a traceback."""
    text = stage.log.read_text(errors="replace")
    return ["a traceback was printed"] if "Traceback (most recent call last)" in text else []
