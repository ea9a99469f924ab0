"""What the recovery commands print: tables and sentences for people, and the shapes of their `--json`.

orch why --json             WhyJson
orch logs --json            LogJson
orch requeue --json         RequeuedJson
orch pause, cancel --json   ControlJson
orch fsck --json            FsckJson
orch gc --json              GarbageJson
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import LISTED, JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.execution.control import Controlled
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.records import JobRecord, Waiting
from orchestrator.planning.diff import PlanStatus
from orchestrator.recovery.diagnosis import Cause
from orchestrator.recovery.garbage import Waste
from orchestrator.recovery.logs import LogText
from orchestrator.recovery.rules import Repair
from orchestrator.services.recovery import FsckResult, Requeued, Why
from schemas.lifecycle import JobState, StopReason


def requeue_text(done: Requeued, resume: str) -> RenderableType:
    """The jobs that were put back, and the command that runs them from this machine."""
    lines = [f"  {job.key}  {job.title} ({job.stop_reason})" for job in done.jobs[:LISTED]]
    if len(done.jobs) > LISTED:
        lines.append(f"  ... and {len(done.jobs) - LISTED} more")
    one = len(done.jobs) == 1
    starts = "It starts" if one else "They start"
    how = "from scratch" if done.from_scratch else "from the last checkpoint, if any,"
    head = f"sweep {done.sweep}: {_jobs(len(done.jobs))} put back. {starts} {how} with: {resume}"
    return Text("\n".join([head, *lines]))


class RequeuedJobJson(JsonModel):
    """One job that was put back."""

    key: str
    title: str
    stop_reason: StopReason | None


class RequeuedJson(JsonModel):
    """The answer of `orch requeue --json`."""

    sweep: str
    from_scratch: bool
    jobs: list[RequeuedJobJson]


def control_text(done: Controlled, resume: str) -> RenderableType:
    """What became of a request to pause or cancel, and the command that continues the sweep from this machine."""
    return Text("\n".join(_control_lines(done, resume)))


def _control_lines(done: Controlled, resume: str) -> list[str]:
    what = f"{done.job} of sweep {done.sweep}" if done.job else f"sweep {done.sweep}"
    verb, does = ("cancelled", "cancels") if done.kind == "cancel" else ("paused", "pauses")
    if done.driver or done.heard:
        who = f"process {done.driver.pid} on {done.driver.host}" if done.driver else "its driver"
        if not done.heard:
            return [f"{who} has the request, but has not answered yet; it {does} {what} when it reads it. "
                    f"See: orch status {done.sweep}"]  # fmt: skip
        return [f"{who} {does} {what}: running jobs save a checkpoint and end. See: orch status {done.sweep}",
                *_afterwards(done, resume)]  # fmt: skip
    if done.kind == "pause":
        state = "every job is done." if not done.left else (
            f"{_jobs(done.left)} left. To run the rest: {resume}")  # fmt: skip
        return [f"{what} has no driver, so there is nothing to pause: {state}"]
    if not done.changed:
        return [f"{what} has nothing to cancel: {_why_not(done)}."]
    lines = [f"{what}: {_jobs(len(done.changed))} {verb}: {_few(done.changed)}."] if not done.job else [
        f"{what} is {verb}."]  # fmt: skip
    if done.never_begun:
        lines.append(f"{_jobs(done.never_begun)} not started, and will not start.")
    return [*lines, *_afterwards(done, resume)]


def _why_not(done: Controlled) -> str:
    if done.running_elsewhere:
        return f"another sweep's driver runs {_few(done.running_elsewhere)}; cancel the job there"
    if done.never_begun:
        return f"{_jobs(done.never_begun)} not started, and the sweep has no driver"
    if done.found is not None:
        return "it is cancelled already" if done.found is JobState.CANCELLED else f"it has {done.found}"
    return "every started job has ended" if done.left else "every job is done"


def _afterwards(done: Controlled, resume: str) -> list[str]:
    if done.job:
        return [f"To put it back: orch requeue {done.sweep} --cancelled"]
    return [f"Go on with: {resume}"]


def _jobs(number: int) -> str:
    return "1 job is" if number == 1 else f"{number} jobs are"


def _few(titles: Sequence[str]) -> str:
    return ", ".join(titles[:4]) + (f" and {len(titles) - 4} more" if len(titles) > 4 else "")


class ControlJson(JsonModel):
    """The answer of `orch pause --json` and `orch cancel --json`."""

    sweep: str
    kind: Literal["pause", "cancel"]
    job: str | None
    """Title of the job that was named; null for the whole sweep."""
    driver: Lease | None
    """Process that drove the sweep; null if none did."""
    heard: bool
    """True if the driver has taken up the request."""
    changed: list[str]
    """Titles of the jobs that this command cancelled itself."""
    running_elsewhere: list[str]
    """Titles of jobs that another sweep's driver runs."""
    never_begun: int
    left: int
    """Jobs of the sweep that have not succeeded."""


def why_text(found: Why, resume: str) -> RenderableType:
    """The causes, each with its jobs, the end of a log and the next command, for this machine."""
    waits: list[RenderableType] = [Text(found.waiting.reason)] if found.waiting else []
    if not found.causes:
        return Group(*waits, Text(_nothing_wrong(found, resume)))
    parts: list[RenderableType] = [*waits, Text("")] if waits else []
    for cause, tail in found.causes:
        parts += [*_cause_lines(cause, found, tail, resume), Text("")]
    if waiting := _waiting(found):
        return Group(*parts, Text(f"{waiting} more not started yet."))
    return Group(*parts[:-1])


def _waiting(found: Why) -> int:
    return sum(job.status in (PlanStatus.NEW, PlanStatus.CHANGED) for job in found.jobs)


def _nothing_wrong(found: Why, resume: str) -> str:
    what = found.job or f"sweep {found.sweep}"
    if not found.jobs:
        return f"{what} was stopped before it was planned. Repeat its `orch sweep` command."
    waiting = _waiting(found)
    running = sum(job.status is PlanStatus.RUNNING for job in found.jobs)
    if waiting or running:
        after = "" if found.is_driven else f" To run the rest: {resume}"
        return f"{what}: no failures; {running} running, {waiting} not started.{after}"
    return f"{what}: no failures, every job is done."


def _head(cause: Cause) -> str:
    number = len(cause.jobs)
    plural = "job" if number == 1 else "jobs"
    mark = f", fingerprint {cause.fingerprint}" if cause.fingerprint else ""
    if cause.status is PlanStatus.INTERRUPTED and cause.fingerprint:
        return f"{number} {plural} put back or stopped: {cause.reason}{mark}"
    if cause.status is not PlanStatus.FAILED:
        return f"{number} {plural} {cause.status}: {cause.message.strip()}"
    tries = "1 attempt" if cause.attempts == 1 else f"{cause.attempts} attempts"
    return f"{number} {plural} failed in {tries}: {cause.reason or 'unknown reason'}{mark}"


def _cause_lines(cause: Cause, found: Why, tail: str, resume: str) -> list[RenderableType]:
    style = "bold red" if cause.status is PlanStatus.FAILED else "bold yellow"
    lines: list[RenderableType] = [Text(_head(cause), style=style)]
    if cause.fingerprint or cause.status is PlanStatus.FAILED:
        lines += [Text(f"  {line}") for line in f"{cause.kind}: {cause.message.strip()}".splitlines()]
    lines += [
        Text(f"  {job.spec.key}  {job.spec.title}, attempt {job.record.attempt if job.record else 0}")
        for job in cause.jobs[:LISTED]
    ]
    if len(cause.jobs) > LISTED:
        lines.append(Text(f"  ... and {len(cause.jobs) - LISTED} more"))
    if tail and (cause.fingerprint or cause.status is PlanStatus.FAILED):
        lines.append(Text(f"  end of the log of {cause.jobs[0].spec.key}:", style="dim"))
        lines += [Text(f"    {line}", style="dim") for line in tail.splitlines()]
    lines.append(Text(f"  next: {cause.advice(found.sweep, found.is_driven, resume)}"))
    return lines


class CauseJobJson(JsonModel):
    """One of the jobs with the same cause."""

    key: str
    title: str
    attempt: int


class CauseJson(JsonModel):
    """One cause for which jobs have not succeeded."""

    status: PlanStatus
    reason: StopReason | None
    fingerprint: str | None
    """Equal for failures at the same place in the code."""
    kind: str
    """Class of the exception, or the status."""
    message: str
    attempts: int
    jobs: list[CauseJobJson]
    log: str
    """Last lines of the log of the first job."""
    next: str
    """What to type next."""


class WhyJson(JsonModel):
    """The answer of `orch why --json`."""

    sweep: str
    job: str | None
    """Title of the job that was named; null for the whole sweep."""
    waiting: Waiting | None = None
    """Why some jobs of the sweep have no worker; null if none waits for a machine."""
    causes: list[CauseJson]

    @classmethod
    def of_why(cls, found: Why, resume: str) -> Self:
        """Convert the answer of the service."""
        causes = [
            CauseJson(
                status=cause.status,
                reason=cause.reason,
                fingerprint=cause.fingerprint or None,
                kind=cause.kind,
                message=cause.message,
                attempts=cause.attempts,
                jobs=[
                    CauseJobJson(
                        key=job.spec.key, title=job.spec.title, attempt=job.record.attempt if job.record else 0
                    )
                    for job in cause.jobs
                ],
                log=tail,
                next=cause.advice(found.sweep, found.is_driven, resume),
            )
            for cause, tail in found.causes
        ]
        return cls(sweep=found.sweep, job=found.job, waiting=found.waiting, causes=causes)


class LogJson(JsonModel):
    """The answer of `orch logs --json`."""

    key: str
    title: str
    attempt: int
    attempts: list[int]
    """Attempts that left a log."""
    path: str
    lines: list[str]

    @classmethod
    def of_log(cls, record: JobRecord, log: LogText) -> Self:
        """Convert the answer of the service."""
        return cls(
            key=record.key,
            title=record.title,
            attempt=log.attempt,
            attempts=list(log.attempts),
            path=log.path,
            lines=log.text.splitlines(),
        )


def fsck_text(report: FsckResult, resume: Callable[[str], str]) -> RenderableType:
    """A table of what does not hold, and what was done or is left to do about it.

    Args:
        resume: returns the command that continues a sweep from this machine.
    """
    if not report.found:
        return Text("No problems found.")
    rows = PlainTable("rule", "where", "found", "repaired" if report.repaired else "to do")
    for one in report.found:
        finding = one.finding
        can = finding.advice or ("`orch fsck --repair`" if finding.repair is not Repair.NOTHING else "")
        rows.add_row(*(Text(cell) for cell in (finding.rule, finding.where, finding.what, one.done or can)))
    sweeps = sorted({one.finding.run.record.driven_by for one in report.found if one.is_requeued
                    and one.finding.run and one.finding.run.record})  # fmt: skip
    return Group(rows, *(Text(f"To run the requeued jobs: {resume(sweep)}") for sweep in sweeps))


class FindingJson(JsonModel):
    """One thing that does not hold."""

    rule: str
    where: str
    what: str
    can_be_repaired: bool
    repaired: str | None
    """What was done about it."""


class FsckJson(JsonModel):
    """The answer of `orch fsck --json`."""

    clean: bool
    findings: list[FindingJson]

    @classmethod
    def of_result(cls, result: FsckResult) -> Self:
        """Convert the answer of the service."""
        findings = [
            FindingJson(
                rule=one.finding.rule,
                where=one.finding.where,
                what=one.finding.what,
                can_be_repaired=one.finding.repair is not Repair.NOTHING,
                repaired=one.done or None,
            )
            for one in result.found
        ]
        return cls(clean=not result.left, findings=findings)


def gc_text(waste: Sequence[Waste], dry_run: bool) -> RenderableType:
    """A table of the unused folders and files, and their size together."""
    if not waste:
        return Text("Nothing to delete.")
    rows = PlainTable("what", "where", "size", numbers=("size",))
    for one in waste:
        rows.add_row(one.what, str(one.path), _size(one.size))
    total = _size(sum(one.size for one in waste))
    places = "1 place" if len(waste) == 1 else f"{len(waste)} places"
    end = f"{total} in {places}; `orch gc` without --dry-run deletes them." if dry_run else f"{total} deleted."
    return Group(rows, Text(end))


class WasteJson(JsonModel):
    """One folder or file that nothing needs."""

    what: str
    path: Path | str
    bytes: int


class GarbageJson(JsonModel):
    """The answer of `orch gc --json`."""

    deleted: bool
    bytes: int
    """Size of all folders together."""
    found: list[WasteJson]

    @classmethod
    def of_waste(cls, waste: Sequence[Waste], dry_run: bool) -> Self:
        """Convert the answer of the service."""
        found = [WasteJson(what=one.what, path=one.path, bytes=one.size) for one in waste]
        return cls(deleted=not dry_run, bytes=sum(one.size for one in waste), found=found)


def _size(size: int) -> str:
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size} B"
