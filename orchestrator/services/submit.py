"""Hands a sweep to a cluster through Ray's jobs API, and drives it there. Nothing here prints.

The submitting machine needs the tracking server and the dashboard of the cluster, and nothing else of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.execution.control import WALL, Clock, put_back
from orchestrator.execution.open_pool import OpenPool
from orchestrator.execution.progress import Display
from orchestrator.execution.ray_jobs import RayJobs, Submission
from orchestrator.execution.selection import Which
from orchestrator.execution.submission import (
    Parcel,
    driver_environment,
    next_submission,
    request_fields,
    submission_prefix,
    travelling,
)
from orchestrator.execution.supervisor import Supervisor
from orchestrator.execution.sweep_outcome import SweepOutcome
from orchestrator.ledger import opening, store
from orchestrator.ledger.base import Ledger, known_sweep
from orchestrator.ledger.claim import busy
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.liveness import is_driven
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import StoredPlan, SweepRecord
from orchestrator.planning.diff import check_same_sweep
from orchestrator.planning.planner import NullResolver, plan
from orchestrator.planning.request import SweepRequest, define
from orchestrator.planning.resolver import check_all_weights, push_all_weights, resolver_for
from orchestrator.services.sweeps import resume_sweep, run_sweep
from orchestrator.settings import PARCEL, Settings
from orchestrator.wording import when
from schemas.errors import (
    DataError,
    Interrupted,
    OrchError,
    ResourceError,
    SpecError,
    StoreError,
    StoreUnreachable,
    SweepBusy,
    SweepIncomplete,
)
from schemas.job import FileWeights, JobSpec
from workers.tracking.access import without_password

SIGN_SECONDS = 30.0
"""How long to wait for the first sign of the driver: its claim, or its end."""
LOOK_SECONDS = 0.5
"""Time between two looks for it."""
_ERRORS: dict[int | None, type[OrchError]] = {
    kind.exit_code: kind
    for kind in (SweepIncomplete, SpecError, DataError, StoreError, ResourceError, SweepBusy, Interrupted)
}


@dataclass(frozen=True)
class Submitted:
    """A sweep that a cluster drives."""

    sweep: str
    submission: str
    """Id of the job in the cluster's jobs API."""
    jobs_address: str
    lease: Lease | None
    """The driver's claim; None if it has not claimed the sweep yet, or had nothing to do."""
    has_ended: bool
    """Whether the driver had nothing to do and has ended."""
    planned_here: bool
    """False if the driver plans the sweep, because only the cluster has its data or weights."""
    kept: tuple[str, ...]
    """Variables that were not sent, because they hold passwords."""
    warnings: tuple[str, ...] = ()
    """Warnings of planning, such as an `exclude` row that matches no job."""
    pushed: tuple[str, ...] = ()
    """Lines about the weights files that this machine has put into the object store."""


def submit_sweep(
    settings: Settings, request: SweepRequest, *, workers: int | None = None, clock: Clock = WALL
) -> Submitted:
    """Plan a sweep, as far as this machine can, and hand it to the cluster.

    Args:
        settings: name the store, the cluster and the folders.
        request: the sweep.
        workers: jobs to run at a time; None takes the number of the profile, the grid or the sweep file.
        clock: limits the wait for the driver's first sign.

    Raises:
        SweepBusy: a live driver or submission has the sweep.
        ResourceError: the cluster's jobs API does not answer or refuses this machine, or the driver cannot start there.
        OrchError: the sweep cannot run; its subclasses say why, as found here or by the driver.
    """
    jobs = _open_cluster(settings)
    planned = plan(define(request), NullResolver())
    if not _is_here(planned.jobs, request.data_root):
        parcel = Parcel(sweep=planned.name, workers=workers, request=request_fields(request))
        return replace(_hand_over(settings, jobs, parcel, None, Which(), clock), warnings=planned.warnings)
    resolver = resolver_for(settings, request.data_root)
    planned = plan(define(request), resolver)
    check_all_weights(planned.jobs)
    resolver.check_data(planned.jobs)
    pushed = _push_weights(settings, planned.jobs)
    stored = StoredPlan.of(
        planned.name, planned.profile, request.data_root, planned.jobs, planned.upstream_keys, planned.resources
    )
    parcel, again = Parcel(sweep=planned.name, workers=workers), Which(cancelled_with_sweep=True)
    done = _hand_over(settings, jobs, parcel, stored, again, clock)
    return replace(done, warnings=planned.warnings, pushed=pushed)


def submit_resume(
    settings: Settings, name: str, *, workers: int | None = None, failed: bool = False, clock: Clock = WALL
) -> Submitted:
    """Hand a stored sweep to the cluster, to go on as it was planned.

    Args:
        settings: name the store, the cluster and the folders.
        name: the sweep's name.
        workers: jobs to run at a time; None takes the number of the stored plan.
        failed: also run failed jobs again.
        clock: limits the wait for the driver's first sign.

    Raises:
        OrchError: as `submit_sweep`, or the store has no such sweep.
    """
    jobs = _open_cluster(settings)
    ledger = opening.open_or_create(settings)
    record = known_sweep(ledger, name)
    if record.plan is None:
        raise StoreError(f"Sweep {name!r} was stopped before it was planned. Repeat its `orch sweep` command.")
    again = Which(failed=failed, cancelled_with_sweep=True)
    pushed = _push_weights(settings, record.plan.specs)
    return replace(
        _hand_over(settings, jobs, Parcel(sweep=name, workers=workers), record.plan, again, clock), pushed=pushed
    )


def supervise(say: Callable[[str], None]) -> int:
    """Keep the driver of the sweep in this job's parcel alive until it ends in order. Runs in the cluster.

    Returns:
        The driver's exit code.

    Raises:
        SpecError: this process was not started by `orch submit`.
        ResourceError: the orch of the submitting machine is another one.
    """
    from workers.code_home import code_home

    parcel = _parcel()
    own = code_home()
    if own.sha256 != parcel.code:
        raise ResourceError(
            f"The cluster's orch, in {', '.join(own.folders)}, is not that of the machine which submitted sweep "
            f"{parcel.sweep}: their files differ. Install the same orch on the cluster and on that machine."
        )
    environment = driver_environment(os.environ, parcel)
    command = [sys.executable, "-m", "orchestrator.cli.main", "drive", "--once"]
    return Supervisor(command, environment, parcel.sweep, say).run()


def drive(settings: Settings, display: Display, *, open_pool: OpenPool | None = None) -> SweepOutcome:
    """Drive the sweep in this job's parcel, once: plan it first if only the cluster could. Runs in the cluster.

    Raises:
        OrchError: the sweep cannot run; its subclasses say why.
    """
    parcel = _parcel()
    request = parcel.sweep_request()
    if request is not None:
        if settings.data_root is not None and not _is_folder(request.data_root):
            request = replace(request, data_root=str(settings.data_root.expanduser().resolve()))
        return run_sweep(settings, request, display, workers=parcel.workers, open_pool=open_pool)
    ledger = opening.open_or_create(settings)
    record = ledger.sweep(parcel.sweep)
    if record is None or record.run_id != parcel.run_id:
        raise StoreError(
            f"The cluster's tracking server {without_password(settings.store_uri)} is not the one that sweep "
            f"{parcel.sweep!r} was stored in. Set ORCH_TRACKING_URI alike where the cluster's head is started and on "
            "the submitting machine."
        )
    return resume_sweep(settings, parcel.sweep, display, workers=parcel.workers, open_pool=open_pool)


def _parcel() -> Parcel:
    if PARCEL not in os.environ:
        raise SpecError(f"{PARCEL} is not set. This command is started in a cluster by `orch submit`, not by hand.")
    return Parcel.unpacked(os.environ[PARCEL])


def _open_cluster(settings: Settings) -> RayJobs:
    """Connect to the cluster, after the checks of the settings that need no connection."""
    if settings.jobs_address is None:
        raise SpecError(
            "No cluster is named that could drive the sweep. Set ORCH_RAY_ADDRESS, such as head:6379, or from outside "
            "of the cluster the address of its dashboard, http://head:8265."
        )
    if settings.tracking_uri is None or settings.tracking_uri.startswith("sqlite"):
        raise SpecError(
            "A detached sweep needs a tracking server that the cluster reaches too. Set ORCH_TRACKING_URI, such as "
            "http://mlflow:5000."
        )
    return RayJobs(settings.jobs_address)


def _is_here(jobs: Iterable[JobSpec], data_root: str | None) -> bool:
    """Whether this machine has all files that a plan depends on."""
    weights = {job.weights.path for job in jobs if isinstance(job.weights, FileWeights)}
    needs_photographs = any(job.data.images == "photographs" for job in jobs)
    return all(Path(path).exists() for path in weights) and (not needs_photographs or _is_folder(data_root))


def _push_weights(settings: Settings, jobs: Iterable[JobSpec]) -> tuple[str, ...]:
    """Put the imported weights that this machine has into the object store. Returns a line for each file sent."""
    said: list[str] = []
    imported = [job for job in jobs if isinstance(job.weights, FileWeights) and Path(job.weights.path).is_file()]
    push_all_weights(settings, imported, said.append)
    return tuple(said)


def _is_folder(path: str | None) -> bool:
    return path is not None and Path(path).is_dir()


def _hand_over(
    settings: Settings, jobs: RayJobs, parcel: Parcel, stored: StoredPlan | None, again: Which, clock: Clock
) -> Submitted:
    """Store the plan, submit the parcel, and wait for the driver's first sign.

    Args:
        settings: name the store and the folders.
        jobs: the cluster.
        parcel: what to submit, without code, run and settings.
        stored: the plan; None if the driver plans.
        again: the ended jobs to run again.
        clock: limits the wait.
    """
    from workers.code_home import code_home

    name, now = parcel.sweep, clock.now()
    store.prepare_home(settings)
    ledger = opening.open_or_create(settings)
    prefix = submission_prefix(name, store.store_id(ledger.client, settings.store_uri))
    with Locks(settings.lock_dir).sweep(name, now):
        before = ledger.sweep(name)
        known = jobs.all()
        _refuse_driven(before, [one for one in known if one.is_alive and one.id.startswith(prefix)], name, now)
        if stored is not None:
            if before is None or before.plan is None:
                before = ledger.begin_sweep(stored, now)
            else:
                check_same_sweep(before.plan, stored.specs, f"orch resume {name} --detach")
    if stored is not None:
        put_back(settings, ledger, name, again, clock)
    settings_sent, kept = travelling(settings, os.environ)
    parcel = parcel.model_copy(
        update={
            "code": code_home().sha256,
            "run_id": before.run_id if before and stored is not None else "",
            "settings": settings_sent,
        }
    )
    submission = next_submission(prefix, (one.id for one in known))
    jobs.submit(submission, {PARCEL: parcel.packed()})
    lease, has_ended = _first_sign(jobs, submission, ledger, name, before.lease if before else None, clock)
    return Submitted(name, submission, jobs.address, lease, has_ended, stored is not None, kept)


def _refuse_driven(record: SweepRecord | None, alive: list[Submission], name: str, now: float) -> None:
    """Refuse a sweep that has a live driver, or a submission whose driver starts or is being started again."""
    if record is not None and is_driven(record, now):
        raise busy(name, record.lease)
    if alive:
        raise SweepBusy(
            f"Sweep {name!r} was submitted to the cluster as {alive[-1].id}, at {when(alive[-1].since)}, and its "
            f"driver is starting. Watch it with `orch status {name} --watch`, or stop it in order with "
            f"`orch pause {name}`."
        )


def _first_sign(
    jobs: RayJobs, submission: str, ledger: Ledger, name: str, before: Lease | None, clock: Clock
) -> tuple[Lease | None, bool]:
    """Wait until the driver has claimed the sweep, or has ended.

    Returns:
        Its claim, None if there is none yet; and whether it has ended.

    Raises:
        OrchError: it ended with an error, which this one repeats.
    """
    until = clock.now() + SIGN_SECONDS
    while clock.now() < until:
        try:
            record = ledger.sweep(name)
        except StoreUnreachable:
            record = None
        if record is not None and record.lease is not None and record.lease != before:
            return record.lease, False
        found = jobs.find(submission)
        if not found.is_alive:
            if found.exit_code == 0:
                return None, True
            raise _failure(found, jobs.end_of_log(submission), name)
        clock.sleep(LOOK_SECONDS)
    return None, False


def _failure(found: Submission, log: str, name: str) -> OrchError:
    """The error that the driver of a submission ended with, as its log tells it."""
    kind = _ERRORS.get(found.exit_code, ResourceError)
    _, is_told, told = log.rpartition("error: ")
    if is_told and found.exit_code in _ERRORS:
        return kind(f"In the cluster: {told.strip()}")
    end = "\n".join(f"  {line}" for line in (log or found.message).splitlines())
    return kind(
        f"The driver of sweep {name} did not start in the cluster (submission {found.id}, exit code "
        f"{found.exit_code}). The head needs orch on its PATH, the same as here. The end of its log:\n{end}"
    )
