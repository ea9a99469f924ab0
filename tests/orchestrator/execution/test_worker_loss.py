"""Which stop reason each of Ray's exceptions for a lost worker gives."""

from __future__ import annotations

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    TaskCancelledError,
)

from orchestrator.execution.losses import lost, reason_of_loss
from schemas.lifecycle import StopReason
from schemas.order import WorkOrder
from tests.support.doubles import plan_of

R = StopReason
ON_DEAD_NODE = "The actor died because its node has died. Node Id: 0a1b"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfMemoryError("1 worker(s) were killed due to the node running low on memory."), R.OUT_OF_MEMORY),
        (ActorDiedError(), R.WORKER_LOST),
        (ActorUnavailableError("The actor is temporarily unavailable: Socket closed", None), R.WORKER_LOST),
        (RayActorError(None, "gone", preempted=True), R.PREEMPTED),
        (RayActorError(None, ON_DEAD_NODE), R.NODE_LOST),
        (NodeDiedError("its node died"), R.NODE_LOST),
        (LocalRayletDiedError(), R.NODE_LOST),
        (TaskCancelledError(), R.CODE_RAISED),
    ],
)
def test_every_loss_has_its_reason(error: RayError, reason: StopReason) -> None:
    assert reason_of_loss(error) is reason


def test_the_next_attempt_learns_with_how_much_room_the_lost_one_ran() -> None:
    spec = plan_of("smoke").jobs[0]
    order = WorkOrder(
        spec=spec, run_id="r", attempt=3, tracking_uri="", cache_dir="", checkpoint_dir="", micro_batches=4
    )
    result = lost(order, R.OUT_OF_MEMORY, OutOfMemoryError("low on memory"))
    assert (result.job_key, result.attempt, result.micro_batches) == (spec.key, 3, 4)
    assert result.failure is not None
    assert result.failure.message == "low on memory"
