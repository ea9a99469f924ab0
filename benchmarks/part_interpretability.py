"""What part interpretability costs: thresholds, regions and overlaps against the two forward passes that it needs.

An ordinary VGG-16 with 512 filters at 224 px looks at noise. Its valid units scatter over all images and few share a
map: the dearest case. Timed in seconds of CPU. Target: at most 10 % for round regions.

    python -m benchmarks.part_interpretability [--images 32] [--threads 1] [--regions round]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from interp_model.metrics.part_interpretability import (
    activation_thresholds,
    merge_top,
    part_interpretability,
    valid_units,
)
from interp_model.network import Network, build_network
from schemas.job import BackboneName, DataSpec, EvaluationSpec, JobSpec, ModelSpec
from workers.parts import build_regions, maps_after_mask

TARGET = 0.10
PARTS = 5
BATCH = 8


def masks_of(images: int, side: int) -> Tensor:
    """Five parts in boxes of a fourth of the image's side: (N, K, S, S)."""
    mask_NKSS = torch.zeros(images, PARTS, side, side, dtype=torch.bool)
    for part in range(PARTS):
        mask_NKSS[:, part, part * side // 6 : part * side // 6 + side // 4, side // 4 : side // 2] = True
    return mask_NKSS


def measure(spec: JobSpec, network: Network, maps: Sequence[Tensor], mask_NKSS: Tensor) -> None:
    """All that comes after the forward passes."""
    units = sum(len(x_NFHW) for x_NFHW in maps) * network.map_side(network.top_layer) ** 2
    valid = valid_units(spec.evaluation.valid_share, units)
    top_FR = torch.zeros(network.filters(network.top_layer), 0)
    for x_NFHW in maps:
        top_FR = merge_top(top_FR, x_NFHW, valid + 1)
    looked = ((x_NFHW, mask_NKSS[: len(x_NFHW)]) for x_NFHW in maps)
    part_interpretability(looked, activation_thresholds(top_FR, valid), build_regions(spec, network))


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backbone", choices=get_args(BackboneName), default="vgg16")
    parser.add_argument("--regions", choices=("round", "bilinear"), default="round")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    spec = JobSpec(
        data=DataSpec(categories=("voc_part/cat",), train_per_category=2, test_per_category=2),
        model=ModelSpec(backbone=options.backbone, variant="ordinary"),
        evaluation=EvaluationSpec(part_regions=options.regions),
    )
    network = build_network(spec.model, 1, from_scratch=True).eval()
    side = spec.model.input_size
    batches = torch.randn(options.images, 3, side, side).split(BATCH)  # type: ignore[no-untyped-call]
    masks = masks_of(BATCH, side)
    start = time.process_time()
    maps = [maps_after_mask(network, batch) for batch in batches]
    forward = 2 * (time.process_time() - start)
    start = time.process_time()
    measure(spec, network, maps, masks)
    spent = time.process_time() - start
    each = 1000 / options.images
    print(f"{options.backbone}, {len(maps[0][0])} filters, {options.images} images, {options.regions} regions")
    print(f"forward passes {forward * each:.0f} ms an image, part interpretability {spent * each:.1f} ms: "
          f"{spent / forward:.1%} (target {TARGET:.0%})")  # fmt: skip


if __name__ == "__main__":
    main()
