"""What the jobs of a plan take: time, disk and GPU-hours, from the finished jobs of the store. Nothing here prints."""

from __future__ import annotations

import importlib.util
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import fmean

from orchestrator.execution.estimate import Estimate, Finished, Kind, Waiting, kind_of, time_left
from orchestrator.execution.past_jobs import kind_of_record, past_of
from orchestrator.execution.resources import layout_for, local_machine
from orchestrator.ledger.records import JobRecord
from orchestrator.recovery.garbage import size_of
from orchestrator.settings import Settings
from schemas.errors import ResourceError
from schemas.job import JobSpec
from schemas.sweep import Resources

GPUS = Path("/proc/driver/nvidia/gpus")
"""Folder in which the driver of NVIDIA lists a machine's GPUs."""
_HAS_CUDA = re.compile(r"^cuda\b[^=]*= *['\"]", re.MULTILINE)
"""The line of PyTorch's file of versions if it was built for CUDA; otherwise its value is None."""
NO_GPU = ("", "-1", "NoDevFiles")
"""Entries of CUDA_VISIBLE_DEVICES from which on no GPU is visible."""
SAMPLED = 3
"""Past jobs of a kind whose files are measured."""
GB = 1e9


@dataclass(frozen=True)
class Cost:
    """What the jobs that will run take, as far as finished jobs of the store tell."""

    workers: int
    """Jobs that run at once."""
    time: Estimate | None
    """Seconds from start to end; None if no job of these kinds has run."""
    gigabytes: float | None
    """Disk for results and final checkpoints; None if the store keeps them elsewhere, or no such job has run."""
    gpu_hours: tuple[float, float] | None
    """Least and most; None without a GPU, or if nothing is known of the time."""
    past_jobs: int
    """Finished jobs of the same kinds, from which this follows."""


def cost_of(
    settings: Settings, jobs: Sequence[JobSpec], upstream: frozenset[str], resources: Resources,
    records: Iterable[JobRecord],
) -> Cost | None:  # fmt: skip
    """Estimate what jobs take.

    Args:
        settings: Names the store and the cluster.
        jobs: The jobs that will run, in their order.
        upstream: Keys of the jobs that run only because others start from their weights.
        resources: What workers take of a machine.
        records: The jobs of the store.

    Returns:
        The cost; None if no job will run.
    """
    if not jobs:
        return None
    known = [(kind, record) for record in records if (kind := kind_of_record(record)) is not None]
    past = past_of(record for _, record in known)
    kinds = {job.key: kind_of(job, job.key in upstream) for job in jobs}
    waiting = [Waiting(job.key, kinds[job.key], job.upstream.key if job.upstream else None) for job in jobs]
    workers = _workers(settings, jobs, resources)
    wanted = set(kinds.values())
    return Cost(
        workers=workers,
        time=time_left(waiting, [], Finished(), workers, 0.0, past),
        gigabytes=_gigabytes(settings, kinds.values(), known),
        gpu_hours=_gpu_hours(jobs, kinds, resources, past),
        past_jobs=sum(len(seconds) for kind, seconds in past.seconds.items() if kind in wanted),
    )


def _workers(settings: Settings, jobs: Sequence[JobSpec], resources: Resources) -> int:
    """Jobs that will run at once; on a cluster without a requested number one, because it may grow."""
    if resources.workers is not None or settings.ray_address != "local":
        return min(resources.workers or 1, len(jobs))
    machine, gpus = local_machine(), float(_local_gpus())
    slots = []
    for needs in {resources.needs(job.model.backbone) for job in jobs}:
        alike = Resources(cpus_per_worker=needs.cpus, gpus_per_worker=needs.gpus, memory_gb_per_worker=needs.memory_gb)
        try:
            slots.append(layout_for(alike, machine, len(jobs), gpus).slots)
        except ResourceError:
            slots.append(1)
    return min(slots)


def _local_gpus() -> int:
    """Number of GPUs that the workers of this machine will see, with CUDA_VISIBLE_DEVICES read as CUDA does."""
    if not _HAS_CUDA.search(_torch_versions()):
        return 0
    there = len(list(GPUS.iterdir())) if GPUS.is_dir() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return there
    return min(there, len(list(takewhile(lambda name: name not in NO_GPU, map(str.strip, visible.split(","))))))


def _torch_versions() -> str:
    """The installed PyTorch's file of versions, which says for what it was built: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).with_name("version.py").read_text(encoding="utf-8") if spec and spec.origin else ""


def _gpu_hours(
    jobs: Sequence[JobSpec], kinds: dict[str, Kind], resources: Resources, past: Finished
) -> tuple[float, float] | None:
    has_gpu = _local_gpus() > 0
    low = high = 0.0
    for job in jobs:
        asked = resources.needs(job.model.backbone).gpus
        gpus = float(has_gpu) if asked is None else asked
        whole = past.whole_of(kinds[job.key])
        if whole is not None:
            low, high = low + gpus * whole[0] / 3600, high + gpus * whole[1] / 3600
    return (low, high) if high else None


def _gigabytes(settings: Settings, kinds: Iterable[Kind], known: Sequence[tuple[Kind, JobRecord]]) -> float | None:
    """Disk that the jobs take: the mean of past jobs of each kind that has any, whatever their number of epochs."""
    if settings.artifact_uri is None:
        return None
    by_kind: dict[Kind, list[JobRecord]] = defaultdict(list)
    for kind, record in known:
        by_kind[kind._replace(epochs=0)].append(record)
    total = 0.0
    for kind, number in Counter(kind._replace(epochs=0) for kind in kinds).items():
        sizes = [_size(settings, record) for record in by_kind[kind][-SAMPLED:]]
        total += number * fmean(sizes) if sizes else 0.0
    return total / GB or None


def _size(settings: Settings, record: JobRecord) -> int:
    """Bytes of a finished job's files, of which its run has all."""
    return size_of(settings.root / "artifacts" / record.run_id)
