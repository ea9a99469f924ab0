"""How many slots a machine has room for."""

from __future__ import annotations

import pytest

from orchestrator.execution.pool import WorkerLayout
from orchestrator.execution.resources import Machine, local_machine, shape_for
from schemas.errors import ResourceError
from schemas.sweep import Resources

SMALL = Machine(cores=4, free_gb=8.0)


@pytest.mark.parametrize(
    ("resources", "jobs", "gpus", "shape"),
    [
        (Resources(), 100, 0, WorkerLayout(4, 1, 0.0)),
        (Resources(), 3, 0, WorkerLayout(3, 1, 0.0)),  # no slot without a job
        (Resources(workers=2), 100, 0, WorkerLayout(2, 1, 0.0)),
        (Resources(cpus_per_worker=2), 100, 0, WorkerLayout(2, 2, 0.0)),
        (Resources(memory_gb_per_worker=3.0), 100, 0, WorkerLayout(2, 1, 0.0)),
        (Resources(), 100, 2, WorkerLayout(2, 1, 1.0)),  # one slot per GPU
        (Resources(gpus_per_worker=0.5), 100, 2, WorkerLayout(4, 1, 0.5)),
        (Resources(gpus_per_worker=0.0), 100, 2, WorkerLayout(4, 1, 0.0)),
    ],
)
def test_slots_fill_the_machine_or_the_wish(resources: Resources, jobs: int, gpus: float, shape: WorkerLayout) -> None:
    assert shape_for(resources, SMALL, jobs, gpus) == shape


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(workers=5), "5 workers take 1 cores each; this machine has 4. Use `--workers 4`"),
        (Resources(workers=3, memory_gb_per_worker=4.0), "8.0 GB are free. Use `--workers 2`"),
        (Resources(cpus_per_worker=8), "Lower `resources.cpus_per_worker`"),
        (Resources(memory_gb_per_worker=9.0), "Lower `resources.memory_gb_per_worker`"),
        (Resources(gpus_per_worker=1.0), "1 GPU each; Ray has 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(resources: Resources, message: str) -> None:
    with pytest.raises(ResourceError) as refused:
        shape_for(resources, SMALL, jobs=10)
    assert message in str(refused.value)


def test_this_machine_has_cores_and_memory() -> None:
    machine = local_machine()
    assert machine.cores >= 1
    assert machine.free_gb > 0
