"""Decides what must hold after every round, whichever faults were injected."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.chaos.adversary import Adversary
from tests.chaos.evidence import Run, processes_of, weights_digest
from tests.chaos.stage import Stage, wait_for

Point = tuple[str, int, float]


class Reference(NamedTuple):
    """Results of the undisturbed sweep."""

    folder: Path
    weights: dict[str, str]
    """Digest of the final weights by job key."""
    points: dict[str, list[Point]]
    """Logged points by job key."""
    seconds: float


def read_reference(stage: Stage, jobs: int, seconds: float) -> Reference:
    """Read the results of the undisturbed sweep, which took `seconds`."""
    runs = stage.store.runs()
    assert len(runs) == jobs + 1, stage.log.read_text()
    weights = {run.key: weights_digest(stage.tracking_uri, run) for run in runs}
    return Reference(stage.folder, weights, stage.store.points(), seconds)


def check(stage: Stage, adversary: Adversary, reference: Reference) -> list[str]:
    """Check a round against the undisturbed sweep. Returns everything that is wrong; empty if nothing is."""
    runs = stage.store.runs()
    return [
        *check_runs(runs, stage.store.sweep_statuses(), reference),
        *_check_nothing_ran_again(runs, adversary.seen, stage.home / "logs"),
        *check_numbers(stage.store.points(), reference),
        *check_weights(runs, lambda run: weights_digest(stage.tracking_uri, run), reference),
        *_check_fsck(stage),
        *_check_processes(stage),
        *_check_talk(stage),
    ]


def check_runs(runs: list[Run], sweeps: list[str], reference: Reference, expected_sweeps: int = 1) -> list[str]:
    """Check that every job has one run, and that all runs are finished.

    Args:
        runs: of all jobs.
        sweeps: statuses of the sweeps' runs.
        reference: names the jobs.
        expected_sweeps: number of sweeps.
    """
    wrong = []
    doubled = [key for key, count in Counter(run.key for run in runs).items() if count > 1]
    if doubled:
        wrong.append(f"jobs with several runs: {doubled}")
    if {run.key for run in runs} != set(reference.weights):
        wrong.append(f"{len({run.key for run in runs})} keys instead of {len(reference.weights)}")
    wrong += [f"{run.title} is {run.status}, {run.state}" for run in runs
              if (run.status, run.state) != ("FINISHED", "succeeded")]  # fmt: skip
    if sweeps != ["FINISHED"] * expected_sweeps:
        wrong.append(f"statuses of the runs of sweeps: {sweeps}, expected {expected_sweeps} FINISHED")
    return wrong


def _check_nothing_ran_again(runs: list[Run], seen: dict[str, Run], logs: Path) -> list[str]:
    wrong = []
    for run in runs:
        first = seen.get(run.key)
        if first is not None and (first.attempt, first.result) != (run.attempt, run.result):
            wrong.append(f"{run.title} finished in attempt {first.attempt} but ran again in attempt {run.attempt}")
        later = [path.name for path in (logs / run.key).glob("attempt-*.log") if _number(path) > run.attempt]
        if later:
            wrong.append(f"{run.title} has logs of attempts that are not in the store: {later}")
    return wrong


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("attempt-"))


def check_numbers(points: dict[str, list[Point]], reference: Reference) -> list[str]:
    """Check that every step of every job was logged once, with the numbers of the undisturbed sweep."""
    wrong = []
    for key, expected in reference.points.items():
        found = points.get(key, [])
        repeated = [where for where, count in Counter((name, step) for name, step, _ in found).items() if count > 1]
        if repeated:
            wrong.append(f"{key}: steps logged twice: {repeated[:3]}")
        elif found != expected:
            differing = sorted(set(found) ^ set(expected))
            wrong.append(f"{key}: {len(differing)} points differ from the undisturbed sweep: {differing[:4]}")
    return wrong


def check_weights(runs: list[Run], digest: Callable[[Run], str], reference: Reference) -> list[str]:
    """Check that the final weights are those of the undisturbed sweep.

    Args:
        runs: of all jobs.
        digest: returns the digest of a job's final weights.
        reference: the undisturbed sweep.
    """
    return [
        f"{run.title} ({run.key}) has other final weights than in the undisturbed sweep"
        for run in runs
        if run.state == "succeeded" and digest(run) != reference.weights.get(run.key)
    ]


def _check_fsck(stage: Stage) -> list[str]:
    fsck = stage.type("fsck")
    try:
        code = fsck.wait(120)
    except subprocess.TimeoutExpired:
        fsck.kill()
        return ["`orch fsck` did not end within 120 s"]
    return [] if code == 0 else [f"`orch fsck` returned exit code {code}: {stage.log.read_text()[-800:]}"]


def _check_processes(stage: Stage) -> list[str]:
    try:
        wait_for(lambda: not processes_of(stage.home), 30.0, "all processes to end")
    except AssertionError:
        return [f"process left over: {process.pid} {process.name()}" for process in processes_of(stage.home)]
    return []


def _check_talk(stage: Stage) -> list[str]:
    """The output must not contain a traceback."""
    text = stage.log.read_text(errors="replace")
    return ["a traceback was printed"] if "Traceback (most recent call last)" in text else []
