"""Whether the user has asked this process to stop, and how signals ask it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class StopRequest:
    """Ctrl-C, SIGTERM and a closed terminal: the first asks for an orderly stop, a second one ends all at once."""

    asked: bool = False
    _on_terminal: list[int] = field(default_factory=list)

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` has it ignored
            numbers.append(signal.SIGHUP)
        self._on_terminal = [number for number in (1, 2) if os.isatty(number)]
        before = {number: signal.signal(number, self._hear) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            self._let_go_of_terminal()
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def _let_go_of_terminal(self) -> None:
        """It is closed, and writing to it would be an error in the middle of an orderly stop."""
        null = os.open(os.devnull, os.O_WRONLY)
        for number in self._on_terminal:
            os.dup2(null, number)
        os.close(null)
