"""Keeps the driver of a detached sweep alive: starts it again when it dies, never when it has ended in order."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from schemas.errors import Interrupted, SweepBusy

DEFECT = 70
"""Exit code of an error that no one expected."""
RESTARTS = 5
"""How often a driver that keeps dying is started again."""
FIRST_WAIT = 1.0
"""Seconds before the first new start; the next waits are twice as long each."""
LASTING_SECONDS = 600.0
"""A driver that has run for so long proves that it can: its death counts as the first one."""


def is_orderly(code: int) -> bool:
    """Return whether a driver that ended with this exit code has said all there is to say: done, refused or stopped."""
    return 0 <= code <= SweepBusy.exit_code or code == Interrupted.exit_code


@dataclass(frozen=True)
class Deaths:
    """How often in a row the driver has died."""

    number: int = 0

    def after(self, code: int, lived: float) -> Deaths | None:
        """Return the deaths after another one; None if the driver is not to be started again.

        Args:
            code: The driver's exit code, negative for a signal.
            lived: Seconds that it ran.
        """
        if is_orderly(code):
            return None
        now = Deaths(1 if lived >= LASTING_SECONDS else self.number + 1)
        return now if now.number <= RESTARTS else None

    @property
    def wait(self) -> float:
        """Seconds before the next start."""
        return float(FIRST_WAIT * 2 ** (self.number - 1))


@dataclass
class Supervisor:
    """Runs one command until it ends in order."""

    command: Sequence[str]
    environment: Mapping[str, str]
    sweep: str
    say: Callable[[str], None]
    _child: subprocess.Popen[bytes] | None = None
    _is_asked: bool = field(default=False)

    def run(self) -> int:
        """Run the driver, and start it again while it dies.

        Returns:
            Its last exit code; 128 and the signal's number if a signal ended it.
        """
        deaths = Deaths()
        with self._forwarding():
            while True:
                began = time.monotonic()
                code = self._run_once()
                after = None if self._is_asked else deaths.after(code, time.monotonic() - began)
                if after is None:
                    if not is_orderly(code) and not self._is_asked:
                        self.say(
                            f"The driver {_how(code)} once more, after {RESTARTS} new starts in a row, so it is not "
                            f"started again. Once the cause is removed, run: orch resume {self.sweep} --detach"
                        )
                    return code if code >= 0 else 128 - code
                deaths = after
                self.say(
                    f"The driver {_how(code)}. It is started again in {deaths.wait:.0f} s "
                    f"({deaths.number} of {RESTARTS}); jobs go on from their checkpoints."
                )
                self._wait(deaths.wait)
                if self._is_asked:
                    return Interrupted.exit_code

    def _run_once(self) -> int:
        self._child = subprocess.Popen(self.command, env=dict(self.environment))
        if self._is_asked:  # between two drivers
            self._child.send_signal(signal.SIGTERM)
        return self._child.wait()

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_asked and time.monotonic() < until:
            time.sleep(0.1)

    @contextmanager
    def _forwarding(self) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._forward) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _forward(self, number: int, frame: object) -> None:
        self._is_asked = True
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)


def _how(code: int) -> str:
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"
