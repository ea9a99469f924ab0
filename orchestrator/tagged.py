"""Reads the ledger's records from the tags of runs, whoever fetched them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from orchestrator.records import JobRecord, Lease, StoredPlan, SweepRecord
from schemas.errors import StoreError
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult

JOB_TAGS = (
    "orch.job_key", "orch.title", "orch.spec", "orch.sweep", "orch.state", "orch.last_sign_at", "orch.attempt",
    "orch.reason", "orch.result", "orch.driven_by", "orch.threads",
)  # fmt: skip
SWEEP_TAGS = ("orch.sweep", "orch.started_at", "orch.lease", "orch.plan_sha256", "orch.data_root")
PLAN_FILE, PLAN_TAG = "plan.json", "orch.plan_sha256"
"""A sweep's plan among its run's artifacts, and the tag that vouches for it."""
ROOT_TAG = "orch.data_root"
"""Where the photographs are now, if they moved since a sweep was planned."""


def has_begun(tags: Mapping[str, str]) -> bool:
    """Whether anything came of a job's or a sweep's run since it was created."""
    untouched = tags.get("orch.state", JobState.QUEUED) == JobState.QUEUED and int(tags.get("orch.threads", 0)) == 0
    return PLAN_TAG in tags or not untouched


def job_record(run_id: str, tags: Mapping[str, str]) -> JobRecord:
    """
    Raises:
        StoreError: the tags are not those of a job.
    """
    result = tags.get("orch.result")
    try:
        return JobRecord(
            key=tags["orch.job_key"],
            title=tags["orch.title"],
            spec_json=tags["orch.spec"],
            sweep=tags["orch.sweep"],
            state=JobState(tags["orch.state"]),
            last_sign_at=float(tags["orch.last_sign_at"]),
            attempt=int(tags["orch.attempt"]),
            stop_reason=StopReason(tags["orch.reason"]) if tags.get("orch.reason") else None,
            result=JobResult.model_validate_json(result) if result else None,
            run_id=run_id,
            driven_by=tags.get("orch.driven_by", ""),
            threads=int(tags.get("orch.threads", 0)),
        )
    except (KeyError, ValueError) as error:
        raise _unreadable(run_id, error) from error


def sweep_record(run_id: str, tags: Mapping[str, str], read_plan: Callable[[], StoredPlan]) -> SweepRecord:
    """
    Args:
        read_plan: fetches the plan; only called where a tag vouches for one.

    Raises:
        StoreError: the tags are not those of a sweep.
    """
    lease = tags.get("orch.lease")
    try:
        return SweepRecord(
            name=tags["orch.sweep"],
            run_id=run_id,
            started_at=float(tags["orch.started_at"]),
            read_plan=lambda: read_plan() if PLAN_TAG in tags else None,
            lease=Lease.model_validate_json(lease) if lease else None,
        )
    except (KeyError, ValueError) as error:
        raise _unreadable(run_id, error) from error


def _unreadable(run_id: str, error: Exception) -> StoreError:
    return StoreError(
        f"Run {run_id} of the store was not written by this version of orch ({error!r}). "
        "Mend its tags or delete it in `orch ui`, or set ORCH_HOME to another store."
    )


def read_plan(content: bytes, tags: Mapping[str, str], artifacts: str) -> StoredPlan:
    """
    Args:
        artifacts: where the plan's file lies.

    Raises:
        StoreError: it is not what the sweep's tag vouches for, or of another version.
    """
    name = tags["orch.sweep"]
    if hashlib.sha256(content).hexdigest() != tags[PLAN_TAG]:
        raise unusable_plan(name, artifacts, "damaged")
    try:
        plan = StoredPlan.model_validate_json(content)
    except ValidationError as error:
        raise unusable_plan(name, artifacts, "of another version of orch") from error
    return plan.model_copy(update={"data_root": tags[ROOT_TAG] or None}) if ROOT_TAG in tags else plan


def unusable_plan(name: str, artifacts: str, what: str) -> StoreError:
    return StoreError(
        f"The plan of sweep {name} ({artifacts}/{PLAN_FILE}) is {what}, so its jobs are not known and "
        f"`orch resume {name}` cannot go on. Put the file back, or type the `orch sweep` command that began it with a "
        "new `--name`: jobs that are done are not run again."
    )
