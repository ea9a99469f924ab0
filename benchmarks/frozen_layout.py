"""What frozen layers cost a CPU: whole batches with channels first, and parts of them with channels last.

Both ways are timed in turn within one run, in seconds of CPU on one thread. The features differ by rounding.

    python -m benchmarks.frozen_layout
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from interp_model.network import Network, build_network
from schemas.job import ModelSpec
from workers.training.inputs import CPU_BATCH, EVALUATION_BATCH


class Case(NamedTuple):
    """A network and the layer from which it is trained."""

    backbone: str
    width: float
    side: int
    trained_from: str


CASES = (
    Case("alexnet", 0.25, 128, "conv5"),
    Case("vgg_m", 0.125, 128, "conv5"),
    Case("vgg_s", 0.125, 128, "conv5"),
    Case("vgg16", 0.125, 96, "conv5_3"),
    Case("torchvision:squeezenet1_1@features.12.expand3x3", 0.1, 192, "top_conv"),
    Case("torchvision:resnet18@layer4", 0.1, 192, "top_conv"),
    Case("torchvision:efficientnet_b0@features.7", 0.1, 192, "top_conv"),
)


def frozen(case: Case) -> Network:
    """Build the network of a case with random weights and freeze its lower layers."""
    spec = ModelSpec.model_validate(
        {"backbone": case.backbone, "width": case.width, "input_size": case.side, "fc_width": 64, "variant": "ordinary"}
    )
    network = build_network(spec, 1, from_scratch=case.backbone.partition(":")[1] == "").eval()
    network.freeze_below(case.trained_from)
    return network


@torch.no_grad()
def measure(case: Case, rounds: int) -> tuple[float, float]:
    """Return the milliseconds of CPU per image of whole batches and of parts of them: medians over the rounds."""
    network = frozen(case)
    images_B3SS = torch.randn(EVALUATION_BATCH, 3, case.side, case.side)

    def whole() -> Tensor:
        return network.forward_trunk(images_B3SS)

    def parts() -> Tensor:
        cut = torch.split(images_B3SS.contiguous(memory_format=torch.channels_last), CPU_BATCH)
        return torch.cat([network.forward_trunk(part) for part in cut]).contiguous()

    spent: dict[Callable[[], Tensor], list[float]] = {whole: [], parts: []}
    for way in spent:
        way()
    for _ in range(rounds):
        for way, seconds in spent.items():
            start = time.process_time()
            way()
            seconds.append(time.process_time() - start)
    return median(spent[whole]) / EVALUATION_BATCH * 1e3, median(spent[parts]) / EVALUATION_BATCH * 1e3


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| frozen layers of | whole batches of {EVALUATION_BATCH} | {CPU_BATCH} at a time, channels last | ratio |")
    print("|---|---|---|---|")
    for case in CASES:
        whole, parts = measure(case, options.rounds)
        print(f"| {case.backbone}, {case.side} px | {whole:.2f} ms | {parts:.2f} ms | {parts / whole:.2f} |")


if __name__ == "__main__":
    main()
