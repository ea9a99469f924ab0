"""Which machines lack which data sets and weights files, as their workers have found, until data sets are pushed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.execution.in_time import Background
from orchestrator.settings import Settings
from schemas.errors import StoreError, WeightsAbsent
from schemas.job import FileWeights, JobSpec, TorchvisionWeights
from schemas.results import Failure

AGAIN_SECONDS = 300.0
"""After so long a machine that lacked something is tried again."""
LOOK_SECONDS = 5.0
"""Time between two looks at what was pushed, while no machine has the data that jobs need."""

ReadPushed = Callable[[str], str]
"""Returns what names the pushed copy of a data set; empty if there is none. May raise StoreError."""


class Input(NamedTuple):
    """What a job reads on its machine: data sets, or a weights file."""

    data_sets: frozenset[str] = frozenset()
    weights: str = ""
    """Path of the weights file, or where it is from."""


@dataclass
class Absence:
    """What one driver knows; a machine that joins again is a new one."""

    _until: dict[tuple[Input, str], float] = field(default_factory=dict)
    """When a machine is tried again, by what it lacks and node."""

    def note(self, job: JobSpec, failure: Failure | None, node: str, now: float) -> None:
        """Note that a node lacks what a job needs, as its failure says."""
        if node:
            lacks_weights = failure is not None and failure.kind == WeightsAbsent.__name__
            self._until = {place: until for place, until in self._until.items() if now < until}
            self._until[_weights(job) if lacks_weights else _data(job), node] = now + AGAIN_SECONDS

    def avoided(self, job: JobSpec, now: float) -> frozenset[str]:
        """Return the nodes that lack what a job needs."""
        if not self._until:  # as nearly always, and asked for every waiting job at every turn
            return frozenset()
        needed = (_data(job), _weights(job))
        return frozenset(node for (one, node), until in self._until.items() if one in needed and now < until)

    def is_known(self, now: float) -> bool:
        """Return whether any node was found to lack anything."""
        return any(now < until for until in self._until.values())

    def nowhere(self, jobs: Collection[JobSpec], nodes: Collection[str], now: float) -> frozenset[Input]:
        """Return what no node has of what jobs need; empty if for each job there is a node to try.

        Args:
            jobs: The jobs that wait.
            nodes: The live nodes.
            now: Unix seconds.
        """
        if not self._until:
            return frozenset()
        stuck = [job for job in jobs if nodes and self.avoided(job, now) >= set(nodes)]
        lacked = {one for (one, node), until in self._until.items() if node in nodes and now < until}
        return frozenset(one for job in stuck for one in (_data(job), _weights(job)) if one in lacked)

    def forget(self, names: Collection[str]) -> None:
        """Try every machine again for the jobs that need one of these data sets."""
        self._until = {place: until for place, until in self._until.items() if place[0].data_sets.isdisjoint(names)}


def data_sets_among(inputs: Collection[Input]) -> tuple[str, ...]:
    """Return the names of the data sets among what jobs take, sorted."""
    return tuple(sorted(frozenset().union(*(one.data_sets for one in inputs))))


def sentence(lacked: Collection[Input], jobs: Collection[JobSpec]) -> str:
    """Return that jobs wait for what no node has, and what to do.

    Args:
        lacked: See `Absence.nowhere`.
        jobs: The jobs that wait.
    """
    waiting = sum(_data(job) in lacked or _weights(job) in lacked for job in jobs)
    found = []
    if names := data_sets_among(lacked):
        found.append(f"no machine has the data set {', '.join(names)}. Run: orch data push {' '.join(names)}")
    if files := sorted(one.weights for one in lacked if one.weights):
        found.append(
            f"no machine has the weights file {', '.join(files)}. Pause the sweep, and resume it on a machine that has "
            "the file, with ORCH_OBJECT_STORE set: that pushes it"
        )
    return f"{'1 job waits' if waiting == 1 else f'{waiting} jobs wait'}: {'; '.join(found)}"


def read_pushed(settings: Settings, name: str) -> str:
    """Return what names the copy of a data set that was pushed to the object store; empty if there is none.

    Args:
        settings: Names the object store.
        name: Of the data set.

    Raises:
        StoreError: The store cannot be read now.
    """
    if settings.object_store is None:
        return ""
    from workers.data.pushed.pulling import read_head  # not at the start of every sweep
    from workers.objects.base import open_objects

    head = read_head(open_objects(settings.object_store), name)
    return "" if head is None else f"{head.description} {head.pushed_at}"


@dataclass
class Pushes:
    """Looks now and then whether data sets were pushed, in a thread, so that nobody waits for the store."""

    read: ReadPushed
    _seen: dict[str, str] = field(default_factory=dict)
    _look: Background[dict[str, str]] | None = None
    _next: float = 0.0
    """When to look next, Unix seconds."""

    def news(self, names: Collection[str], now: float) -> frozenset[str]:
        """Return the data sets with a pushed copy that an earlier call did not return. Never waits for the store.

        Args:
            names: Of the data sets.
            now: Unix seconds.
        """
        if self._look is None:
            if now >= self._next:
                self._look = Background(lambda: {name: self._read(name) for name in names})
            return frozenset()
        if not self._look.wait(0):
            return frozenset()
        found, self._look, self._next = self._look.result(), None, now + LOOK_SECONDS
        new = frozenset(name for name, copy in found.items() if copy and copy != self._seen.get(name))
        self._seen |= {name: copy for name, copy in found.items() if copy}
        return new

    def _read(self, name: str) -> str:
        try:
            return self.read(name)
        except StoreError:  # asked again at the next look
            return ""


def _data(job: JobSpec) -> Input:
    return Input(data_sets=frozenset(category.partition("/")[0] for category in job.data.categories))


def _weights(job: JobSpec) -> Input:
    if isinstance(job.weights, FileWeights):
        return Input(weights=job.weights.path)
    return Input(
        weights=f"of torchvision for {job.model.backbone}" if isinstance(job.weights, TorchvisionWeights) else ""
    )
