"""Repeats a small task beside a job in a thread, which neither delays nor fails the job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from schemas.errors import Superseded
from workers.tracking.job_log import UPLOADING_THREAD

SHARE = 0.1
"""Largest share of the time spent on the task: a slow store gets longer pauses."""
END_SECONDS = 5.0
"""Longest time to wait for a task that has begun when the job ends."""


@contextmanager
def repeating(task: Callable[[], None], *, first: float, pause: float) -> Iterator[None]:
    """Repeat a task in the background within the context, until it raises Superseded.

    Args:
        task: raises nothing else; the job itself finds out that it was superseded, and ends.
        first: seconds before the task is done for the first time.
        pause: shortest time between two times, in seconds.
    """
    has_ended = threading.Event()
    thread = threading.Thread(target=_repeat, args=(task, has_ended, first, pause), name=UPLOADING_THREAD, daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join(END_SECONDS)  # so that nothing older arrives after what the job logs at its end


def _repeat(task: Callable[[], None], has_ended: threading.Event, first: float, pause: float) -> None:
    wait = first
    while not has_ended.wait(wait):
        began = time.monotonic()
        try:
            task()
        except Superseded:
            return
        wait = max(pause, (time.monotonic() - began) * (1 / SHARE - 1))
