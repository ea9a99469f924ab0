"""Decides what must hold at the end of every scenario, whatever happened in it."""

from __future__ import annotations

from tests.chaos.verdict import Reference, check_numbers, check_runs, check_weights
from tests.cluster.evidence import final_weights
from tests.cluster.services import BUCKET
from tests.cluster.stage import Cluster
from tests.cluster.watch import Watch

LONGEST_IDLE = 15.0
"""Longest time in which a node may be idle beside a job that could run, seconds."""


def check(cluster: Cluster, watch: Watch, reference: Reference, sweeps: int) -> list[str]:
    """Check a scenario against the undisturbed sweep. Returns everything that is wrong; empty if nothing is.

    Args:
        cluster: the cluster, with all services running.
        watch: looked at it.
        reference: the undisturbed sweep.
        sweeps: number of sweeps.
    """
    runs, artifacts = cluster.store.runs(), cluster.store.artifacts()
    client = cluster.objects.client()

    wrong = [
        *check_runs(runs, cluster.store.sweep_statuses(), reference, sweeps),
        *check_numbers(cluster.store.points(), reference),
        *check_weights(runs, lambda run: final_weights(client, BUCKET, artifacts[run.key]), reference),
        *_check_fsck(cluster),
        *_check_talk(cluster),
    ]
    if watch.longest_idle > LONGEST_IDLE:
        wrong.append(f"a CPU was idle beside a job that could run for {watch.longest_idle:.0f} s, {watch.when_idle}")
    if watch.longest_untrue > LONGEST_IDLE:
        wrong.append(f"more jobs than workers were called running for {watch.longest_untrue:.0f} s")
    return wrong


def _check_fsck(cluster: Cluster) -> list[str]:
    code, text = cluster.say("fsck")
    return [] if code == 0 else [f"`orch fsck` returned exit code {code}: {text[-800:]}"]


def _check_talk(cluster: Cluster) -> list[str]:
    """No command may print a traceback, or blame orch itself."""
    return [
        f"`orch {' '.join(command.words)}` printed a traceback or called it a defect; see {command.log}"
        for command in cluster.commands
        if "Traceback (most recent call last)" in command.text or "defect of orch" in command.text
    ]
