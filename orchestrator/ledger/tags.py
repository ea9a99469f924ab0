"""How the ledger's records are written as tags of runs, and read from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pydantic import ValidationError

from orchestrator.ledger.home import Relocation
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.records import JobRecord, JobRun, StoredPlan, SweepRecord
from schemas.errors import StoreError
from schemas.job import JobSpec, categories_label
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult

if TYPE_CHECKING:
    from mlflow.entities import Run

JOB_TAGS = (
    "orch.job_key", "orch.title", "orch.spec", "orch.sweep", "orch.state", "orch.last_sign_at", "orch.attempt",
    "orch.reason", "orch.result", "orch.driven_by", "orch.threads",
)  # fmt: skip
SWEEP_TAGS = ("orch.sweep", "orch.started_at", "orch.lease", "orch.plan_sha256", "orch.data_root")
PLAN_FILE, PLAN_TAG = "plan.json", "orch.plan_sha256"
"""A sweep's plan among the artifacts of its run, and the tag with the plan's SHA-256."""
ROOT_TAG = "orch.data_root"
"""The folder of the photographs, if it has changed since the sweep was planned."""
TAG_LIMIT = 8000
"""Characters of a tag. MLflow silently cuts longer ones."""
TRACEBACK_KEPT = 4000
"""Characters of a traceback that are kept in a result, if they fit."""


def has_begun(tags: Mapping[str, str]) -> bool:
    """Return whether a run of a job or sweep has changed since it was created: a job has run, a sweep has a plan."""
    untouched = tags.get("orch.state", JobState.QUEUED) == JobState.QUEUED and int(tags.get("orch.threads", 0)) == 0
    return PLAN_TAG in tags or not untouched


def job_record(run_id: str, tags: Mapping[str, str], here: Relocation) -> JobRecord:
    """Return the job of a run.

    Args:
        run_id: The run.
        tags: Its tags.
        here: Finds recorded paths.

    Raises:
        StoreError: The tags are not those of a job.
    """
    result = tags.get("orch.result")
    try:
        return JobRecord(
            key=tags["orch.job_key"],
            title=tags["orch.title"],
            spec_json=here.json(tags["orch.spec"]),
            sweep=tags["orch.sweep"],
            state=JobState(tags["orch.state"]),
            last_sign_at=float(tags["orch.last_sign_at"]),
            attempt=int(tags["orch.attempt"]),
            stop_reason=StopReason(tags["orch.reason"]) if tags["orch.reason"] else None,
            result=JobResult.model_validate_json(here.json(result)) if result else None,
            run_id=run_id,
            driven_by=tags["orch.driven_by"],
            threads=int(tags.get("orch.threads", 0)),
        )
    except (KeyError, ValueError) as error:
        raise _unreadable(run_id, error) from error


def sweep_record(run_id: str, tags: Mapping[str, str], read_plan: Callable[[], StoredPlan]) -> SweepRecord:
    """Return the sweep of a run.

    Args:
        run_id: The run.
        tags: Its tags.
        read_plan: Reads the plan; called only if a tag says that it was written completely.

    Raises:
        StoreError: The tags are not those of a sweep.
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
        "Repair its tags or delete it in `orch ui`, or set ORCH_HOME to another store."
    )


def read_plan(content: bytes, tags: Mapping[str, str], artifacts: str, here: Relocation) -> StoredPlan:
    """Return a sweep's plan.

    Args:
        content: The content of its file.
        tags: The tags of the sweep's run.
        artifacts: The folder of the file, for messages.
        here: Finds recorded paths.

    Raises:
        StoreError: The content does not match the digest in the tags, or is of another version of orch.
    """
    name = tags["orch.sweep"]
    if hashlib.sha256(content).hexdigest() != tags[PLAN_TAG]:
        raise unusable_plan(name, artifacts, "damaged")
    try:
        plan = StoredPlan.model_validate_json(content)
    except ValidationError as error:
        raise unusable_plan(name, artifacts, "of another version of orch") from error
    root = (tags[ROOT_TAG] or None) if ROOT_TAG in tags else plan.data_root
    return plan.model_copy(update={"jobs": tuple(map(here.fields, plan.jobs)), "data_root": here.fields(root)})


def unusable_plan(name: str, artifacts: str, what: str) -> StoreError:
    """Return the error for a plan that cannot be used.

    Args:
        name: Name of the sweep.
        artifacts: The folder of the plan's file.
        what: The plan's condition, such as `damaged`.
    """
    return StoreError(
        f"The plan of sweep {name} ({artifacts}/{PLAN_FILE}) is {what}, so its jobs are unknown and "
        f"`orch resume {name}` cannot continue. Restore the file, or repeat the original `orch sweep` command with a "
        "new `--name`: finished jobs are reused."
    )


def identity_tags(spec: JobSpec) -> dict[str, str]:
    """Return the tags by which people filter and sort in MLflow's UI."""
    return {
        "category": categories_label(spec.data.categories, spec.loss),
        "backbone": spec.model.backbone,
        "variant": spec.model.variant,
        "images": "generated animals" if spec.data.images == "generated" else "photographs",
    }


def state_tags(record: JobRecord) -> dict[str, str]:
    """Return the tags that a move writes.

    Raises:
        StoreError: The result does not fit into a tag.
    """
    tags = {
        "orch.state": record.state.value,
        "orch.reason": record.stop_reason.value if record.stop_reason else "",
        "orch.attempt": str(record.attempt),
        "orch.last_sign_at": repr(record.last_sign_at),
        "orch.driven_by": record.driven_by,
        "orch.failure": record.failure[:500],
    }
    if record.result is not None:
        tags["orch.result"] = fitting(shortened(record.result).model_dump_json(), f"The result of {record.title}")
    return tags


def shortened(result: JobResult) -> JobResult:
    """Return the result with its failure cut so that it fits into a tag: to the start of the message and the end of the
    traceback."""
    failure, kept = result.failure, TRACEBACK_KEPT
    if failure is None:
        return result
    while True:  # JSON escapes one character with up to six
        shorter = failure.model_copy(
            update={
                "kind": failure.kind[:100],
                "message": failure.message[: kept // 2],
                "traceback": failure.traceback[max(len(failure.traceback) - kept, 0) :],
            }
        )
        result = result.model_copy(update={"failure": shorter})
        if not kept or len(result.model_dump_json()) <= TAG_LIMIT:
            return result
        kept //= 2


def fitting(text: str, what: str) -> str:
    """Return `text` if it fits into a tag.

    Args:
        text: The value of the tag.
        what: Its name for the message.

    Raises:
        StoreError: It is too long.
    """
    if len(text) > TAG_LIMIT:
        raise StoreError(
            f"{what} takes {len(text)} characters, but a tag of the store holds {TAG_LIMIT}. Use fewer values."
        )
    return text


def job_run(run: Run, here: Relocation) -> JobRun:
    """Return an MLflow run as a job's run, with the problem if its tags cannot be read; `here` as in `job_record`."""
    tags, info = run.data.tags, run.info
    try:
        record, problem = job_record(info.run_id, tags, here), ""
    except StoreError as error:
        record, problem = None, str(error)
    never_began = not has_begun(tags)
    return JobRun(
        info.run_id, tags.get("orch.job_key", ""), info.run_name or "", info.status, record, problem, never_began
    )


def record_of_run(run: Run, here: Relocation) -> JobRecord:
    """Return the job of an MLflow run; `here` as in `job_record`.

    Raises:
        StoreError: The tags are not those of a job.
    """
    return job_record(run.info.run_id, run.data.tags, here)
