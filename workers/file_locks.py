"""Locks on files that several processes of a machine make or use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from schemas.order import ReportPhase

if sys.platform != "win32":
    import fcntl

_WAIT_SECONDS = 1.0
"""Seconds between two reports of a job that waits for another one."""


def lock_file(file: BinaryIO, *, shared: bool) -> None:
    """Lock an open file until it is closed. A shared lock is waited for, an exclusive one is not.

    Raises:
        BlockingIOError: another process holds the file.
    """
    if sys.platform != "win32":  # where a file that is mapped cannot be removed anyway
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_of(path: Path) -> Path:
    """Return the lock file of whoever makes a file or folder."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def alone(path: Path, work: str, report: ReportPhase) -> Iterator[None]:
    """Be the only process that makes a file or folder, for as long as the block runs.

    Args:
        path: what is made; its folder exists.
        work: what another process may be doing, such as `prepares pictures`.
        report: receives the phase while another process holds the lock; an error that it raises ends the wait.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_of(path))
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_WAIT_SECONDS)
        except Timeout:
            report(f"waiting for another job that {work}")
    try:
        yield
    finally:
        lock.release()
