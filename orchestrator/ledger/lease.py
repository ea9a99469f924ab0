"""The signed, expiring lease by which a driver holds its sweep."""

from __future__ import annotations

import socket
from collections.abc import Callable

from schemas.base import Stored

LEASE_SECONDS = 90.0
"""Age at which a lease expires: three missed signatures of a driver that signs every 30 s."""

SKEW_SECONDS = 600.0
"""Largest difference of clocks between machines. A signature from further in the future counts as expired, because it
would never grow old."""


class Lease(Stored):
    """Who drives a sweep. The driver renews the signature; an expired one means that the driver is dead."""

    host: str
    pid: int
    since: float
    """Unix seconds at which the driver started."""
    sign_at: float
    """Unix seconds of the last signature."""

    def is_of(self, other: Lease) -> bool:
        """Return whether both leases are of the same driver."""
        return (self.host, self.pid, self.since) == (other.host, other.pid, other.since)

    def is_alive(self, now: float, here: str, pid_exists: Callable[[int], bool]) -> bool:
        """Return whether the driver is alive: signed recently and, on this machine, still a running process.

        Args:
            now: Unix seconds.
            here: Name of this machine.
            pid_exists: Returns whether this machine has a process with a given number.
        """
        is_fresh = -SKEW_SECONDS <= now - self.sign_at <= LEASE_SECONDS
        return is_fresh and (self.host != here or pid_exists(self.pid))


def here() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def pid_exists(pid: int) -> bool:
    """Return whether this machine has a process with number `pid`, of any user."""
    import psutil

    return bool(psutil.pid_exists(pid))
