"""How many slots a machine has room for, and whether what the user asked for fits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from orchestrator.pool import Shape
from schemas.errors import ResourceError
from schemas.sweep import Resources

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
GIB = 2**30


class Machine(NamedTuple):
    cores: int
    free_gb: float


def this_machine() -> Machine:
    """Cores this process may use, and memory that is free to it, container limits included."""
    import psutil

    free = psutil.virtual_memory().available
    for name in _CGROUP_LIMITS:
        try:
            limit = int(Path(name).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        free = min(free, limit)
    return Machine(cores=len(os.sched_getaffinity(0)), free_gb=free / GIB)


def shape_for(resources: Resources, machine: Machine, jobs: int, gpus: float = 0.0) -> Shape:
    """Slots for a sweep of `jobs` jobs: as many as asked for, else one per GPU, else as many as cores and memory allow.

    Raises:
        ResourceError: not even one slot fits, or fewer than were asked for.
    """
    gpu_share = resources.gpus_per_worker if resources.gpus_per_worker is not None else (1.0 if gpus else 0.0)
    rooms = {
        "cores": machine.cores // resources.cpus_per_worker,
        "GB of free memory": int(machine.free_gb // resources.memory_gb_per_worker),
    }
    if gpu_share:
        rooms["GPUs"] = int(gpus / gpu_share)
    scarce, room = min(rooms.items(), key=lambda item: item[1])
    wanted = resources.workers or max(room, 1)
    if room < wanted:
        raise ResourceError(_too_little(resources, machine, gpus, gpu_share, wanted, scarce, room))
    return Shape(slots=max(1, min(wanted, jobs)), cpus=resources.cpus_per_worker, gpus=gpu_share)


def _too_little(
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
