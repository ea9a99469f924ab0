"""Cost of an interpretable layer: a training step with masks and filter losses, compared with the same step without.

Both networks are the interpretable AlexNet of the published size, including the new convolution. Steps alternate within
one run and are timed in CPU seconds, so that other processes have little effect. The result is the ratio of medians.
Target: at most 1.25.

    python -m benchmarks.interpretable_layer [--pairs 8] [--batch 32] [--threads 1] [--form labelled]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from interp_model.loss.filter_loss import FilterLoss
from interp_model.network import Network, build_network
from interp_model.parameter_groups import parameter_groups
from schemas.job import BackboneName, FilterLossSpec, ModelSpec, TrainSpec

TARGET = 1.25
WEIGHT = 1e-3
"""Weight of the filter loss; it does not affect the cost of a step."""

Step = Callable[[], None]


def make_step(network: Network, losses: nn.ModuleDict, images_N3SS: Tensor, label_N: Tensor) -> Step:
    """Return a function that performs one training step: forward, backward and update."""
    optimiser = torch.optim.SGD(parameter_groups(network, TrainSpec()), lr=1e-4, momentum=0.9)
    network.train()

    def step() -> None:
        output = network(images_N3SS)
        loss = functional.softplus((1 - 2 * label_N) * output.logits[:, 0]).mean()
        for name, filter_loss in losses.items():
            loss = loss + WEIGHT * filter_loss(output.maps[name], label_N).sum()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()

    return step


def seconds_of(step: Step) -> float:
    """Return the CPU seconds of one step."""
    started = time.process_time()
    step()
    return time.process_time() - started


def measure(model: ModelSpec, form: FilterLossSpec, batch: int, pairs: int) -> tuple[list[float], list[float]]:
    """Return the CPU seconds of each step with and without masks and losses, after one warm-up step each."""
    torch.manual_seed(0)
    size = model.input_size
    images_N3SS, label_N = torch.randn(batch, 3, size, size), torch.arange(batch) % 2
    network = build_network(model, 1)
    losses = nn.ModuleDict(
        {
            name: FilterLoss(form, network.map_side(name), network.filters(name), 1)
            for name in network.interpretable_layers
        }
    )
    plain = build_network(model.model_copy(update={"mask": False}), 1)
    with_it = make_step(network, losses, images_N3SS, label_N)
    without = make_step(plain, nn.ModuleDict(), images_N3SS, label_N)
    seconds_of(with_it), seconds_of(without)
    timed = [(seconds_of(with_it), seconds_of(without)) for _ in range(pairs)]
    return [a for a, _ in timed], [b for _, b in timed]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=get_args(BackboneName), default="alexnet")
    parser.add_argument(
        "--form", choices=get_args(FilterLossSpec.model_fields["form"].annotation), default=FilterLossSpec().form
    )
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = ModelSpec(backbone=options.backbone, variant="interpretable")
    with_it, without = measure(model, FilterLossSpec(form=options.form), options.batch, options.pairs)
    for name, seconds in (("with masks and filter losses", with_it), ("without", without)):
        print(f"{name:>30}: median {median(seconds):.3f} CPU s a step (from {min(seconds):.3f} to {max(seconds):.3f})")
    print(f"{'ratio of the medians':>30}: {median(with_it) / median(without):.3f} (target: at most {TARGET})")


if __name__ == "__main__":
    main()
