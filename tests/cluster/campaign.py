"""Plays scenarios, and compares each with one undisturbed sweep on this machine alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.chaos.campaign import undisturbed
from tests.chaos.stage import Stuck
from tests.chaos.verdict import Reference
from tests.cluster.photographs import write_photographs
from tests.cluster.scenarios import NAME, Act, Scenario
from tests.cluster.stage import EPOCHS, JOBS, Cluster, short_sweep, staged
from tests.cluster.verdict import check
from tests.cluster.watch import Watch

PRETRAINING_EPOCHS = 2


class Row(NamedTuple):
    """What happened in a scenario."""

    name: str
    seconds: float
    """From the first command to the verdict."""
    lost: int
    """Epochs that were trained more than once."""
    attempts: int
    """Attempts of all jobs together."""
    jobs: int
    idle: float
    """Longest time in which a node was idle beside a job that could run, seconds."""
    notes: tuple[str, ...]
    wrong: tuple[str, ...]
    """Everything that does not hold; empty if it passed."""


def reference_of(folder: Path, images: str = "generated") -> Reference:
    """Return the results of the scenarios' sweep undisturbed, without a cluster, on one core as every node has.

    Args:
        folder: where it runs, or has run before.
        images: `generated` or `photographs`.
    """
    kept = folder / "reference.json"
    if kept.exists():
        weights, points, seconds = json.loads(kept.read_text())
        return Reference(
            folder, weights, {key: [(a, b, c) for a, b, c in rows] for key, rows in points.items()}, seconds
        )
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # the number of threads decides the last bits of the weights
    try:
        with TemporaryDirectory() as data_root:
            if images == "photographs":
                write_photographs(Path(data_root))
            settings = {"ORCH_DATA_ROOT": data_root}
            reference = undisturbed(folder, JOBS, short_sweep(NAME, images=images), workers=1, settings=settings)
    finally:
        os.sched_setaffinity(0, cores)
    kept.write_text(json.dumps((reference.weights, reference.points, reference.seconds)))
    return reference


def play(
    folder: Path, scenarios: Sequence[Scenario], references: Mapping[str, Reference], scale: float = 1.0
) -> Iterator[Row]:
    """Play scenarios one after the other on one cluster, which is cleared between them.

    After a failure, or if MLflow is to ask for a password, the next one gets a new cluster.

    Args:
        folder: keeps the logs of each cluster in a folder that is called after its first scenario, and the disks of the
            hosts if something is wrong.
        scenarios: to play.
        references: the undisturbed sweeps by their kind of images.
        scale: factor on the length of outages.
    """
    left = list(scenarios)
    while left:
        first = left[0]
        place = folder / first.name.replace(",", "").replace(" ", "-")
        with staged(place, nodes=first.nodes, authenticates=first.authenticates) as cluster:
            is_whole = True
            while left and is_whole and left[0].authenticates == first.authenticates:
                scenario = left.pop(0)
                if scenario is not first:
                    cluster.clear(scenario.nodes)
                row = _play_on(cluster, scenario, references[scenario.images], scale)
                is_whole = not row.wrong
                yield row


def _play_on(cluster: Cluster, scenario: Scenario, reference: Reference, scale: float) -> Row:
    """Play a scenario on a new or cleared cluster, whose disks are kept if something is wrong."""
    jobs = len(reference.weights)
    watch = Watch(cluster, jobs)
    act = Act(cluster, watch, scale, short_sweep(NAME, images=scenario.images))
    began = time.monotonic()
    wrong: list[str] = []
    try:
        scenario.play(act)
        watch.expect(False)
        wrong = check(cluster, watch, reference, scenario.sweeps)
    except Stuck as stuck:
        wrong = [str(stuck)]
        if watch.longest_idle > 0:
            wrong.append(f"idle for {watch.longest_idle:.0f} s, {watch.when_idle}")
    finally:
        watch.stop()
    seconds = time.monotonic() - began
    lost = max(0, act.epochs() - act.in_vain - (JOBS * EPOCHS + PRETRAINING_EPOCHS))
    attempts = sum(watch.attempts.values())
    if not wrong and lost > scenario.most_lost:
        wrong.append(f"{lost} epochs were trained again, at most {scenario.most_lost} may be")
    if not wrong and attempts > jobs + scenario.more_attempts:
        wrong.append(f"{attempts} attempts, at most {jobs + scenario.more_attempts} may be")
    if wrong:
        cluster.keep_disks = True
    return Row(scenario.name, seconds, lost, attempts, jobs, watch.longest_idle, tuple(act.notes), tuple(wrong))
