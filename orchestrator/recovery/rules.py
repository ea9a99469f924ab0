"""What must hold of a store and the files beside it, and what can be done where it does not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from orchestrator.ledger.base import RUN_STATUS
from orchestrator.ledger.records import JobRecord, JobRun, SweepEntry
from schemas.lifecycle import JobState

Alive = Callable[[str], bool]
"""Whether a sweep has a driver."""


class Repair(StrEnum):
    """What `orch fsck --repair` can do."""

    NOTHING = "nothing"
    STATUS = "status"
    """Make MLflow show what the job's state says."""
    LIFT = "lift"
    """Take away the claim of a driver that is dead."""
    REQUEUE = "requeue"
    FETCH = "fetch"
    """Bring the final checkpoint back from the copy that the run keeps."""
    DELETE = "delete"
    DROP = "drop"
    """Delete a run of which nothing came."""


class CheckpointIs(StrEnum):
    WHOLE = "whole"
    MISSING = "missing"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Finding:
    rule: str
    what: str
    where: str
    repair: Repair
    advice: str = ""
    """What a person can do, where `--repair` can do nothing."""
    run: JobRun | None = None
    path: Path | None = None
    key: str = ""
    """Of the job that the path belongs to."""
    sweep: str = ""


@dataclass(frozen=True)
class Leftover:
    path: Path
    key: str = ""
    """Of the job that wrote it; empty where it belongs to no single one."""


@dataclass(frozen=True)
class Evidence:
    runs: tuple[JobRun, ...]
    sweeps: tuple[SweepEntry, ...]
    missing: Mapping[str, tuple[str, ...]]
    """By run: which files of its results are not there; of succeeded jobs."""
    checkpoints: Mapping[str, CheckpointIs]
    """By run: the final checkpoint on this machine's disk; of succeeded jobs."""
    has_copy: frozenset[str]
    """Runs that keep a copy of their final checkpoint; where that on the disk is not whole, a whole copy."""
    folders: Mapping[str, Path]
    """By key: folders of checkpoints."""
    partial: tuple[Leftover, ...]
    """Half-written files."""
    is_shared: bool
    """Jobs may have run on other machines, so a checkpoint that is only in its run is where it belongs."""


def check(evidence: Evidence, alive: Alive) -> list[Finding]:
    """Everything that is wrong. What a live driver has in hand is left out: it is in the middle of its moves."""
    return [
        *_unreadable(evidence.runs),
        *_doubled(evidence.runs),
        *_plans(evidence.sweeps),
        *_claims(evidence.sweeps, alive),
        *_runs(evidence, alive),
        *_orphans(evidence),
        *_half_written(evidence, alive),
    ]


def known_keys(runs: Iterable[JobRun], sweeps: Iterable[SweepEntry]) -> frozenset[str]:
    """Every job that was begun or is planned."""
    planned = {spec.key for sweep in sweeps if sweep.record.plan for spec in sweep.record.plan.outlines}
    return frozenset(planned | {run.key for run in runs})


def _unreadable(runs: Iterable[JobRun]) -> Iterator[Finding]:
    for run in runs:
        if run.record is None:
            advice = "Repair its tags or delete it in `orch ui`; its job then runs again."
            yield Finding("every run can be read", run.problem, f"run {run.run_id}", Repair.NOTHING, advice, run)


def _doubled(runs: Iterable[JobRun]) -> Iterator[Finding]:
    keyed = [run for run in runs if run.key]
    count = Counter(run.key for run in keyed)
    seen: set[str] = set()
    for run in keyed:
        if run.key in seen:
            what = f"{run.title} has {count[run.key]} runs; this one does not count"
            how, advice = (Repair.DROP, "") if run.never_began else (Repair.NOTHING, "Delete it in `orch ui`.")
            yield Finding("one run per job", what, f"run {run.run_id}", how, advice, run)
        seen.add(run.key)


def _plans(sweeps: Iterable[SweepEntry]) -> Iterator[Finding]:
    for sweep in sweeps:
        if sweep.problem:
            yield Finding("every plan is whole", sweep.problem, f"sweep {sweep.record.name}", Repair.NOTHING,
                          "Put the file back.")  # fmt: skip


def _claims(sweeps: Iterable[SweepEntry], alive: Alive) -> Iterator[Finding]:
    for sweep in sweeps:
        name, is_open = sweep.record.name, sweep.status == "RUNNING" or sweep.record.lease is not None
        if is_open and not alive(name):
            yield Finding("a running sweep has a driver", "its driver died", f"sweep {name}", Repair.LIFT, sweep=name)


def _runs(evidence: Evidence, alive: Alive) -> Iterator[Finding]:
    for run in own_runs(evidence.runs):
        record = run.record
        if record is None or (not record.state.has_ended and alive(record.driven_by)):
            continue
        where = f"{record.title} ({record.key})"
        if run.status != RUN_STATUS[record.state]:
            what = f"MLflow says {run.status}, the job is {record.state}"
            yield Finding("MLflow's status is the job's state", what, where, Repair.STATUS, run=run)
        if record.state is JobState.RUNNING:
            what = f"attempt {record.attempt} runs, and nobody drives it"
            yield Finding("a running job has a driver", what, where, Repair.REQUEUE, run=run)
        if record.state is JobState.SUCCEEDED:
            yield from _results(evidence, run, record, where)


def own_runs(runs: Iterable[JobRun]) -> list[JobRun]:
    """Of each key the run that counts, the first."""
    first: dict[str, JobRun] = {}
    for run in runs:
        first.setdefault(run.key, run)
    return list(first.values())


def _results(evidence: Evidence, run: JobRun, record: JobRecord, where: str) -> Iterator[Finding]:
    rule = "a succeeded job has its results"
    missing = list(evidence.missing.get(run.run_id, ()))
    if record.result is None or record.result.metrics is None:
        missing.append("its numbers")
    if record.result is None or record.result.checkpoint is None:
        missing.append("its checkpoint's address")
    if missing:
        yield Finding(rule, f"missing: {', '.join(missing)}", where, Repair.REQUEUE, run=run)
        return
    state = evidence.checkpoints.get(run.run_id, CheckpointIs.MISSING)
    has_copy = run.run_id in evidence.has_copy
    if state is CheckpointIs.WHOLE or (state is CheckpointIs.MISSING and has_copy and evidence.is_shared):
        return
    tail = ", but its run keeps a whole copy" if has_copy else ", and its run keeps no whole copy: it must run again"
    what = f"the final checkpoint is {state}{tail}"
    yield Finding(rule, what, where, Repair.FETCH if has_copy else Repair.REQUEUE, run=run)


def _orphans(evidence: Evidence) -> Iterator[Finding]:
    known = known_keys(evidence.runs, evidence.sweeps)
    for key, path in evidence.folders.items():
        if key not in known:
            yield Finding("every checkpoint has a job", f"no job has the key {key}", str(path), Repair.NOTHING,
                          "`orch gc` deletes it.", path=path)  # fmt: skip


def _half_written(evidence: Evidence, alive: Alive) -> Iterator[Finding]:
    driver_of = {run.key: run.record.driven_by for run in evidence.runs if run.record}
    anybody = any(alive(sweep.record.name) for sweep in evidence.sweeps)
    for leftover in evidence.partial:
        in_use = alive(driver_of[leftover.key]) if leftover.key in driver_of else anybody
        if not in_use:
            yield Finding("nothing is half-written", "left by a process that died", str(leftover.path), Repair.DELETE,
                          path=leftover.path, key=leftover.key)  # fmt: skip
