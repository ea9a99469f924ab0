"""Cost of measuring a network, compared with training epochs.

An interpretable network (VGG-16 with 512 filters, or any `--backbone`) trains one epoch on noise images with boxes as
parts. It is then measured as in a job: both accuracies, location instability, part interpretability with its two
forward passes, and the places of peaks. Times are wall-clock seconds on a GPU and CPU seconds otherwise.
Targets: measuring takes at most five epochs; part interpretability at most 10 % more than its two forward passes.

    python -m benchmarks.metrics                                        # a GPU: 600 images, 224 px, full width
    python -m benchmarks.metrics --images 24 --batch 8 --threads 1      # a CPU
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
import torch

from interp_model.metrics.accuracy import accuracy
from interp_model.network import build_network
from schemas.categories import category_of
from schemas.job import BackboneName, JobSpec
from workers.data.dataset import JobData, Rows, Split
from workers.evaluation.evaluate import evaluate, measure, predict
from workers.evaluation.parts import measure_parts
from workers.evaluation.peaks import find_peaks
from workers.training.determinism import choose_device
from workers.training.inputs import Inputs
from workers.training.trainer import Trainer

EPOCHS, SHARE = 5, 0.10
"""Targets: maximum cost of all metrics in epochs, and maximum overhead of part interpretability."""

PASSES = 2
"""Forward passes that part interpretability needs."""


def spec_of(backbone: BackboneName, width: float, size: int, batch: int, regions: str) -> JobSpec:
    """Return the spec of the benchmarked job."""
    return JobSpec.model_validate(
        {
            "data": {"categories": ["voc_part/cat"], "train_per_category": 2, "test_per_category": 2},
            "model": {"backbone": backbone, "variant": "interpretable", "width": width, "input_size": size},
            "filter_loss": {},
            "train": {"epochs": 1, "batch_size": batch, "learning_rate": 1e-5},
            "evaluation": {"part_regions": regions},
        }
    )


def noise(images: int, size: int) -> Split:
    """Return noise images: half of them positive, each with five parts as boxes and three random landmarks."""
    rng = np.random.default_rng(0)
    pixels_NSS3 = rng.integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    parts_NSS = np.zeros((images, size, size), dtype=np.uint8)
    for part in range(5):
        start = part * size // 6
        parts_NSS[:, start : start + size // 4, size // 4 : size // 2] |= np.uint8(1 << part)
    index_N = np.arange(images)
    source_N = np.zeros(images, dtype=np.int64)
    return Split(
        labels_N=index_N % 2,
        categories_N=source_N,
        landmarks_NK2=rng.uniform(0, size, (images, 3, 2)).astype(np.float32),
        names_N=tuple(f"noise {n}" for n in index_N),
        images_NSS3=Rows((pixels_NSS3,), source_N, index_N),
        parts_NSS=Rows((parts_NSS,), source_N, index_N),
    )


def data_of(spec: JobSpec, split: Split) -> JobData:
    """Return job data that uses `split` for training, testing and measuring."""
    size = spec.model.input_size
    mean_SS3 = np.full((size, size, 3), 127, np.float32)
    landmarks = ("head", "neck", "torso")
    names = spec.data.categories
    found = tuple(map(category_of, names))
    return JobData(split, split, split, mean_SS3, names, names, found, landmarks, "", generated=True, skipped=())


def seconds_of(step: Callable[[], object], device: torch.device) -> float:
    """Return the duration of a step: wall-clock seconds on a GPU, after synchronisation; CPU seconds otherwise."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    step()
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    return clock() - started


@torch.no_grad()
def forward_passes(trainer: Trainer, measured: Inputs) -> None:
    """Run only the forward passes that part interpretability needs."""
    trainer.network.eval()
    for _ in range(PASSES):
        for index_B in measured.batches():
            trainer.network.forward_measured(measured.as_they_are(index_B))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backbone", choices=get_args(BackboneName), default="vgg16")
    parser.add_argument("--regions", choices=("round", "bilinear"), default="round")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = choose_device()
    spec = spec_of(options.backbone, options.width, options.size, options.batch, options.regions)
    data = data_of(spec, noise(options.images, options.size))
    network = build_network(spec.model, 1, from_scratch=True).to(device)
    inputs = Inputs(network, data.train, data.mean_SS3, device)
    trainer = Trainer(spec, network, inputs, inputs)

    def quiet(_: str) -> None:
        return None

    network.eval()
    seconds_of(lambda: predict(network, Inputs(network, data.test, data.mean_SS3, device)), device)  # warms up
    timed = {
        "a training epoch": seconds_of(lambda: trainer.run_epoch(on_step=lambda: None), device),
        "accuracy": seconds_of(lambda: accuracy(predict(network, inputs), inputs.label_N, spec.loss), device),
        "location instability": seconds_of(lambda: measure(spec, data, find_peaks(network, inputs, quiet)), device),
        "the passes of part interpretability": seconds_of(lambda: forward_passes(trainer, inputs), device),
        "part interpretability": seconds_of(lambda: measure_parts(spec, network, data, inputs, quiet), device),
        "everything that a job measures": seconds_of(
            lambda: evaluate(trainer, data, inputs, inputs, inputs, quiet), device
        ),
    }
    what = f"{options.backbone}, {network.filters(network.top_layer)} filters"
    print(f"{what}, {options.images} images of {options.size} px, {options.regions} regions")
    for name, seconds in timed.items():
        print(f"{name:>36}: {seconds:8.2f} s")
    epochs = timed["everything that a job measures"] / timed["a training epoch"]
    over = timed["part interpretability"] / timed["the passes of part interpretability"] - 1
    print(f"{'measuring costs':>36}: {epochs:8.2f} epochs (target: at most {EPOCHS})")
    print(f"{'part interpretability over its passes':>36}: {over:7.1%} (target: at most {SHARE:.0%})")


if __name__ == "__main__":
    main()
