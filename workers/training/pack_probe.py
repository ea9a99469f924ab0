"""Decides how many jobs a worker trains as one network: as many as asked for, or as a probe on its device says."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import torch

from interp_model.network import build_network
from schemas.errors import OrchError
from schemas.job import JobSpec, RandomWeights
from schemas.packs import Packing
from workers.training.determinism import choose_device, make_deterministic, seeded
from workers.training.gradients import Batch, Step, of_whole_batch
from workers.training.inputs import MEMORY_LIMIT
from workers.training.losses import build_filter_losses
from workers.training.micro_batches import dropout_masks
from workers.training.stacked import can_stack, of_stacked

_LOGGER = logging.getLogger("orch.job")

PAYS = 0.8
"""Largest ratio of the times, together and one by one, at which a pack is worth its rounding."""
JOB_BYTES = 2 * MEMORY_LIMIT + 1024**3
"""Memory of a GPU that one job of a pack may take: features of two splits, and what training and measuring need. The
one that is being measured may keep maps of `MEMORY_LIMIT` beside that."""
_REPEATS = 5


class Times(NamedTuple):
    """Median seconds of one step of all networks."""

    alone: float
    packed: float


def jobs_at_once(packing: Packing, share: float = 1.0, device: torch.device | None = None) -> int:
    """Return how many jobs of a pack a worker should run at the same time.

    Args:
        packing: what the sweep asks for. `auto` is a pack only on a GPU, where its example trains faster so.
        share: share of its GPU that the worker may take.
        device: where the worker computes; chosen if it is not given.
    """
    if isinstance(packing.setting, int):
        return packing.setting
    device = device or choose_device()
    if device.type != "cuda":
        return 1
    make_deterministic(torch.get_num_threads())  # before cuBLAS starts, which then keeps its workspace
    free, whole = torch.cuda.mem_get_info(device)
    jobs = min(packing.most, int((min(free, share * whole) - MEMORY_LIMIT) // JOB_BYTES))
    does_pay = jobs > 1 and pays(packing.example, jobs, device)
    torch.cuda.empty_cache()  # what the probe took is for the jobs, and for other workers of this GPU
    return jobs if does_pay else 1


def pays(example: JobSpec, jobs: int, device: torch.device) -> bool:
    """Return whether `jobs` networks of a job's shape train clearly faster as one; not if they cannot be trained so."""
    try:
        batches = batches_of(example, jobs, device)
        if not can_stack(batches[0].network):
            return False
        times = measure(batches, _REPEATS, device)
    except (RuntimeError, OrchError) as error:  # of torch: no memory, or an operation that cannot be batched
        _LOGGER.warning("jobs train one by one, because the probe of a pack failed: %s", error)
        return False
    return times.packed <= PAYS * times.alone


def batches_of(example: JobSpec, jobs: int, device: torch.device) -> list[Batch]:
    """Return a random batch for each of some networks of a job's shape, with random weights."""
    batches = []
    from_scratch = isinstance(example.weights, RandomWeights)
    for seed in range(jobs):
        with seeded(seed, 0, "weights"):
            network = build_network(example.model, example.n_outputs, from_scratch=from_scratch)
            if example.train.freeze_below is not None:
                network.freeze_below(example.train.freeze_below)
            network = network.to(device).train()
            size, side = example.train.batch_size, example.model.input_size
            with torch.no_grad():
                one = network.forward_trunk(torch.randn(1, 3, side, side, device=device))
            batches.append(
                Batch(
                    example,
                    network,
                    build_filter_losses(example, network, device),
                    torch.arange(size, device=device) % max(2, example.n_outputs),
                    epoch=1,
                    x_B=torch.rand(size, *one.shape[1:], device=device),
                    masks=dropout_masks(network, size),
                )
            )
    return batches


def measure(batches: Sequence[Batch], repeats: int, device: torch.device) -> Times:
    """Time a step of all networks one by one and as one, in turn, after one of each that does not count."""
    ways: tuple[Callable[[], list[Step]], ...] = (
        lambda: [of_whole_batch(batch) for batch in batches],
        lambda: of_stacked(batches),
    )
    rounds = [[_seconds_of(way, batches, device) for way in ways] for _ in range(repeats + 1)]
    return Times(*(median(column) for column in zip(*rounds[1:], strict=True)))


def _seconds_of(way: Callable[[], object], batches: Sequence[Batch], device: torch.device) -> float:
    """Return the seconds of one step; of CPU time on a CPU, where other processes would count too."""
    for batch in batches:
        batch.network.zero_grad(set_to_none=True)
    is_cpu = device.type == "cpu"
    clock = time.process_time if is_cpu else time.perf_counter
    if not is_cpu:
        torch.cuda.synchronize(device)
    begun = clock()
    way()
    if not is_cpu:
        torch.cuda.synchronize(device)
    return clock() - begun
