"""How the ledger's records are written as tags of runs, and read from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pydantic import ValidationError

from orchestrator.ledger.home import Relocation
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.records import JobName, JobRecord, JobRun, StoredPlan, SweepProgress, SweepRecord, Waiting
from schemas.errors import StoreError
from schemas.job import JobSpec, categories_label
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult

if TYPE_CHECKING:
    from mlflow.entities import Run

KEY_TAG, STATE_TAG, DRIVER_TAG = "orch.job_key", "orch.state", "orch.driven_by"
"""By which the run of a job is found; its state; which sweep drives it."""
KIND_TAG = "orch.kind"
"""Whether a run is that of a job or of a sweep."""
JOB_TAGS = (
    KEY_TAG, "orch.title", "orch.spec", "orch.sweep", STATE_TAG, "orch.last_sign_at", "orch.attempt",
    "orch.reason", "orch.result", DRIVER_TAG, "orch.threads",
)  # fmt: skip
STANDING_TAGS = (DRIVER_TAG, KEY_TAG, STATE_TAG)
"""What `LedgerReader.standings` reads of every job."""
STANDING_CONDITION = f"key IN ({', '.join(map(repr, STANDING_TAGS))})"
"""The same as an SQL condition, in the form for which SQLite uses the index."""
JOB_INDEX = "orch_job_key"
TAG_INDEXES = {
    JOB_INDEX: f"(value) WHERE key = '{KEY_TAG}'",
    "orch_kind": f"(value) WHERE key = '{KIND_TAG}'",
    "orch_standings": f"(key, run_uuid, value) WHERE {STANDING_CONDITION}",
}
"""Indexes of the embedded store's table of tags. MLflow has none of values: without the first two, a search for a job
or a sweep reads a tag of every job; without the third, the standings of all jobs are read from a page for each job."""
SWEEP_TAGS = (
    "orch.sweep",
    "orch.started_at",
    "orch.lease",
    "orch.plan_sha256",
    "orch.data_root",
    "orch.waiting",
    "orch.progress",
)
PLAN_TAG = "orch.plan_sha256"
"""The SHA-256 of a sweep's plan, which is written last (`plan_tags.py`)."""
WAITING_TAG = "orch.waiting"
"""Why jobs of the sweep have no worker."""
PROGRESS_TAG = "orch.progress"
"""How far the sweep is."""
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
            key=tags[KEY_TAG],
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


def sweep_record(
    run_id: str,
    tags: Mapping[str, str],
    read_plan: Callable[[], StoredPlan],
    read_names: Callable[[], tuple[JobName, ...]],
) -> SweepRecord:
    """Return the sweep of a run.

    Args:
        run_id: The run.
        tags: Its tags.
        read_plan: Reads the plan; called only if a tag says that it was written completely.
        read_names: Reads the names of its jobs; called as `read_plan` is.

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
            read_names=lambda: read_names() if PLAN_TAG in tags else (),
            lease=Lease.model_validate_json(lease) if lease else None,
            waiting=Waiting.model_validate_json(waiting) if (waiting := tags.get(WAITING_TAG)) else None,
            progress=_progress(tags.get(PROGRESS_TAG)),
        )
    except (KeyError, ValueError) as error:
        raise _unreadable(run_id, error) from error


def _progress(text: str | None) -> SweepProgress | None:
    """Return how far a sweep is; None if that cannot be read, because nothing depends on it."""
    try:
        return SweepProgress.model_validate_json(text) if text else None
    except ValidationError:
        return None


def progress_tag(progress: SweepProgress | None) -> str:
    """Return the tag that says how far a sweep is, with as many of its running jobs as fit."""
    if progress is None:
        return ""
    while len(text := progress.model_dump_json()) > TAG_LIMIT and progress.running:
        progress = progress.model_copy(update={"running": progress.running[:-1]})
    return text


def _unreadable(run_id: str, error: Exception) -> StoreError:
    return StoreError(
        f"Run {run_id} of the store was not written by this version of orch ({error!r}). "
        "Repair its tags or delete it in `orch ui`, or set ORCH_HOME to another store."
    )


def identity_tags(spec: JobSpec) -> dict[str, str]:
    """Return the tags by which people filter and sort in MLflow's UI."""
    return {
        "category": categories_label(spec.data.categories, spec.loss),
        "backbone": spec.model.backbone,
        "variant": spec.model.variant,
        "role": "pre-training" if spec.is_pretraining else "job",
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
    return JobRun(info.run_id, tags.get(KEY_TAG, ""), info.run_name or "", info.status, record, problem, never_began)


def record_of_run(run: Run, here: Relocation) -> JobRecord:
    """Return the job of an MLflow run; `here` as in `job_record`.

    Raises:
        StoreError: The tags are not those of a job.
    """
    return job_record(run.info.run_id, run.data.tags, here)
