"""Whether the user has asked this process to stop, by Ctrl-C, SIGTERM or a closed terminal."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SIGHUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""Sent when the terminal closes; None on Windows, which has no such signal."""
ECHO_SECONDS = 1.0
"""Two SIGTERM within this time are one: who stops a job sends it to the supervisor and to the driver, and the
supervisor passes its own on."""


@dataclass
class StopRequest:
    """A flag that signals set. The first signal asks for an orderly stop; a second one raises KeyboardInterrupt."""

    asked: bool = False
    _on_terminal: list[int] = field(default_factory=list)
    _terminated_at: float = -math.inf

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals while the context is open. Does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        if SIGHUP is not None and signal.getsignal(SIGHUP) is not signal.SIG_IGN:  # `nohup` ignores it
            numbers.append(SIGHUP)
        self._on_terminal = [number for number in (1, 2) if os.isatty(number)]
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        if number == SIGHUP:
            self._detach_from_terminal()
        if number == signal.SIGTERM:
            before, self._terminated_at = self._terminated_at, time.monotonic()
            if self._terminated_at - before < ECHO_SECONDS:
                return
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def _detach_from_terminal(self) -> None:
        """Redirect output to /dev/null, because writing to a closed terminal raises an error."""
        null = os.open(os.devnull, os.O_WRONLY)
        for number in self._on_terminal:
            os.dup2(null, number)
        os.close(null)


def take_signals_back() -> None:
    """Install the handlers of this process again, below which a library written in C has put its own."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM, SIGHUP):
        if number is not None and (handler := signal.getsignal(number)) is not None:
            signal.signal(number, handler)
