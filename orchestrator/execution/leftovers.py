"""Which jobs have their newest checkpoint on the disk of one machine alone, and may wait for that machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.lifecycle import StopReason
from schemas.results import JobResult

PREFER_SECONDS = 30.0
"""How long such a job waits for a worker on its machine before it goes on elsewhere, from an earlier checkpoint."""

_UPLOADED_NOTHING = frozenset({StopReason.STORE_UNREACHABLE, StopReason.WORKER_LOST, StopReason.NODE_LOST})
"""Reasons after which an earlier attempt's checkpoint may still be the newest, on its machine alone."""


@dataclass
class Leftovers:
    """What one driver knows of checkpoints that could not be uploaded, because the object store was away."""

    _hosts: dict[str, str] = field(default_factory=dict)
    """Name of the machine by job key."""
    _since: dict[str, float] = field(default_factory=dict)
    """When each job waited for the first time, Unix seconds."""

    def note(self, result: JobResult | None) -> None:
        """Note how the last attempt of a job ended; None if nobody knows."""
        if result is not None:
            self._since.pop(result.job_key, None)
            if result.left_on:
                self._hosts[result.job_key] = result.left_on
            elif result.stop_reason not in _UPLOADED_NOTHING:
                self._hosts.pop(result.job_key, None)

    @property
    def is_known(self) -> bool:
        """Whether any job has its newest checkpoint on one machine alone."""
        return bool(self._hosts)

    def others(self, key: str, nodes: Mapping[str, str], now: float) -> frozenset[str]:
        """Return the nodes on which a job is not to go on yet; none if its machine is away or has kept it waiting.

        Args:
            key: Of the job.
            nodes: Name of the machine by live node.
            now: Unix seconds.
        """
        host = self._hosts.get(key)
        if host is None or host not in nodes.values():
            return frozenset()
        if now - self._since.setdefault(key, now) > PREFER_SECONDS:
            return frozenset()
        return frozenset(node for node, name in nodes.items() if name != host)
