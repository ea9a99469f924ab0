"""How the ledger's records are written as tags of runs, and read from them."""

from __future__ import annotations

import hashlib
import lzma
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from itertools import count, takewhile
from typing import TYPE_CHECKING

from pydantic import ValidationError

from orchestrator.ledger.home import Relocation
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.packed_plan import pack, pack_names, unpack, unpack_names
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
PLAN_TAG, PLAN_PART = "orch.plan_sha256", "orch.plan."
"""The tag with the SHA-256 of a sweep's plan, and the start of the tags `orch.plan.0`, `orch.plan.1`, ... that hold the
plan: its JSON, compressed, in base64."""
NAMES_PART = "orch.names."
"""The start of the tags that hold the names of the plan's jobs in the same way, so that they are read without it.
10,000 jobs take about 20 of them. Plans of earlier versions of orch hold their names themselves."""
PLAN_FILE = "plan.json"
"""Where earlier versions of orch kept the plan: among the artifacts of the sweep's run, uncompressed."""
WAITING_TAG = "orch.waiting"
"""Why jobs of the sweep have no worker."""
PROGRESS_TAG = "orch.progress"
"""How far the sweep is."""
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


def plan_tags(plan: StoredPlan) -> dict[str, str]:
    """Return the tags that hold a plan. The last one, PLAN_TAG, says that the others were written completely."""
    content = pack(plan)
    return {
        **_parts(PLAN_PART, content),
        **_parts(NAMES_PART, pack_names(plan.names)),
        PLAN_TAG: hashlib.sha256(content).hexdigest(),
    }


def _parts(start: str, content: bytes) -> dict[str, str]:
    text = b64encode(lzma.compress(content, preset=2)).decode()
    parts = (text[at : at + TAG_LIMIT] for at in range(0, len(text), TAG_LIMIT))
    return {f"{start}{number}": part for number, part in enumerate(parts)}


def _joined(start: str, tags: Mapping[str, str]) -> bytes | None:
    """What `_parts` has written; nothing if it is damaged, None if there is no such tag."""
    parts = list(takewhile(bool, (tags.get(f"{start}{number}", "") for number in count())))
    try:
        return lzma.decompress(b64decode("".join(parts), validate=True)) if parts else None
    except (ValueError, lzma.LZMAError):
        return b""


def read_plan(
    tags: Mapping[str, str], here: Relocation, artifacts: str, read_file: Callable[[], bytes | None]
) -> StoredPlan:
    """Return a sweep's plan.

    Args:
        tags: The tags of the sweep's run; PLAN_TAG is one of them.
        here: Finds recorded paths.
        artifacts: The folder of the run's artifacts, for messages.
        read_file: Reads PLAN_FILE, or returns None if there is none; called if an earlier version of orch planned it.

    Raises:
        StoreError: The plan is gone, does not match its digest, or is of another version of orch.
    """
    where, name = f"the tags {PLAN_PART}0, ... of its run", tags["orch.sweep"]
    content = _joined(PLAN_PART, tags)
    if content is None:
        where, content = f"{artifacts}/{PLAN_FILE}", read_file()
    if content is None:
        raise _unusable_plan(name, where, "gone")
    if hashlib.sha256(content).hexdigest() != tags[PLAN_TAG]:
        raise _unusable_plan(name, where, "damaged")
    try:
        plan = unpack(content, here.fields)
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable_plan(name, where, "of another version of orch") from error
    root = (tags[ROOT_TAG] or None) if ROOT_TAG in tags else plan.data_root
    return plan.model_copy(update={"names": plan.names or read_names(tags), "data_root": here.fields(root)})


def read_names(tags: Mapping[str, str]) -> tuple[JobName, ...]:
    """Return the names of the jobs of a sweep's plan; none if only the plan has them.

    Args:
        tags: The tags of the sweep's run.

    Raises:
        StoreError: The names are damaged, or of another version of orch.
    """
    content = _joined(NAMES_PART, tags)
    if content is None:
        return ()
    try:
        return unpack_names(content)
    except ValueError as error:
        raise _unusable_plan(tags["orch.sweep"], f"the tags {NAMES_PART}0, ... of its run", "damaged") from error


def _unusable_plan(name: str, where: str, what: str) -> StoreError:
    return StoreError(
        f"The plan of sweep {name} ({where}) is {what}, so its jobs are unknown and it cannot be "
        "resumed. Restore it, or repeat the original `orch sweep` command with a new `--name`: finished jobs are "
        "reused."
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
