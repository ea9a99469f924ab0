"""Decides which nodes may get workers: none where workers do not start, and for a while none with a silent worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.execution.placement import Node, for_workers
from schemas.errors import ResourceError

AVOID_SECONDS = 10.0
"""How long a node with a silent worker is not used; it may answer again."""
MOST_STRIKES = 3
"""Number of workers that may fail to start on a node before it is not used any more."""


@dataclass
class UsableNodes:
    """What is known of the nodes from the workers that started, failed to start or fell silent there."""

    is_private: bool
    """Whether Ray is this sweep's own; its only node is given up at once if no worker has ever started."""
    _ruled_out: dict[str, str] = field(default_factory=dict)
    """Nodes that are not used any more, and why; "" for workers whose node was never known."""
    _strikes: Counter[str] = field(default_factory=Counter)
    _silent_until: dict[str, float] = field(default_factory=dict)
    """Nodes with a worker that did not answer, and when they are used again."""
    _has_begun: bool = False
    """Whether any worker has started."""

    def among(self, nodes: Sequence[Node]) -> dict[str, str]:
        """Return those of the nodes that are not ruled out: id -> host."""
        return {node.id: node.host for node in for_workers(nodes) if node.id not in self._ruled_out}

    def avoided(self, now: float) -> frozenset[str]:
        """Return the nodes where no worker is to be requested at a time, in seconds of `time.monotonic`."""
        silent = {node for node, until in self._silent_until.items() if now < until}
        return frozenset(self._ruled_out) - {""} | silent

    def note_start(self, node: str) -> None:
        """Note that a worker has started on a node."""
        self._has_begun = True
        self._strikes[node] = 0

    def note_silence(self, node: str, now: float) -> None:
        """Note that a worker on a node has lost its job because it did not answer."""
        self._silent_until[node] = now + AVOID_SECONDS

    def rule_out(self, node: str, why: str) -> None:
        """Use a node no more."""
        self._ruled_out[node] = why

    def strike(self, node: str, why: str, further: Callable[[], str]) -> None:
        """Note that a worker did not start on a node, and after some of them rule the node out.

        Args:
            node: the node; "" if it is not known.
            why: what happened.
            further: says more; asked only if the node is ruled out.
        """
        self._strikes[node] += 1
        if self._strikes[node] >= (1 if self.is_private and not self._has_begun else MOST_STRIKES):
            self.rule_out(node, f"{why.rstrip('.')}. {further()}")

    def check(self, nodes: Sequence[Node], workers: int) -> None:
        """Refuse to go on where no node is left.

        Args:
            nodes: all nodes.
            workers: number of workers that have started.

        Raises:
            ResourceError: every node has turned out not to be usable.
        """
        if workers:
            return
        if self._ruled_out and not self.among(nodes) and (nodes or self.is_private):
            raise ResourceError(f"No worker can start: {' '.join(dict.fromkeys(self._ruled_out.values()))}")
        if "" in self._ruled_out:  # whichever nodes they were
            raise ResourceError(f"No worker can start: {self._ruled_out['']}")
