"""The workers of a pool as Ray actors, and calls into Ray that do not wait for one that has gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.execution.in_time import Background, Hung, within
from orchestrator.execution.placement import Idle, Wish
from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkerFacts, WorkOrder
from schemas.packs import pack_shape
from schemas.sweep import Needs

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.exceptions import RayError

CALL_SECONDS = 5.0
"""Longest time of a call into Ray that should return at once."""


@dataclass
class RayWorker:
    """One actor, or one of its places if it runs a pack of jobs."""

    id: int
    process: int
    """Id of the first place of its actor."""
    wish: Wish
    """What it was requested for, with its number of GPUs."""
    needs: Needs
    """The same as the sweep states it."""
    actor: ActorHandle[Any]
    answer: Any
    """Ray's reference of its first answer."""
    since: float
    """When it was requested; then, when it got a place."""
    has_place: bool = False
    facts: WorkerFacts | None = None
    """Its first answer."""
    failed: tuple[RayError, float] | None = None
    """Why it did not start, and when that was heard; it is given up once its place is known."""
    order: WorkOrder | None = None
    call: Any = None
    """Ray's reference of the running job."""
    asked: Any = None
    """Unanswered request for progress."""
    silent: float = 0.0
    """Seconds waited for that answer so far."""
    progress: Progress | None = None
    spare_since: float | None = None
    """Since when no job could use it."""
    heard: Background[Any] | None = None
    """The unanswered request to stop its job."""
    kill_at: float | None = None
    """When it is killed, if its job has not ended by then."""
    reason: StopReason = StopReason.INTERRUPTED
    """Why it was asked to stop."""
    is_leaving: bool = False
    """Whether its process takes no more jobs."""

    @property
    def is_idle(self) -> bool:
        """Whether it has started and has no job."""
        return self.facts is not None and self.order is None

    @property
    def node(self) -> str:
        """Ray's id of its node; empty until it has started."""
        return self.facts.node if self.facts else ""

    @property
    def ray_id(self) -> str:
        """Ray's id of the actor."""
        return str(self.actor._actor_id.hex())

    @property
    def shape(self) -> str:
        """What its job has in common with the others of a pack; empty if it trains alone."""
        if self.order is None or self.order.alone or self.order.micro_batches > 1:
            return ""
        return pack_shape(self.order.spec)

    def begin_job(self, order: WorkOrder) -> None:
        """Note a job that is about to be sent to it."""
        self.order, self.progress, self.asked, self.silent, self.spare_since = order, None, None, 0.0, None

    def end_job(self) -> None:
        """Forget the job that has ended; the worker can take another."""
        self.order = self.call = self.asked = self.progress = self.heard = self.kill_at = None


class RayWorkers(dict[int, RayWorker]):
    """Workers by id."""

    def processes(self) -> list[list[RayWorker]]:
        """Return the places of each actor, in the order in which the actors were requested."""
        found: dict[int, list[RayWorker]] = {}
        for worker in self.values():
            found.setdefault(worker.process, []).append(worker)
        return list(found.values())

    def of_process(self, worker: RayWorker) -> list[RayWorker]:
        """Return the places of a worker's actor."""
        return [one for one in self.values() if one.process == worker.process]

    def is_free(self, worker: RayWorker) -> bool:
        """Return whether no place of a worker's actor has a job."""
        return all(one.order is None for one in self.of_process(worker))

    def free(self) -> list[RayWorker]:
        """Return the first place of each actor that has answered, has no job and can take one."""
        return [places[0] for places in self.processes() if all(one.is_idle and not one.is_leaving for one in places)]

    def with_room(self, *, beside_others: bool) -> list[Idle]:
        """Return one idle place of each actor that can take a job, those with the fewest jobs first.

        Args:
            beside_others: whether actors count that have a job already.
        """
        found: list[tuple[int, Idle]] = []
        for places in self.processes():
            idle = [one for one in places if one.is_idle]
            if not idle or idle[0].is_leaving:
                continue
            shapes = {one.shape for one in places if one.order}
            if "" not in shapes and (beside_others or not shapes):
                first, shape = idle[0], next(iter(shapes), "")
                found.append((len(places) - len(idle), Idle(first.id, first.needs, first.node, shape)))
        return [idle for _, idle in sorted(found, key=lambda one: one[0])]


def promptly(call: Callable[..., Any], *arguments: Any, more_seconds: float = 0.0, **named: Any) -> Any:
    """Make a call into Ray that should return at once, or after `more_seconds`.

    Raises:
        Hung: It does not, or Ray cannot be asked; if that lasts, the watch tells.
    """
    from ray.exceptions import RayError

    try:
        return within(CALL_SECONDS + more_seconds, call, *arguments, **named)
    except (RayError, ConnectionError) as error:
        raise Hung(str(error)) from error


def answer_to(ref: Any) -> tuple[str, RayError | None]:
    """Return the answer to a call that has ended, or the error that ended it.

    Raises:
        Hung: Ray does not give it now.
    """
    import ray
    from ray.exceptions import RayError

    try:
        return str(within(CALL_SECONDS, ray.get, ref) or ""), None
    except RayError as error:
        return "", error
