"""The pools without processes answer all that a driver asks."""

from __future__ import annotations

import pytest

from benchmarks.one_process import InstantPool
from benchmarks.scale import SimulatedPool
from orchestrator.execution.pool import WorkerPool

ASKED = {name for name in vars(WorkerPool) if not name.startswith("_")}


@pytest.mark.parametrize("pool", [InstantPool, SimulatedPool])
def test_a_pool_of_a_benchmark_has_every_member_of_the_contract(pool: type) -> None:
    assert len(ASKED) > 10
    assert set(dir(pool)) >= ASKED
