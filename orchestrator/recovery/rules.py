"""Decides which rules a store and its files must satisfy, and which repair applies where one is broken. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from orchestrator.ledger.base import RUN_STATUS
from orchestrator.ledger.records import JobRecord, JobRun, SweepEntry
from schemas.lifecycle import JobState

Alive = Callable[[str], bool]
"""Returns whether the sweep of a name has a live driver."""


class Repair(StrEnum):
    """A change that `orch fsck --repair` can make."""

    NOTHING = "nothing"
    STATUS = "status"
    """Set the status of the MLflow run to that of the job's state."""
    LIFT = "lift"
    """Remove the lease of a dead driver."""
    REQUEUE = "requeue"
    """Requeue the job, so that it runs again."""
    DELETE = "delete"
    """Delete a partial file."""
    DROP = "drop"
    """Delete a duplicate run that never began."""


class CheckpointStatus(StrEnum):
    """Whether a file has the content that was written."""

    INTACT = "intact"
    MISSING = "missing"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Finding:
    """A broken rule."""

    rule: str
    """What must hold, for people."""
    what: str
    """What was found instead."""
    where: str
    """Job, run, sweep or path."""
    repair: Repair
    advice: str = ""
    """What a person can do if `--repair` cannot repair it."""
    run: JobRun | None = None
    path: Path | None = None
    key: str = ""
    """Key of the job that the path belongs to."""
    sweep: str = ""


@dataclass(frozen=True)
class Leftover:
    """A partial file."""

    path: Path
    key: str = ""
    """Key of the job that wrote it; empty if it belongs to no single job."""


@dataclass(frozen=True)
class Evidence:
    """Everything that the rules are checked on."""

    runs: tuple[JobRun, ...]
    sweeps: tuple[SweepEntry, ...]
    missing: Mapping[str, tuple[str, ...]]
    """Missing result files by run id, for succeeded jobs."""
    checkpoints: Mapping[str, CheckpointStatus]
    """Status of the final checkpoint by run id, for succeeded jobs; behind a server, one that exists is intact."""
    folders: Mapping[str, Path]
    """Checkpoint folders by job key."""
    partial: tuple[Leftover, ...]
    """Partial files."""
    bare: frozenset[str] = frozenset()
    """Ids of the runs of succeeded jobs that have no file at all."""
    deleted: frozenset[str] = frozenset()
    """Keys of jobs whose runs were deleted and can be restored."""
    missing_objects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Published checkpoints that the object store lacks, by key of the job."""


def check(evidence: Evidence, alive: Alive) -> list[Finding]:
    """Check all rules.

    Args:
        evidence: the state of the store and of the files.
        alive: returns whether a sweep has a live driver. Its jobs are skipped, because its changes are incomplete.

    Returns:
        Everything that is wrong.
    """
    return [
        *_unreadable(evidence.runs),
        *_duplicates(evidence.runs),
        *_plans(evidence.sweeps),
        *_leases(evidence.sweeps, alive),
        *_runs(evidence, alive),
        *_orphans(evidence),
        *_partial_files(evidence, alive),
    ]


def known_keys(runs: Iterable[JobRun], sweeps: Iterable[SweepEntry]) -> frozenset[str]:
    """Return the keys of all jobs that have begun or are planned."""
    planned = {job.key for sweep in sweeps for job in sweep.record.outlines}
    return frozenset(planned | {run.key for run in runs})


def _unreadable(runs: Iterable[JobRun]) -> Iterator[Finding]:
    for run in runs:
        if run.record is None:
            advice = "Correct its tags or delete it in `orch ui`; its job then runs again."
            yield Finding("every run can be read", run.problem, f"run {run.run_id}", Repair.NOTHING, advice, run)


def _duplicates(runs: Iterable[JobRun]) -> Iterator[Finding]:
    keyed = [run for run in runs if run.key]
    count = Counter(run.key for run in keyed)
    seen: set[str] = set()
    for run in keyed:
        if run.key in seen:
            what = f"{run.title} has {count[run.key]} runs; this one is a duplicate"
            how, advice = (Repair.DROP, "") if run.never_began else (Repair.NOTHING, "Delete it in `orch ui`.")
            yield Finding("one run per job", what, f"run {run.run_id}", how, advice, run)
        seen.add(run.key)


def _plans(sweeps: Iterable[SweepEntry]) -> Iterator[Finding]:
    for sweep in sweeps:
        if sweep.problem:
            yield Finding("every plan can be read", sweep.problem, f"sweep {sweep.record.name}", Repair.NOTHING,
                          "Restore the file.")  # fmt: skip


def _leases(sweeps: Iterable[SweepEntry], alive: Alive) -> Iterator[Finding]:
    for sweep in sweeps:
        name, is_open = sweep.record.name, sweep.status == "RUNNING" or sweep.record.lease is not None
        if is_open and not alive(name):
            yield Finding("a running sweep has a driver", "its driver died", f"sweep {name}", Repair.LIFT, sweep=name)


def _runs(evidence: Evidence, alive: Alive) -> Iterator[Finding]:
    for run in primary_runs(evidence.runs):
        record = run.record
        if record is None or (not record.state.has_ended and alive(record.driven_by)):
            continue
        where = f"{record.title} ({record.key})"
        if run.status != RUN_STATUS[record.state]:
            what = f"MLflow says {run.status}, the job is {record.state}"
            yield Finding("MLflow's status is the job's state", what, where, Repair.STATUS, run=run)
        if record.state is JobState.RUNNING:
            what = f"attempt {record.attempt} runs without a driver"
            yield Finding("a running job has a driver", what, where, Repair.REQUEUE, run=run)
        for key in evidence.missing_objects.get(run.key, ()):
            yield Finding("a published checkpoint is in the object store", f"{key} is missing", where, Repair.NOTHING,
                          "The job goes on from an earlier checkpoint.", run)  # fmt: skip
        if record.state is JobState.SUCCEEDED:
            yield from _results(evidence, run, record, where)


def primary_runs(runs: Iterable[JobRun]) -> list[JobRun]:
    """Return the run that counts for each job: the first of its key."""
    first: dict[str, JobRun] = {}
    for run in runs:
        first.setdefault(run.key, run)
    return list(first.values())


def _results(evidence: Evidence, run: JobRun, record: JobRecord, where: str) -> Iterator[Finding]:
    rule = "a succeeded job has its results"
    if evidence.bare and evidence.bare == evidence.missing.keys():
        advice = (
            "The disk or bucket of the artifacts is probably not there. If the files are gone for good, delete the run "
            "in `orch ui`; its job then runs again."
        )
        what = "its run has no file, like that of every other succeeded job"
        yield Finding(rule, what, where, Repair.NOTHING, advice, run)
        return
    missing = list(evidence.missing.get(run.run_id, ()))
    if record.result is None or record.result.metrics is None:
        missing.append("metrics")
    if record.result is None or record.result.checkpoint is None:
        missing.append("path of the checkpoint")
    if missing:
        yield Finding(rule, f"missing: {', '.join(missing)}", where, Repair.REQUEUE, run=run)
        return
    state = evidence.checkpoints.get(run.run_id, CheckpointStatus.MISSING)
    if state is not CheckpointStatus.INTACT:
        yield Finding(rule, f"the final checkpoint is {state}: the job must run again", where, Repair.REQUEUE, run=run)


def _orphans(evidence: Evidence) -> Iterator[Finding]:
    known = known_keys(evidence.runs, evidence.sweeps) | evidence.deleted
    for key, path in evidence.folders.items():
        if key not in known:
            yield Finding("every checkpoint has a job", f"no job has the key {key}", str(path), Repair.NOTHING,
                          "`orch gc` deletes it.", path=path)  # fmt: skip


def _partial_files(evidence: Evidence, alive: Alive) -> Iterator[Finding]:
    driver_of = {run.key: run.record.driven_by for run in evidence.runs if run.record}
    any_driver = any(alive(sweep.record.name) for sweep in evidence.sweeps)
    for leftover in evidence.partial:
        in_use = alive(driver_of[leftover.key]) if leftover.key in driver_of else any_driver
        if not in_use:
            yield Finding("no file is partial", "left by a process that died", str(leftover.path), Repair.DELETE,
                          path=leftover.path, key=leftover.key)  # fmt: skip
