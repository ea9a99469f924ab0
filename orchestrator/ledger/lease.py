"""A signed, expiring claim of a driver on its sweep."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from schemas.base import Stored

LEASE_SECONDS = 90.0
"""Three missed stamps of a driver that stamps every 30 s."""

SKEW_SECONDS = 600.0
"""How far another machine's clock may be ahead; a stamp from further in the future would never grow old."""


class Lease(Stored):
    """Who drives a sweep. Stamped again and again; a stale one means that its driver died."""

    host: str
    pid: int
    since: float
    sign_at: float

    def is_of(self, other: Lease) -> bool:
        """Whether both are locks of one and the same driver."""
        return (self.host, self.pid, self.since) == (other.host, other.pid, other.since)

    def is_alive(self, now: float, here: str, pid_exists: Callable[[int], bool]) -> bool:
        """Stamped lately, and on this machine its process is still there."""
        is_fresh = -SKEW_SECONDS <= now - self.sign_at <= LEASE_SECONDS
        return is_fresh and (self.host != here or pid_exists(self.pid))


def here() -> str:
    return socket.gethostname()


def pid_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
