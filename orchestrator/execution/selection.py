"""Which jobs of a sweep the options and words of a command select. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from orchestrator.execution.retry_policy import REASONS
from orchestrator.ledger.records import JobRecord, StoredPlan
from orchestrator.planning.request import find_backbone
from schemas.base import did_you_mean
from schemas.categories import find_categories
from schemas.errors import SpecError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason

_PUNCTUATION = str.maketrans("(),", "   ")
_HELD = (JobState.QUEUED, JobState.RUNNING)
LISTED, LISTED_JOBS = 4, 12
"""Most titles that a summary lists, and most jobs that an error lists."""


@dataclass(frozen=True)
class Which:
    """A filter of failed and cancelled jobs. An empty set does not filter."""

    failed: bool = False
    cancelled: bool = False
    cancelled_with_sweep: bool = False
    """Select jobs that were cancelled with their whole sweep."""
    reasons: frozenset[StopReason] = frozenset()
    categories: frozenset[str] = frozenset()
    backbones: frozenset[str] = frozenset()

    def fits(self, record: JobRecord) -> bool:
        """Return whether a job's state and stop reason pass the filter."""
        if record.state is JobState.FAILED:
            fits = self.failed
        elif record.state is JobState.CANCELLED:
            with_sweep = record.stop_reason is StopReason.SWEEP_CANCELLED
            fits = self.cancelled or (self.cancelled_with_sweep and with_sweep)
        else:
            return False
        return fits and (not self.reasons or record.stop_reason in self.reasons)


def parse_which(
    *, failed: bool, cancelled: bool, reasons: Collection[str], categories: Collection[str], backbones: Collection[str]
) -> Which:
    """Return the filter that the options of `orch requeue` describe.

    Args:
        failed: Select failed jobs.
        cancelled: Select cancelled jobs.
        reasons: Names of stop reasons.
        categories: Names of categories or groups of categories.
        backbones: Names of backbones.

    Raises:
        SpecError: Neither failed nor cancelled jobs are selected, or a name is unknown.
    """
    if not failed and not cancelled:
        raise SpecError("No jobs are selected. Give `--failed`, `--cancelled`, or both.")
    return Which(
        failed=failed,
        cancelled=cancelled,
        reasons=frozenset(StopReason(_known(word, REASONS, "reason")) for word in reasons),
        categories=frozenset(category.id for word in categories for category in find_categories(word)),
        backbones=frozenset(find_backbone(word) for word in backbones),
    )


def _known(word: str, names: Collection[str], what: str) -> str:
    if word not in names:
        raise SpecError(f"No {what} is called {word!r}. {did_you_mean(word, names)}")
    return word


def pick(plan: StoredPlan, records: Mapping[str, JobRecord], which: Which) -> list[JobRecord]:
    """Return the failed and cancelled jobs that a filter selects, each with its upstream job, which it needs.

    Args:
        plan: The sweep.
        records: Its jobs in the ledger, by key.
        which: The filter.
    """
    keys: dict[str, None] = {}
    for spec in plan.specs:
        if _is_selected(spec, which, upstream_only=spec.key in plan.upstream_keys):
            keys |= dict.fromkeys([spec.upstream.key, spec.key] if spec.upstream else [spec.key])
    return [records[key] for key in keys if key in records and which.fits(records[key])]


def _is_selected(spec: JobSpec, which: Which, upstream_only: bool) -> bool:
    if upstream_only and (which.categories or which.backbones):
        return False
    in_category = not which.categories or bool(which.categories & set(spec.data.categories))
    return in_category and (not which.backbones or spec.model.backbone in which.backbones)


def what_there_is(plan: StoredPlan, records: Mapping[str, JobRecord]) -> str:
    """Return a sentence that lists the sweep's failed and cancelled jobs by reason.

    Args:
        plan: The sweep.
        records: Its jobs in the ledger, by key.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for spec in plan.specs:
        record = records.get(spec.key)
        if record is not None and record.state in (JobState.FAILED, JobState.CANCELLED):
            groups.setdefault((record.state.value, str(record.stop_reason)), []).append(record.title)
    if not groups:
        return "None of its jobs failed or was cancelled."
    parts = [f"{len(titles)} {state} ({why}): {_few(titles)}" for (state, why), titles in groups.items()]
    return f"There are {'; '.join(parts)}."


def _few(titles: list[str]) -> str:
    return ", ".join(titles[:LISTED]) + (", ..." if len(titles) > LISTED else "")


def can_be_cancelled(record: JobRecord, sweep: str, driver_is_alive: Callable[[str], bool]) -> bool:
    """Return whether a job has not ended and is not held by the driver of another sweep.

    Args:
        record: The job.
        sweep: Name of the sweep that wants to cancel it.
        driver_is_alive: Returns whether the sweep with a given name has a live driver.
    """
    if record.state.has_ended:
        return False
    return record.state not in _HELD or record.driven_by == sweep or not driver_is_alive(record.driven_by)


def find_jobs(word: str, titles: Iterable[tuple[str, str]]) -> list[str]:
    """Return the keys of the jobs that a word selects: by the start of the key, else by the title, else by its words.

    Args:
        word: What the user typed; upper and lower case are the same.
        titles: Key and title of each job.
    """
    jobs, wanted = list(titles), word.strip().lower()
    return (
        [key for key, _ in jobs if wanted and key.startswith(wanted)]
        or [key for key, title in jobs if title.lower() == wanted]
        or [key for key, title in jobs if wanted and set(wanted.split()) <= _words(title)]
    )


def _words(title: str) -> set[str]:
    """Return the words of a title, and of `voc-cat` also `cat`."""
    words = title.lower().translate(_PUNCTUATION).split()
    return {*words, *title.lower().split(), *(word.partition("-")[2] for word in words)}


def one_job(wanted: str, jobs: Mapping[str, tuple[str, str]]) -> str:
    """Return the key of the one job that fits.

    Args:
        wanted: What the user typed.
        jobs: Title and sweep of each job, by key.

    Raises:
        SpecError: No job fits, or several do; the message lists them.
    """
    found = find_jobs(wanted, [(key, title) for key, (title, _) in jobs.items()])
    if not found:
        near = get_close_matches(wanted, dict.fromkeys(title for title, _ in jobs.values()), n=1, cutoff=0.5)
        advice = f"Did you mean {near[0]!r}? " if near else "" if jobs else "None has begun yet. "
        raise SpecError(f"No job fits {wanted!r}. {advice}`orch status SWEEP` lists keys and titles.")
    if len(found) > 1:
        listed = "".join(f"\n  {key}  {jobs[key][0]} ({jobs[key][1]})" for key in found[:LISTED_JOBS])
        more = f"\n  ... and {len(found) - LISTED_JOBS} more" if len(found) > LISTED_JOBS else ""
        raise SpecError(f"{wanted!r} fits {len(found)} jobs:{listed}{more}\nGive the key.")
    return found[0]
