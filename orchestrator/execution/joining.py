"""Joins a Ray, and joins it again when it has gone, while the sweep goes on answering requests."""

from __future__ import annotations

import time
from dataclasses import dataclass

from orchestrator.execution.in_time import Background
from orchestrator.execution.machines import Machines
from orchestrator.execution.stop_request import take_signals_back
from orchestrator.wording import in_words
from schemas.errors import ResourceError

JOIN_SECONDS = 5.0
"""Time between two attempts to join a cluster that does not answer."""


@dataclass
class Joining:
    """How a pool stands with its Ray: joined, being joined, or waited for after it has gone."""

    machines: Machines
    patience: float
    """Seconds for which a cluster that does not answer is waited for."""
    away: str = ""
    """Why Ray does not answer, and what is done about it; empty if it answers."""
    _away_since: float | None = None
    _call: Background[None] | None = None
    """The attempt to join that is under way."""
    _next_at: float = 0.0
    """When to make the next one."""
    _has_joined: bool = False
    """Whether Ray was ever joined."""

    def begin(self) -> None:
        """Begin to join in the background."""
        self._call = Background(self.machines.join)

    def note_joined(self) -> None:
        """Note that Ray answers."""
        self._has_joined, self._away_since, self.away = True, None, ""

    def lose(self, problem: str) -> ResourceError:
        """Note that Ray has gone. Returns the error with which the attempts end that it was running."""
        waits = (
            "It is started again"
            if self.machines.is_private
            else f"It is waited for, for up to {in_words(self.patience)}"
        )
        self._away_since, self.away = time.monotonic(), f"{problem.rstrip('.')}. {waits}."
        return ResourceError(self.away)

    def wait(self, seconds: float) -> bool:
        """Wait for the attempt to join, or for the time of the next one. Returns whether Ray is joined.

        Raises:
            ResourceError: It cannot be joined, or not within the patience.
        """
        if self._call is None:
            time.sleep(min(seconds, 0.2))
            if time.monotonic() >= self._next_at:
                self.begin()
            return False
        if not self._call.wait(min(seconds, 0.5)):
            self._check_patience(self.away or "Ray does not answer.", None)
            return False
        call, self._call = self._call, None
        try:
            call.result()
        except ResourceError as error:
            if not self._has_joined:  # never seen: most likely a wrong address
                raise  # else also a new head that this machine's node has not joined yet is waited for
            self._next_at = time.monotonic() + JOIN_SECONDS
            self._check_patience(str(error), error)
            return False
        take_signals_back()
        return True

    def _check_patience(self, problem: str, error: Exception | None) -> None:
        if self._away_since is not None and time.monotonic() - self._away_since >= self.patience:
            raise ResourceError(f"{problem} It was waited for {in_words(self.patience)}.") from error
