"""Calls that may hang, made in a thread that is left behind: Ray's library waits for ever for a head that is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Hung(Exception):
    """A call did not return in time."""


class Background(Generic[T]):
    """A call in a thread, whose result is asked for later. The thread does not keep the process alive."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="orch-in-time", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._error = error

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the call for up to `seconds`; return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> T:
        """Return what the ended call returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._result[0]


def within(seconds: float, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Make a call that may hang.

    Raises:
        Hung: It has not returned within `seconds`. It may still be running.
    """
    made = Background(lambda: call(*arguments, **named))
    if not made.wait(seconds):
        raise Hung(f"{getattr(call, '__name__', call)} has not returned within {seconds:g} s")
    return made.result()
