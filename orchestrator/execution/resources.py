"""How many workers fit on a machine, and whether what the user requested fits."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

from orchestrator.ledger.records import StoredPlan
from schemas.errors import ResourceError
from schemas.sweep import Needs, Resources

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
GIB = 2**30


class WorkerLayout(NamedTuple):
    """The number of workers that fit on this machine, and the cores and GPUs of each."""

    slots: int
    cpus: int
    gpus: float


class Machine(NamedTuple):
    """Cores and free memory (GiB) of a machine or cluster."""

    cores: int
    free_gb: float


class Share(NamedTuple):
    """Cores and free memory (bytes) that control groups allow this process; infinite without a limit."""

    cores: float
    free_bytes: float


def local_machine() -> Machine:
    """Return the cores and the free memory that this process may use, within the limits of its container."""
    import psutil

    try:
        share = cgroup_share(CGROUPS, OWN_CGROUPS.read_text(encoding="utf-8"))
    except OSError:  # not Linux
        share = Share(math.inf, math.inf)
    free = min(psutil.virtual_memory().available, share.free_bytes)
    return Machine(cores=max(1, int(min(usable_cores(), share.cores))), free_gb=free / GIB)


def usable_cores() -> int:
    """Return the number of cores this process may run on; all of the machine where processes have no affinity."""
    import psutil

    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    try:  # Windows has an affinity, macOS has none
        return len(psutil.Process().cpu_affinity() or ()) or 1
    except (AttributeError, psutil.Error):
        return os.cpu_count() or 1


def cgroup_share(mount: Path, own: str) -> Share:
    """Return the narrowest limits from the process's own control groups up to the root, of versions 1 and 2.

    Args:
        mount: Where the control groups are mounted.
        own: The content of `/proc/self/cgroup`: lines such as `0::/user.slice` or `4:cpu,cpuacct:/docker/ab`.
    """
    cores, free = math.inf, math.inf
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        for top in (mount, *(mount / name for name in controllers.split(",") if name)):
            inside = top / path.strip("/")  # a container sees its own group at the top, and no such folder
            for group in (top, *(g for g in (inside, *inside.parents) if g.is_relative_to(top))):
                cores, free = min(cores, _cores_of(group)), min(free, _free_bytes_of(group))
    return Share(cores, free)


def _cores_of(group: Path) -> float:
    quota, period = [*_words(group / "cpu.max"), None, None][:2]
    if quota is None:
        quota, period = (next(iter(_words(group / f"cpu.cfs_{what}_us")), None) for what in ("quota", "period"))
    if quota is None or period is None or quota in ("max", "-1"):
        return math.inf
    return int(quota) / int(period)


def _free_bytes_of(group: Path) -> float:
    """Return the memory below the limit. Inactive page cache counts as free, because the kernel reclaims it."""
    for limit_file, used_file, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _words(group / limit_file), _words(group / used_file)
        if limit and used and limit[0] != "max":
            stat = _words(group / "memory.stat")
            counted = dict(zip(stat[::2], stat[1::2], strict=False))
            return max(0, int(limit[0]) - int(used[0]) + int(counted.get(cache, 0)))
    return math.inf


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except OSError:
        return []


def needs_of(stored: StoredPlan) -> tuple[Needs, ...]:
    """Return what the workers of a sweep's jobs need, each once, in the order of the jobs."""
    return tuple(dict.fromkeys(stored.resources.needs(job["model"]["backbone"]) for job in stored.jobs))


def layouts_for(stored: StoredPlan, machine: Machine, jobs: int, gpus: float = 0.0) -> dict[Needs, WorkerLayout]:
    """Return how many workers of each kind fit on this machine if they are the only ones.

    Args:
        stored: The sweep.
        machine: The machine.
        jobs: Number of jobs to run.
        gpus: Number of GPUs.

    Raises:
        ResourceError: No worker of a kind fits, or fewer than were requested where all are of one kind.
    """
    wanted, kinds = stored.resources.workers, needs_of(stored)
    found = {}
    for needs in kinds:
        alike = Resources(
            workers=wanted if len(kinds) == 1 else None,
            cpus_per_worker=needs.cpus,
            gpus_per_worker=needs.gpus,
            memory_gb_per_worker=needs.memory_gb,
        )
        layout = layout_for(alike, machine, jobs, gpus)
        found[needs] = layout._replace(slots=min(layout.slots, wanted or layout.slots))
    return found


def layout_for(resources: Resources, machine: Machine, jobs: int, gpus: float = 0.0) -> WorkerLayout:
    """Return the layout of workers: as many as requested, else one per GPU, else as many as cores and memory allow.

    Args:
        resources: What the sweep requests.
        machine: The machine or cluster.
        jobs: Number of jobs to run; there are never more workers than jobs.
        gpus: Number of GPUs.

    Raises:
        ResourceError: No worker fits, or fewer than were requested.
    """
    gpu_share = resources.gpus_per_worker if resources.gpus_per_worker is not None else (1.0 if gpus else 0.0)
    capacity = {
        "cores": machine.cores // resources.cpus_per_worker,
        "GB of free memory": int(machine.free_gb // resources.memory_gb_per_worker),
    }
    if gpu_share:
        capacity["GPUs"] = int(gpus / gpu_share)
    scarce, room = min(capacity.items(), key=lambda item: item[1])
    wanted = resources.workers or max(room, 1)
    if room < wanted:
        raise ResourceError(_shortage(resources, machine, gpus, gpu_share, wanted, scarce, room))
    return WorkerLayout(slots=max(1, min(wanted, jobs)), cpus=resources.cpus_per_worker, gpus=gpu_share)


def _shortage(
    resources: Resources, machine: Machine, gpus: float, gpu_share: float, wanted: int, scarce: str, room: int
) -> str:
    need = {
        "cores": f"{resources.cpus_per_worker} cores each; this machine has {machine.cores}",
        "GB of free memory": f"{resources.memory_gb_per_worker:g} GB each; {machine.free_gb:.1f} GB are free",
        "GPUs": f"{gpu_share:g} GPU each; Ray has {gpus:g}",
    }[scarce]
    field = {"cores": "cpus_per_worker", "GB of free memory": "memory_gb_per_worker", "GPUs": "gpus_per_worker"}[scarce]
    advice = f"Use `--workers {room}`" if room else f"Lower `resources.{field}` in the sweep file"
    return f"{wanted} workers take {need}. {advice}, or a larger machine."
