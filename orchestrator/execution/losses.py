"""Why a worker ended without a result, and the result that its attempt then has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.lifecycle import StopReason
from schemas.order import WorkOrder
from schemas.results import Failure, JobResult

if TYPE_CHECKING:
    from ray.exceptions import RayError

NODE_DIED = "node has died"
"""Part of Ray's message, because an actor's death has one exception class, whether its process or its node died."""
LOSSES = frozenset({StopReason.WORKER_LOST, StopReason.NODE_LOST})
"""Reasons after which Ray itself is looked at before the loss is reported."""


def reason_of_loss(error: RayError) -> StopReason:
    """Return why a worker ended without a result, from the exception that Ray raised."""
    from ray.exceptions import LocalRayletDiedError, NodeDiedError, OutOfMemoryError, RayActorError

    if isinstance(error, OutOfMemoryError):
        return StopReason.OUT_OF_MEMORY
    if isinstance(error, RayActorError) and error.preempted:
        return StopReason.PREEMPTED
    if isinstance(error, (NodeDiedError, LocalRayletDiedError)) or NODE_DIED in str(error):
        return StopReason.NODE_LOST
    return StopReason.WORKER_LOST if isinstance(error, RayActorError) else StopReason.CODE_RAISED


def last_line(error: Exception) -> str:
    """Return the last line of Ray's message: the error that a worker raised, after its traceback."""
    return str(error).strip().splitlines()[-1].rstrip(".")


def lost(order: WorkOrder, reason: StopReason, error: Exception | None) -> JobResult:
    """Return the result of an attempt whose worker ended without one.

    Args:
        order: The attempt.
        reason: Why it ended.
        error: What Ray raised; None if the attempt was stopped on request.
    """
    failure = Failure(kind=type(error).__name__, message=str(error)) if error else None
    return JobResult(
        job_key=order.spec.key,
        attempt=order.attempt,
        stop_reason=reason,
        failure=failure,
        micro_batches=order.micro_batches,
    )
