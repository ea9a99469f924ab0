"""The result of one check, and how a check that hangs or fails becomes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.execution.in_time import Hung, within
from schemas.errors import OrchError, ResourceError, StoreError
from workers.tracking.access import without_password

CHECK_SECONDS = 15.0
"""Longest time that one check may take."""
STORE, RESOURCES = StoreError.exit_code, ResourceError.exit_code
CLOCK_WARNING, CLOCK_BAD = 10.0, 300.0
"""Seconds between two clocks from which there is a warning, and from which leases and signatures stop working."""


class Level(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    """A sweep runs, but perhaps not as intended."""
    BAD = "bad"
    """A sweep that needs this fails."""


@dataclass(frozen=True)
class Checked:
    """The result of one check."""

    subject: str
    """What was checked, such as `tracking server`, or `node` and its name."""
    level: Level
    text: str
    """What was found, or what is wrong and what to type."""
    exit_code: int = 0
    """Of a command that fails because of it; 0 unless the level is BAD."""


def ok(subject: str, text: str) -> Checked:
    """Return the result of a check that found nothing wrong."""
    return Checked(subject, Level.OK, text)


def warning(subject: str, text: str) -> Checked:
    """Return a result that does not stop a sweep."""
    return Checked(subject, Level.WARNING, text)


def bad(subject: str, text: str, exit_code: int = STORE) -> Checked:
    """Return a result that stops a sweep."""
    return Checked(subject, Level.BAD, without_password(text), exit_code)


def failed(subject: str, error: Exception) -> Checked:
    """Return the result of a check that was ended by an error."""
    if isinstance(error, OrchError):
        return bad(subject, str(error), error.exit_code)
    lines = str(error).strip().splitlines() or ["no message"]
    return bad(subject, f"{type(error).__name__}: {lines[0]}")


def bounded(
    subject: str, check: Callable[[], Iterable[Checked]], hint: str, seconds: float = CHECK_SECONDS
) -> list[Checked]:
    """Carry out a check that may hang, in a thread that is left behind if it does.

    Args:
        subject: what is checked.
        check: returns its results.
        hint: what to do if it does not end.
        seconds: longest time to wait.
    """
    try:
        return within(seconds, lambda: list(check()))
    except Hung:
        return [bad(subject, f"no answer within {seconds:.0f} s. {hint}")]
    except Exception as error:  # noqa: BLE001 - every error is the result of a check
        return [failed(subject, error)]


def compare_clocks(subject: str, other: float, here: float) -> Checked:
    """Return the result of a comparison of two clocks.

    Args:
        subject: whose clock the other one is.
        other: its Unix seconds.
        here: those of this machine at that moment.
    """
    apart = other - here
    text = f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this machine"
    advice = "Set both by NTP (`timedatectl set-ntp true`)."
    if abs(apart) >= CLOCK_BAD:
        return bad(f"clock of {subject}", f"{text}. {advice}")
    if abs(apart) >= CLOCK_WARNING:
        return warning(f"clock of {subject}", f"{text}. {advice}")
    return ok(f"clock of {subject}", "agrees with this machine's")
