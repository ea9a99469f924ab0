"""Workers for tests of real pools: a private pool of one worker, and what every worker answers first."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from orchestrator.execution.machines import Machines
from orchestrator.execution.placement import Wish
from orchestrator.execution.pool import Ended
from orchestrator.execution.ray_pool import RayPool
from schemas.order import WorkOrder
from schemas.sweep import Needs

ONE_CORE = Needs(1, 0.0, 0.1)


def pool_of_one(machines: Machines, worker_class: Any, **options: Any) -> RayPool:
    """Return a pool that has requested one worker."""
    needs = options.pop("needs", ONE_CORE)
    return RayPool(lambda: worker_class, machines, 1, (needs,), cores=1, at_once=1, **options)


def start_when_idle(pool: RayPool, order: WorkOrder, within: float = 60.0) -> int:
    """Wait for an idle worker, start an attempt on it, and return its number."""
    until = time.monotonic() + within
    while not (idle := pool.idle()):
        pool.ask([Wish(pool.needs[0])])
        assert pool.wait(0.5) == []
        assert time.monotonic() < until, "no worker has answered"
    pool.start(idle[0].worker, order)
    return idle[0].worker


def ended(pool: RayPool, within: float = 60.0, meanwhile: Callable[[], None] = lambda: None) -> Ended:
    """Wait for the first attempt that ends."""
    until = time.monotonic() + within
    while not (found := pool.wait(0.5)):
        meanwhile()
        assert time.monotonic() < until, "no attempt has ended"
    return found[0]
