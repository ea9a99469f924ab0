"""Shows progress while data are read: a bar on a terminal, otherwise a line per category."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.order import ReportProgress


@contextmanager
def progress() -> Iterator[ReportProgress]:
    """Yield a progress callback; a bar on a terminal disappears at the end."""
    if sys.stderr.isatty():
        with _bar() as advance:
            yield advance
    else:
        yield _line


def _line(what: str, done: int, total: int) -> None:
    if done == total:
        print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)


@contextmanager
def _bar() -> Iterator[ReportProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading annotations", total=None)
        now = ""

        def advance(what: str, done: int, total: int) -> None:
            nonlocal now
            if what != now:  # each category has a separate rate
                now = what
                bar.reset(task, description=what, total=total)
            bar.update(task, completed=done, total=total)

        yield advance
