"""How many workers fit on a machine."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from orchestrator.execution import resources as resources_module
from orchestrator.execution.resources import GIB, Machine, WorkerLayout, layout_for, local_machine, usable_cores
from schemas.errors import ResourceError
from schemas.sweep import Resources

SMALL = Machine(cores=4, free_gb=8.0)


@pytest.mark.parametrize(
    ("resources", "jobs", "gpus", "layout"),
    [
        (Resources(), 100, 0, WorkerLayout(4, 1, 0.0)),
        (Resources(), 3, 0, WorkerLayout(3, 1, 0.0)),  # no worker without a job
        (Resources(workers=2), 100, 0, WorkerLayout(2, 1, 0.0)),
        (Resources(cpus_per_worker=2), 100, 0, WorkerLayout(2, 2, 0.0)),
        (Resources(memory_gb_per_worker=3.0), 100, 0, WorkerLayout(2, 1, 0.0)),
        (Resources(), 100, 2, WorkerLayout(2, 1, 1.0)),  # one worker per GPU
        (Resources(gpus_per_worker=0.5), 100, 2, WorkerLayout(4, 1, 0.5)),
        (Resources(gpus_per_worker=0.0), 100, 2, WorkerLayout(4, 1, 0.0)),
    ],
)
def test_workers_fill_the_machine_or_the_request(
    resources: Resources, jobs: int, gpus: float, layout: WorkerLayout
) -> None:
    assert layout_for(resources, SMALL, jobs, gpus) == layout


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
        layout_for(resources, SMALL, jobs=10)
    assert message in str(refused.value)


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer of 6 cores for this process and 20 GiB of free memory; returns its folder of control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=20 * GIB))
    monkeypatch.setattr(resources_module, "CGROUPS", tmp_path)
    monkeypatch.setattr(resources_module, "OWN_CGROUPS", tmp_path / "own")
    return tmp_path


def limit(group: Path, **files: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (group / name.replace("__", ".")).write_text(content)


def test_a_machine_without_limits_has_what_the_system_reports(computer: Path) -> None:
    assert local_machine() == Machine(cores=6, free_gb=20.0)  # no control groups, as on macOS
    limit(computer / "user", cpu__max="max 100000", memory__max="max", memory__current="1")
    (computer / "own").write_text("0::/user\n")
    assert local_machine() == Machine(cores=6, free_gb=20.0)


def test_the_limits_of_a_container_and_of_every_group_above_it_count(computer: Path) -> None:
    stat = f"anon 1\ninactive_file {GIB}\n"
    limit(computer / "a", cpu__max="250000 100000", memory__max="max")
    limit(computer / "a/b", cpu__max="400000 100000", memory__max=str(8 * GIB), memory__current=str(5 * GIB),
          memory__stat=stat)  # fmt: skip
    (computer / "own").write_text("0::/a/b\n")
    assert local_machine() == Machine(cores=2, free_gb=4.0)


def test_limits_of_the_first_version_of_control_groups_count(computer: Path) -> None:
    limit(computer / "cpu/job", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    limit(computer / "memory/job", memory__limit_in_bytes=str(3 * GIB), memory__usage_in_bytes=str(GIB))
    (computer / "own").write_text("4:cpu:/job\n3:memory:/job\n")
    assert local_machine() == Machine(cores=1, free_gb=2.0)  # half a core is rounded up


def test_more_than_the_limit_in_use_leaves_nothing(computer: Path) -> None:
    limit(computer / "a", memory__max=str(GIB), memory__current=str(2 * GIB))
    (computer / "own").write_text("0::/a\n")
    assert local_machine().free_gb == 0.0


def test_this_machine_has_no_more_than_psutil_reports() -> None:
    machine = local_machine()
    assert 1 <= machine.cores <= psutil.cpu_count(logical=True)
    assert 0 < machine.free_gb < psutil.virtual_memory().total / GIB


@pytest.mark.parametrize("counted", [None, 6])
def test_cores_are_counted_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch, counted: int | None) -> None:
    monkeypatch.delattr("psutil.Process.cpu_affinity")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: counted)
    monkeypatch.setattr("orchestrator.execution.resources.OWN_CGROUPS", Path("/nowhere"))
    assert usable_cores() == local_machine().cores == (counted or 1)
