"""A worker of a pool as a Ray actor, and calls into Ray that do not wait for one that has gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.execution.in_time import Background, Hung, within
from orchestrator.execution.placement import Wish
from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkerFacts, WorkOrder
from schemas.sweep import Needs

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.exceptions import RayError

CALL_SECONDS = 5.0
"""Longest time of a call into Ray that should return at once."""


@dataclass
class RayWorker:
    """One actor."""

    id: int
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

    def begin_job(self, order: WorkOrder) -> None:
        """Note a job that is about to be sent to it."""
        self.order, self.progress, self.asked, self.silent, self.spare_since = order, None, None, 0.0, None

    def end_job(self) -> None:
        """Forget the job that has ended; the worker can take another."""
        self.order = self.call = self.asked = self.progress = self.heard = self.kill_at = None


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
