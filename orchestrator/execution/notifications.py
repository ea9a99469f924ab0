"""Tells a person's command or web hook that a sweep has ended, was paused, or waits for machines."""

from __future__ import annotations

import shlex
import subprocess
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel

from orchestrator.execution.in_time import Hung, within
from orchestrator.execution.sweep_outcome import SweepOutcome
from orchestrator.planning.diff import PlanStatus
from orchestrator.wording import in_words

Event = Literal["done", "failed", "paused", "stopped", "waiting"]
SECONDS = 15.0
"""Longest time that a hook or a command may take."""
WAITS_SECONDS = 600.0
"""How long jobs have waited for machines when somebody is told."""

_ENDED = {status.value for status in (PlanStatus.DONE, PlanStatus.FAILED, PlanStatus.BLOCKED)}
_WORDS: dict[Event, str] = {
    "done": "is done",
    "failed": "has ended with failed jobs",
    "paused": "was paused, because its first jobs fail alike,",
    "stopped": "was stopped",
}


class Notification(BaseModel):
    """What is posted to a hook, or written to a command's standard input, as JSON. Slack and Mattermost show `text`."""

    text: str
    """A sentence for people."""
    event: Event
    """`done`: every job has succeeded. `failed`: some have not. `paused`: the first jobs failed alike. `stopped`: by a
    user or an error. `waiting`: jobs have waited long for machines; the sweep goes on."""
    sweep: str
    counts: dict[str, int] = {}
    """Jobs by status; empty while the sweep runs."""
    seconds: float = 0.0
    """Duration of this run of the sweep."""


def ended(outcome: SweepOutcome) -> Notification:
    """Return what to tell of a run of a sweep that has ended."""
    event: Event = "stopped"
    if outcome.is_complete:
        event = "done"
    elif outcome.paused_by:
        event = "paused"
    elif not outcome.interrupted and set(outcome.counts) <= _ENDED:
        event = "failed"
    counts = ", ".join(f"{number} {status}" for status, number in outcome.counts.items())
    parts = [f"Sweep {outcome.name} {_WORDS[event]} after {in_words(outcome.seconds)}: {counts}."]
    parts += [f"{outcome.paused_by}."] if outcome.paused_by else []
    return Notification(
        text=" ".join([*parts, *outcome.table.headlines[:1]]), event=event, sweep=outcome.name, counts=outcome.counts,
        seconds=round(outcome.seconds, 1),
    )  # fmt: skip


def send(target: str, notification: Notification) -> str:
    """Tell a hook or a command.

    Args:
        target: an http(s) address, to which the notification is posted; or a command, which gets the text as its last
            argument and the JSON on standard input.
        notification: what to tell.

    Returns:
        Why it could not be told, without the address, which is a secret; empty if it was.
    """
    if target.lower().startswith(("http://", "https://")):
        try:
            return within(SECONDS, _post, target, notification)
        except Hung:
            return f"the hook of ORCH_NOTIFY on {_host(target)} has not answered within {SECONDS:g} s"
    try:
        command = [*shlex.split(target), notification.text]
        done = subprocess.run(
            command, input=notification.model_dump_json(), text=True, capture_output=True, timeout=SECONDS
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"the command of ORCH_NOTIFY: {_reason(error)}"
    return f"the command of ORCH_NOTIFY returned exit code {done.returncode}" if done.returncode else ""


def _post(address: str, notification: Notification) -> str:
    import requests

    try:
        answer = requests.post(address, json=notification.model_dump(), timeout=SECONDS, allow_redirects=False)
    except (requests.RequestException, ValueError) as error:
        return f"the hook of ORCH_NOTIFY on {_host(address)}: {type(error).__name__}"
    return "" if answer.ok else f"the hook of ORCH_NOTIFY on {_host(address)} answered with status {answer.status_code}"


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or "an address without a host"
    except ValueError:
        return "an address that cannot be read"


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it has not ended within {SECONDS:g} s"
    return (isinstance(error, OSError) and error.strerror) or str(error)
