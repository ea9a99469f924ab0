"""Keeps a command going when its standard streams are closed, broken, full, or cannot encode a character."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import Any

STREAMS = ("stdin", "stdout", "stderr")


class _Enduring(io.RawIOBase):
    """A raw stream that accepts everything. After the first failed write it drops the rest and keeps the error."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.error: OSError | None = None

    def write(self, data: Any, /) -> int | None:
        while self.error is None:
            try:
                if (written := self._raw.write(data)) is not None:
                    return written
                select.select([], [self._raw], [])  # another process has made the terminal or pipe non-blocking
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()


def endure() -> None:
    """Make the standard streams of this process safe to use, whatever they were when it started.

    A closed stream is replaced by the null device, under its own number too: the next file to be opened, such as
    the store, would otherwise get that number, and a child process would write its output there.
    Output that fails is dropped, so that an error on the terminal never ends the work. Characters that the
    encoding does not have are written as escapes. Streams without a file, such as a test's, are left alone.
    """
    _fill_numbers()
    for name in STREAMS:
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
        elif name != "stdin" and stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _enduring(stream))


def failure(name: str) -> OSError | None:
    """The error of the first write to a standard stream that failed; None if all succeeded."""
    raw = _raw_of(name)
    return raw.error if raw else None


def loss(name: str) -> str:
    """Why output of a standard stream is lost; empty if none is, or if only its reader ended before it."""
    with suppress(ValueError):  # a stream that is closed
        getattr(sys, name).flush()
    error = failure(name)
    is_told = error is not None and error.errno not in (errno.EPIPE, errno.EBADF)
    return (error.strerror or str(error)) if error and is_told else ""


def _raw_of(name: str) -> _Enduring | None:
    raw = getattr(getattr(getattr(sys, name), "buffer", None), "raw", None)
    return raw if isinstance(raw, _Enduring) else None


def _enduring(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    raw: Any = stream.buffer
    raw = getattr(raw, "raw", raw)  # an unbuffered Python has no buffer between
    return io.TextIOWrapper(
        io.BufferedWriter(_Enduring(raw)), stream.encoding, errors="backslashreplace",
        line_buffering=stream.line_buffering, write_through=stream.write_through,
    )  # fmt: skip


def _fill_numbers() -> None:
    """Open the null device until the numbers 0, 1 and 2 are taken."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
