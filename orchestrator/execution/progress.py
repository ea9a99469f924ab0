"""What a person sees while a sweep runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol, TextIO

from orchestrator.wording import in_words
from schemas.order import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

QUIET_SECONDS = 15.0
"""Between two plain lines that tell of progress only."""


class Now(NamedTuple):
    done: int
    total: int
    running: tuple[tuple[str, Progress | None], ...]
    """Title and newest word of each running job."""
    seconds_left: float | None


class Display(Protocol):
    def show(self, now: Now) -> None: ...

    def say(self, line: str) -> None: ...

    def close(self) -> None: ...


class Lines:
    """For logs and pipes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock
        self._last = clock()

    def show(self, now: Now) -> None:
        if self._clock() - self._last >= QUIET_SECONDS:
            running = "; ".join(describe(title, word) for title, word in now.running)
            self.say(f"[{now.done}/{now.total}] {running}{_left(now.seconds_left)}")

    def say(self, line: str) -> None:
        self._last = self._clock()
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        self._stream.flush()


class Bars:
    """For a terminal: one bar for the sweep, one line per running job, finished jobs scrolling by above.

    The bar starts when there is something to show, so that a refused sweep leaves the terminal as it was.
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
        self._bar.start()
        self._bar.update(self._sweep, total=now.total, completed=now.done, note=_left(now.seconds_left).strip(", "))
        while len(self._jobs) < len(now.running):
            self._jobs.append(self._bar.add_task("", total=None, note=""))
        for task in self._jobs[len(now.running) :]:
            self._bar.update(task, visible=False)
        for task, (title, word) in zip(self._jobs, now.running, strict=False):
            self._bar.update(
                task,
                visible=True,
                description=f"  {title}",
                total=word.epochs if word and word.epochs else None,
                completed=word.epoch if word else 0,
                note=word.phase if word else "starting",
            )

    def say(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


class Unbreakable:
    """A display whose terminal, pipe or file may go away: what is shown must not end what runs."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def show(self, now: Now) -> None:
        with suppress(OSError, ValueError):  # a closed stream is a ValueError
            self._display.show(now)

    def say(self, line: str) -> None:
        with suppress(OSError, ValueError):
            self._display.say(line)

    def close(self) -> None:
        with suppress(OSError, ValueError):
            self._display.close()


def open_display(clock: Callable[[], float]) -> Display:
    return Unbreakable(Bars() if sys.stderr.isatty() else Lines(sys.stderr, clock))


def describe(title: str, word: Progress | None) -> str:
    if word is None:
        return f"{title}: starting"
    return f"{title}: {word.phase}, epoch {word.epoch}/{word.epochs}"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f", about {in_words(seconds)} left"
