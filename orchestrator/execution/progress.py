"""What a user sees while a sweep runs: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol, TextIO

from orchestrator.execution.estimate import Estimate
from orchestrator.execution.job_matrix import Cell, draw_matrix
from orchestrator.wording import in_words, range_text, when
from schemas.order import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

QUIET_SECONDS = 15.0
"""Time between two plain lines that only report progress."""
BAR = 20
"""Most columns of the bar that shows which part of the jobs has ended."""


class Now(NamedTuple):
    """The progress of a sweep."""

    done: int
    """Number of jobs that succeeded or failed."""
    total: int
    running: tuple[tuple[str, Progress | None], ...]
    """Title and last known progress of each running job."""
    left: Estimate | None
    """Time until all jobs are done; None while nothing is known."""
    waiting: str = ""
    """Why jobs have no worker, which was said already; empty if none waits for a machine."""
    cells: tuple[Cell, ...] = ()
    """The jobs in the matrix of categories and networks."""
    failures: Mapping[str, int] = MappingProxyType({})
    """Number of failed jobs by cause."""
    epoch_seconds: Mapping[str, float] = MappingProxyType({})
    """Mean seconds per epoch of running jobs, by title, where they are known."""


class Display(Protocol):
    """Where a sweep reports to the user."""

    def show(self, now: Now) -> None:
        """Show the progress. Called about once per second."""

    def say(self, line: str) -> None:
        """Print a line at once."""

    def close(self) -> None:
        """Leave the terminal as it was. Lines may still be printed afterwards."""


class Lines:
    """A display for logs and pipes: plain lines, each with the time."""

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
        if now.waiting and not now.running:
            return  # the reason was printed when the wait began
        if self._clock() - self._last >= QUIET_SECONDS:
            running = "; ".join(
                describe(title, progress, now.epoch_seconds.get(title)) for title, progress in now.running
            )
            self.say(f"[{now.done}/{now.total}] {running or 'workers are starting'}{_left(now.left)}")

    def say(self, line: str) -> None:
        """See `Display.say`."""
        self._last = self._clock()
        print(f"{when(time.time())} {line}", file=self._stream, flush=True)

    def close(self) -> None:
        """See `Display.close`."""
        self._stream.flush()


class Live:
    """A display for terminals: a picture of the sweep that is redrawn below the lines that scroll.

    It starts at the first progress, so that a refused sweep leaves the terminal as it was.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as Redrawn

        self._console = Console(stderr=True)
        self._redrawn = Redrawn(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")

    def show(self, now: Now) -> None:
        """See `Display.show`."""
        self._redrawn.start()
        self._redrawn.update(picture(now, self._console.width, self._console.height - 1), refresh=True)

    def say(self, line: str) -> None:
        """See `Display.say`."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """See `Display.close`."""
        self._redrawn.stop()


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
    draws = sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
    return Unbreakable(Live() if draws else Lines(sys.stderr, clock))


def picture(now: Now, width: int, height: int) -> RenderableType:
    """Draw the progress of a sweep: how far it is, its jobs as a matrix, what runs, and what failed why.

    Args:
        now: the progress.
        width: columns of the terminal.
        height: most lines.
    """
    from rich.console import Group
    from rich.text import Text

    share = now.done / now.total if now.total else 1.0
    columns = min(BAR, width // 4)
    bar = "#" * round(columns * share)
    head = Text(f"[{bar:<{columns}}] {now.done}/{now.total} jobs{_left(now.left)}")
    lines = [head, *([Text(now.waiting, style="yellow")] if now.waiting else [])]
    running = [_running_line(title, progress, now.epoch_seconds.get(title), width) for title, progress in now.running]
    most = max(1, min(len(running), height // 4))
    tail = running[:most] + ([Text(f"  and {len(running) - most} more", style="dim")] if len(running) > most else [])
    if now.failures:
        causes = ", ".join(f"{cause.replace('_', ' ')} ({number})" for cause, number in now.failures.items())
        tail.append(Text(f"failed: {causes}", style="red"))
    for line in (*lines, *tail):
        line.truncate(width, overflow="ellipsis")
    matrix = draw_matrix(now.cells, width, height - len(lines) - len(tail))
    return Group(*lines, *matrix, *tail)


def _running_line(title: str, progress: Progress | None, epoch_seconds: float | None, width: int) -> Text:
    """A running job; its name is cut rather than its numbers."""
    from rich.text import Text

    note = describe_phase(progress, epoch_seconds)
    name = Text(f"  {title}", style="cyan")
    name.truncate(max(8, width - len(note) - 2), overflow="ellipsis")
    return name.append(f"  {note}", style="default")


def describe(title: str, progress: Progress | None, epoch_seconds: float | None) -> str:
    """Return the line for a running job."""
    return f"{title}: {describe_phase(progress, epoch_seconds)}"


def describe_phase(progress: Progress | None, epoch_seconds: float | None) -> str:
    """Return what a running job does, in training with its epoch and rate."""
    if progress is None:
        return "starting"
    if progress.phase != "training" or not progress.epochs:
        return progress.phase
    rate = f", {epoch_seconds:.1f} s an epoch" if epoch_seconds is not None else ""
    return f"training {progress.epoch}/{progress.epochs}{rate}"


def _left(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.unknown:
        jobs = "1 job" if estimate.unknown == 1 else f"{estimate.unknown} jobs"
        least = in_words(estimate.low)
        return f", at least {least} left, and {jobs} of kinds that have not run long enough to tell"
    return f", {range_text(estimate.low, estimate.high)} left"
