"""Which workers to request, which of them no job needs, and which job goes to which. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from schemas.sweep import Needs

_CLOSE = 1e-6
"""Fractions of a GPU do not add up exactly."""


class Room(NamedTuple):
    """Resources of a machine."""

    cpus: float
    gpus: float
    memory_gb: float

    def holds(self, needs: Needs) -> bool:
        """Return whether a worker fits."""
        wanted = (needs.cpus, needs.gpus or 0.0, needs.memory_gb)
        return all(have + _CLOSE >= want for have, want in zip(self, wanted, strict=True))

    def without(self, needs: Needs) -> Room:
        """Return what a worker leaves."""
        return Room(self.cpus - needs.cpus, self.gpus - (needs.gpus or 0.0), self.memory_gb - needs.memory_gb)


class Node(NamedTuple):
    """A live machine of the cluster."""

    id: str
    host: str
    total: Room
    free: Room
    drains: bool = False
    """Whether it is to leave soon."""


class Wish(NamedTuple):
    """A worker that a job could use now."""

    needs: Needs
    avoid: frozenset[str] = frozenset()
    """Ids of nodes on which the job cannot run."""
    shape: str = ""
    """What the jobs of its pack have in common; empty for a job that trains alone. See `schemas.packs.pack_shape`."""


class Idle(NamedTuple):
    """A worker that has answered and has no job, or has room in its pack for one more."""

    worker: int
    needs: Needs
    node: str
    shape: str = ""
    """What the jobs of its pack have in common; empty if it has no job."""


class Asked(NamedTuple):
    """A worker that was requested and has not answered."""

    worker: int
    wish: Wish
    has_place: bool
    """Whether Ray has given it resources of a machine."""


class Decision(NamedTuple):
    """What to change so that the workers are those that the jobs could use."""

    request: tuple[Wish, ...]
    spare: frozenset[int]
    """Workers without a job that no job could use."""
    unmet: tuple[Wish, ...]
    """Jobs for which there is no worker, and no room for one now."""
    is_short: bool = False
    """Whether a job gets no worker now, so that others are in its way."""


def serves(idle: Idle, wish: Wish) -> bool:
    """Return whether an idle worker can take a job."""
    return idle.needs == wish.needs and idle.node not in wish.avoid and idle.shape in ("", wish.shape)


def assign(wishes: Mapping[str, Wish], idle: Iterable[Idle]) -> list[tuple[str, Idle]]:
    """Return which job goes to which idle worker: in the order of the jobs, each to the first worker that serves it.

    A job that trains alone and finds none keeps later jobs from one pack, so that its process becomes free.
    """
    left, found = list(idle), []
    for key, wish in wishes.items():
        if not left:
            break
        worker = next((one for one in left if serves(one, wish)), None)
        if worker is not None:
            left.remove(worker)
            found.append((key, worker))
        elif not wish.shape:
            left = _without_first_pack(left, wish)
    return found


def _without_first_pack(idle: list[Idle], wish: Wish) -> list[Idle]:
    packs = [one for one in idle if one.shape and serves(one._replace(shape=""), wish)]
    return [one for one in idle if one is not packs[0]] if packs else idle


def decide(
    wishes: Sequence[Wish], idle: Sequence[Idle], asked: Sequence[Asked], nodes: Iterable[Node], left: int, ahead: int
) -> Decision:
    """Return which workers to request and which are spare.

    Args:
        wishes: One for each job that could run now, in the order of the jobs.
        idle: Workers without a job.
        asked: Workers that have not answered.
        nodes: The machines of the cluster.
        left: How many more workers there may be.
        ahead: How many workers may wait for resources that no machine has free.
    """
    free = {node.id: node.free for node in nodes if not node.drains}
    queued = {one.worker for one in asked if not one.has_place and not _take(free, one.wish)}
    spare_idle, spare_asked = list(idle), list(asked)
    request: list[Wish] = []
    unmet: list[Wish] = []
    is_short = False
    for wish in wishes:
        ready = next((one for one in spare_idle if serves(one, wish)), None)
        coming = next((one for one in spare_asked if _may_serve(one, wish)), None)
        if ready is not None:
            spare_idle.remove(ready)
        elif coming is not None:
            spare_asked.remove(coming)
            if coming.worker in queued:
                unmet.append(wish)
        elif len(request) >= left:
            is_short = True
            if not spare_idle and not spare_asked:
                break  # further jobs change nothing
        else:
            if not _take(free, wish):
                unmet.append(wish)
                if ahead <= len(queued):
                    continue
                queued.add(-1 - len(request))  # it will wait for room, like those that were asked
            request.append(wish)
    spare = frozenset([one.worker for one in spare_idle] + [one.worker for one in spare_asked])
    return Decision(tuple(request), spare, tuple(unmet), is_short or bool(unmet))


def has_place(
    wish: Wish, others: Sequence[Wish], idle: Sequence[Idle], asked: Sequence[Asked], nodes: Iterable[Node], left: int
) -> bool:
    """Return whether the job of a worker that is given up could run now besides all those that wait.

    See `decide` for the arguments; `left` still counts the worker that is given up.
    """
    return not decide([*others, wish], idle, asked, nodes, left + 1, ahead=0).is_short


def _may_serve(asked: Asked, wish: Wish) -> bool:
    """Return whether a worker will serve a job; one without a place must not avoid a machine that would do."""
    avoids = asked.wish.avoid >= wish.avoid if asked.has_place else asked.wish.avoid == wish.avoid
    return avoids and asked.wish.needs == wish.needs


def _take(free: dict[str, Room], wish: Wish) -> bool:
    """Take a worker's resources from the first node that has them free. Returns False if none has."""
    for node, room in free.items():
        if node not in wish.avoid and room.holds(wish.needs):
            free[node] = room.without(wish.needs)
            return True
    return False


def misfits(needs: Iterable[Needs], nodes: Collection[Node]) -> list[Needs]:
    """Return the needs that no machine meets even if it is idle."""
    return [need for need in needs if not any(node.total.holds(need) for node in nodes)]


def is_refused(needs: Needs, refused: Iterable[Room]) -> bool:
    """Return whether the autoscaler has said that it can add no machine for a worker of these needs.

    Args:
        needs: What the worker takes; its GPUs are known.
        refused: The requests of which the autoscaler has said so.
    """
    wanted = (needs.cpus, needs.gpus or 0.0, needs.memory_gb)
    return any(all(abs(a - b) <= _CLOSE for a, b in zip(room, wanted, strict=True)) for room in refused)


def for_workers(nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes that have cores for workers; a head often has none."""
    return [node for node in nodes if node.total.cpus > 0]


def described(needs: Needs) -> str:
    """Return what a worker takes, in words."""
    return _amounts(needs.cpus, needs.gpus or 0.0, needs.memory_gb)


def kinds(nodes: Iterable[Node]) -> str:
    """Return the kinds of machines and how many there are of each, in words."""
    counted = Counter(Room(node.total.cpus, node.total.gpus, round(node.total.memory_gb, 1)) for node in nodes)
    return "; ".join(
        f"{number} {'machine' if number == 1 else 'machines'} of {_amounts(*room)}"
        for room, number in sorted(counted.items())
    )


def _amounts(cpus: float, gpus: float, memory_gb: float) -> str:
    shown = [f"{cpus:g} {'CPU' if cpus == 1 else 'CPUs'}", f"{memory_gb:g} GB"]
    if gpus:
        shown.insert(1, f"{gpus:g} {'GPU' if gpus <= 1 else 'GPUs'}")
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def why_waiting(unmet: Collection[Wish], nodes: Iterable[Node], refused: Collection[Room] = ()) -> str:
    """Return why jobs have no worker, in a sentence.

    Args:
        unmet: The jobs; at least one.
        nodes: The machines of the cluster.
        refused: The requests for which the autoscaler can add no machine.
    """
    jobs = "1 job waits" if len(unmet) == 1 else f"{len(unmet)} jobs wait"
    machines = for_workers(nodes)
    if not machines:
        waits = f"{jobs}: the cluster has no machine for workers. One that joins is used at once."
        if hopeless := [needs for needs in {wish.needs for wish in unmet} if is_refused(needs, refused)]:
            worker = " or ".join(described(needs) for needs in sorted(hopeless, key=str))
            return f"{waits} Its autoscaler can add none for a worker of {worker}."
        return waits
    if too_large := misfits({wish.needs for wish in unmet}, machines):
        worker = " or ".join(described(needs) for needs in sorted(too_large, key=str))
        return f"{jobs}: no machine is large enough for a worker of {worker}. The cluster has {kinds(machines)}."
    return f"{jobs}: the machines that would do are in use. The cluster has {kinds(machines)}."
