"""What a user sees while a sweep runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol, TextIO

from orchestrator.execution.estimate import Estimate
from orchestrator.wording import in_words
from schemas.order import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

QUIET_SECONDS = 15.0
"""Time between two plain lines that only report progress."""


class Now(NamedTuple):
    """The progress of a sweep."""

    done: int
    """Number of jobs that succeeded or failed."""
    total: int
    running: tuple[tuple[str, Progress | None], ...]
    """Title and last known progress of each running job."""
    left: Estimate | None
    """Time until all jobs are done; None while nothing is known."""


class Display(Protocol):
    """Where a sweep reports to the user."""

    def show(self, now: Now) -> None:
        """Show the progress. Called about once per second."""

    def say(self, line: str) -> None:
        """Print a line at once."""

    def close(self) -> None:
        """Leave the terminal as it was. Lines may still be printed afterwards."""


class Lines:
    """A display for logs and pipes: plain lines."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        """
        Args:
            stream: Where to print.
            clock: Returns the time in seconds.
        """
        self._stream, self._clock = stream, clock
        self._last = clock()

    def show(self, now: Now) -> None:
        """See `Display.show`."""
        if self._clock() - self._last >= QUIET_SECONDS:
            running = "; ".join(describe(title, progress) for title, progress in now.running)
            self.say(f"[{now.done}/{now.total}] {running}{_left(now.left)}")

    def say(self, line: str) -> None:
        """See `Display.say`."""
        self._last = self._clock()
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """See `Display.close`."""
        self._stream.flush()


class Bars:
    """A display for terminals: one bar for the sweep, one per running job, and lines that scroll above them.

    The bars start at the first progress, so that a refused sweep leaves the terminal as it was.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        self._bar: Bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._sweep = self._bar.add_task("jobs", total=None, note="")
        self._jobs: list[TaskID] = []

    def show(self, now: Now) -> None:
        """See `Display.show`."""
        self._bar.start()
        self._bar.update(self._sweep, total=now.total, completed=now.done, note=_left(now.left).strip(", "))
        while len(self._jobs) < len(now.running):
            self._jobs.append(self._bar.add_task("", total=None, note=""))
        for task in self._jobs[len(now.running) :]:
            self._bar.update(task, visible=False)
        for task, (title, progress) in zip(self._jobs, now.running, strict=False):
            self._bar.update(
                task,
                visible=True,
                description=f"  {title}",
                total=progress.epochs if progress and progress.epochs else None,
                completed=progress.epoch if progress else 0,
                note=progress.phase if progress else "starting",
            )

    def say(self, line: str) -> None:
        """See `Display.say`."""
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """See `Display.close`."""
        self._bar.stop()


class Unbreakable:
    """A display whose errors are ignored: a closed terminal or a full disk must not end the sweep."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def show(self, now: Now) -> None:
        """See `Display.show`."""
        with suppress(OSError, ValueError):  # ValueError: the stream is closed
            self._display.show(now)

    def say(self, line: str) -> None:
        """See `Display.say`."""
        with suppress(OSError, ValueError):
            self._display.say(line)

    def close(self) -> None:
        """See `Display.close`."""
        with suppress(OSError, ValueError):
            self._display.close()


def open_display(clock: Callable[[], float]) -> Display:
    """Return the display for standard error."""
    return Unbreakable(Bars() if sys.stderr.isatty() else Lines(sys.stderr, clock))


def describe(title: str, progress: Progress | None) -> str:
    """Return the line for a running job."""
    if progress is None:
        return f"{title}: starting"
    return f"{title}: {progress.phase}, epoch {progress.epoch}/{progress.epochs}"


def _left(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    low, high = in_words(estimate.low), in_words(estimate.high)
    if estimate.unknown:
        jobs = "1 job" if estimate.unknown == 1 else f"{estimate.unknown} jobs"
        return f", at least {low} left, and {jobs} of kinds that have not run long enough to tell"
    return f", about {low} left" if low == high else f", {low} to {high} left"
