"""The machines on which workers run, as a pool sees them, and a thread that looks at them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from orchestrator.execution.placement import Node, Room

LOOK_SECONDS = 1.0
"""Time between two looks."""
MOST_FAILURES = 2
"""After so many looks in a row that fail, Ray counts as gone; one may fail on a busy network."""
RAY_SILENT_SECONDS = 15.0
"""After so long without an answer, Ray counts as gone."""


class Look(NamedTuple):
    """The machines at one moment."""

    nodes: tuple[Node, ...] = ()
    places: Mapping[str, str] = {}
    """The node of each requested worker that Ray has given a place, by the worker's Ray id."""
    refused: tuple[Room, ...] | None = None
    """What was requested and Ray's autoscaler can add no machine for; None if no autoscaler tells."""


class Machines(Protocol):
    """A Ray: a private one of this machine, or a cluster. Every method may block for long, or for ever."""

    @property
    def is_private(self) -> bool:
        """Whether Ray was started for this sweep, on this machine alone."""

    def look(self, workers: Sequence[str]) -> Look:
        """Return the live nodes, and where those workers are.

        Args:
            workers: Ray's ids of requested workers.

        Raises:
            RayAway: Ray does not answer.
        """

    def join(self) -> None:
        """Start or join Ray again after it has gone.

        Raises:
            RayAway: The cluster does not answer; to be called again.
            ResourceError: It cannot be joined.
        """

    def end_of_worker_log(self) -> str:
        """Return the last lines that a worker logged, as a sentence."""


class Watch:
    """Looks at the machines every second, in a thread of its own, so that nobody waits for an answer."""

    def __init__(self, look: Callable[[Sequence[str]], Look]) -> None:
        self._look = look
        self._stopped = threading.Event()
        self._problem = ""
        self._began = time.monotonic()
        self.newest: Look | None = None
        """The last answer; None before the first."""
        self.seen_at = 0.0
        """When the look began that gave the last answer."""
        self.workers: tuple[str, ...] = ()
        """Ray's ids of the requested workers to look for."""
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="orch-watch", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        """Why Ray counts as gone; empty if it answers."""
        last = max(self.seen_at, self._began)
        if not self._problem and time.monotonic() - last > RAY_SILENT_SECONDS:
            return f"Ray has not answered for {RAY_SILENT_SECONDS:g} s."
        return self._problem

    def stop(self) -> None:
        """Stop looking; a look that hangs is not waited for."""
        self._stopped.set()
        self._thread.join(LOOK_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                found = self._look(self.workers)
            except Exception as error:  # noqa: BLE001 - of whichever kind: it means that Ray cannot be asked
                self._failures += 1
                if self._failures >= MOST_FAILURES:
                    self._problem = str(error) or type(error).__name__
            else:
                self.newest, self.seen_at, self._problem, self._failures = found, began, "", 0
            self._stopped.wait(LOOK_SECONDS)
