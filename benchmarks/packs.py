"""Whether several small networks train faster as one: their trained layers stacked, one batched step for all.

Gradients of the stacked step are compared with those of the networks one at a time; then both are timed in turn, in
seconds (of CPU on a CPU). This is what a worker's probe does (`workers/training/pack_probe.py`), with random features.
Then whole epochs are timed: trainers one after the other, and trainers in threads that meet for each step; and the
operations are counted that a step starts, which is what bounds small networks on a GPU.

    python -m benchmarks.packs [--backbone alexnet] [--networks 8] [--batch 32] [--repeats 6] [--images 256]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import Any, get_args

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.metrics import data_of, noise, seconds_of
from interp_model.network import build_network
from schemas.job import BackboneName, DataSpec, FilterLossSpec, JobSpec, ModelSpec, TrainSpec
from workers.training.determinism import choose_device, make_deterministic, seeded
from workers.training.gradients import Batch, of_whole_batch
from workers.training.inputs import Inputs
from workers.training.pack_probe import Times, batches_of, measure
from workers.training.packs import Pack
from workers.training.stacked import of_stacked
from workers.training.trainer import Trainer

TOLERANCE = 1e-3
"""Largest difference of a gradient, relative to its largest value; float32 sums are in another order."""


def job_of(model: ModelSpec, batch: int) -> JobSpec:
    """Return a job that trains an interpretable network from its top convolution upwards."""
    return JobSpec(
        data=DataSpec(categories=("voc_part/cat",), train_per_category=2, test_per_category=2),
        model=model,
        filter_loss=FilterLossSpec(),
        train=TrainSpec(batch_size=batch, freeze_below="top_conv"),
    )


def largest_difference(batches: Sequence[Batch]) -> float:
    """Return the largest difference of the two ways' gradients, relative to the largest value of each."""
    for batch in batches:
        of_whole_batch(batch)
    alone = _taken(batches)
    of_stacked(batches)
    return max(
        ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()
        for found, expected in zip(_taken(batches), alone, strict=True)
    )


def times_of(model: ModelSpec, networks: int, batch: int, repeats: int, device: torch.device) -> Times:
    """Time a step of some networks both ways.

    Raises:
        RuntimeError: their gradients differ.
    """
    batches = batches_of(job_of(model, batch), networks, device)
    if (difference := largest_difference(batches)) > TOLERANCE:
        raise RuntimeError(f"the gradients differ by {difference:.1e} of their largest value")
    return measure(batches, repeats, device)


def epochs_of(spec: JobSpec, networks: int, images: int, repeats: int, device: torch.device) -> Times:
    """Time an epoch of some jobs with noise images both ways; features are kept."""
    pack = Pack(patience=3600.0)
    ways = [_trainers(spec, networks, images, device, None), _trainers(spec, networks, images, device, pack)]
    runs: tuple[Callable[[], object], ...] = (
        lambda: [_epoch(trainer) for trainer in ways[0]],
        lambda: _in_threads([partial(_epoch, trainer) for trainer in ways[1]]),
    )
    rounds = [[seconds_of(run, device) for run in runs] for _ in range(repeats + 1)]
    return Times(*(median(column) for column in zip(*rounds[1:], strict=True)))


class _Operations(TorchDispatchMode):
    """Counts operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations_of(batches: Sequence[Batch]) -> tuple[int, int]:
    """Return how many operations one step of all networks starts, one by one and as one."""
    with _Operations() as alone:
        for batch in batches:
            of_whole_batch(batch)
    with _Operations() as packed:
        of_stacked(batches)
    return alone.count, packed.count


def _trainers(spec: JobSpec, networks: int, images: int, device: torch.device, pack: Pack | None) -> list[Trainer]:
    found = []
    for seed in range(networks):
        own = spec.model_copy(update={"seed": seed})
        data = data_of(own, noise(images, spec.model.input_size))
        with seeded(seed, 0, "weights"):
            network = build_network(own.model, own.n_outputs, from_scratch=True)
        network.freeze_below("top_conv")
        inputs = Inputs(network.to(device), data.train, data.mean_SS3, device)
        inputs.keep_features(horizontal_flip=True, report=lambda phase: None)
        found.append(Trainer(own, network, inputs, inputs, pack=pack))
    return found


def _epoch(trainer: Trainer) -> None:
    trainer.run_epoch(on_step=lambda: None)


def _in_threads(tasks: Sequence[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(tasks), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for running in [pool.submit(task) for task in tasks]:
            running.result()


def _taken(batches: Sequence[Batch]) -> list[Tensor]:
    """Return the gradients of all networks, and forget them."""
    parameters = [parameter for batch in batches for parameter in batch.network.parameters()]
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for parameter in parameters:
        parameter.grad = None
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=get_args(BackboneName), default="alexnet")
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--images", type=int, default=256)
    options = parser.parse_args(arguments)
    make_deterministic(1)
    device = choose_device()
    model = ModelSpec(
        backbone=options.backbone, variant="interpretable", width=options.width, input_size=options.side, fc_width=64
    )
    print(f"{options.networks} networks ({options.backbone}, batches of {options.batch}), on {device.type}")
    found = {
        "one step of all": times_of(model, options.networks, options.batch, options.repeats, device),
        f"one epoch of all, {options.images} images each": epochs_of(
            job_of(model, options.batch), options.networks, options.images, options.repeats, device
        ),
    }
    alone, packed = operations_of(batches_of(job_of(model, options.batch), options.networks, device))
    print(f"operations of one step of all: one by one {alone}, packed {packed}, ratio {packed / alone:.2f}")
    for what, times in found.items():
        ratio = times.packed / times.alone
        print(f"{what}: one by one {times.alone:.4f} s, packed {times.packed:.4f} s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
