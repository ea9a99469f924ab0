"""Cost of measuring a network, compared with its forward passes and with training epochs.

An interpretable network (VGG-16 with 512 filters, or any `--backbone`) trains one epoch on noise images with boxes as
parts, or with `--animals` the laptop profile's job on generated animals. It is then measured as in a job, and some
receptive fields are computed by occlusion. Times are wall-clock seconds on a GPU and CPU seconds otherwise, the median
of `--repeats` rounds in each of which everything is timed in turn.

Targets: all measures take at most 1.3 times as long as one forward pass over every image that they need, and receptive
fields 1.3 times as long as the passes over the occluded copies; measuring takes at most five epochs.

    python -m benchmarks.metrics --animals                              # a small network, on a CPU or a GPU
    python -m benchmarks.metrics                                        # a GPU: 600 images, 224 px, full width
    python -m benchmarks.metrics --images 24 --batch 8 --threads 1      # a CPU
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, get_args

import numpy as np
import torch

from interp_model.explain.occlusion import occluded_batch, occluder_for
from interp_model.network import build_network
from schemas.categories import category_of
from schemas.job import BackboneName, JobSpec
from schemas.sweep import SweepSpec
from workers.data.dataset import JobData, Rows, Split, load_job_data
from workers.evaluation.evaluate import evaluate
from workers.evaluation.peaks import Peaks, evenly_spaced, find_peaks
from workers.figures.receptive_fields import Care, filter_fields, top_images
from workers.training.determinism import choose_device, make_deterministic
from workers.training.inputs import Inputs
from workers.training.trainer import Trainer

EPOCHS, PASSES = 5, 1.3
"""Targets: maximum cost of all measures in epochs and in forward passes."""

RATIOS = (
    ("all measures", "forward passes", PASSES),
    ("receptive fields", "passes over occluded copies", PASSES),
    ("all measures", "a training epoch", EPOCHS),
)
FIELDS = 2
"""Filters whose receptive fields are computed."""


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


class Job(NamedTuple):
    """A network with the images that it is trained and measured on."""

    trainer: Trainer
    data: JobData
    train: Inputs
    test: Inputs
    measured: Inputs


@torch.no_grad()
def forward_passes(job: Job) -> None:
    """Run one forward pass over every set of images that measures need: accuracies, peaks and parts, stability."""
    network = job.trainer.network.eval()
    for inputs in (job.train, job.test):
        for index_B in inputs.batches():
            network.forward_head(inputs.as_they_are(index_B))
    for index_B in job.measured.batches():
        network.forward_measured(job.measured.as_they_are(index_B))
    index_M = evenly_spaced(len(job.measured), job.trainer.spec.evaluation.stability_images)
    size = job.measured.evaluation_batch
    for index_B in (index_M[start : start + size] for start in range(0, len(index_M), size)):
        network.forward_measured(network.forward_trunk(job.measured.images(index_B)))


@torch.no_grad()
def occluded_passes(job: Job, peaks: Peaks, care: Care) -> None:
    """Run the forward passes over the occluded copies that the receptive fields of `FIELDS` filters need."""
    network, side = job.trainer.network.eval(), job.trainer.network.input_size
    wanted = sorted({int(n) for f in range(FIELDS) for n in top_images(peaks, f, care.images)})
    copies = len(occluder_for(side, stride_share=care.stride).places(side)) ** 2
    size = occluded_batch(side, network.bank_PHW.device)
    for n in wanted:
        image_13SS = job.measured.images(np.array([n]))
        for start in range(0, copies, size):
            some = image_13SS.repeat(min(size, copies - start), 1, 1, 1)
            network.forward_measured(network.forward_trunk(some))


def measure_all(job: Job) -> None:
    """Measure everything that a job measures."""
    evaluate(job.trainer, job.data, job.train, job.test, job.measured, _quiet)


def timed(job: Job, device: torch.device, repeats: int, *, fields: bool = True) -> dict[str, float]:
    """Return the median seconds of each step by name; those of receptive fields if asked for."""
    network = job.trainer.network
    steps: dict[str, Callable[[], object]] = {
        "a training epoch": lambda: job.trainer.run_epoch(on_step=lambda: None),
        "forward passes": lambda: forward_passes(job),
        "all measures": lambda: measure_all(job),
    }
    for warm_up in list(steps.values()):
        warm_up()
    if fields:
        peaks, care = find_peaks(network, job.measured, _quiet).cpu(), Care(images=2)
        steps["passes over occluded copies"] = lambda: occluded_passes(job, peaks, care)
        steps["receptive fields"] = lambda: filter_fields(network, job.measured, peaks, range(FIELDS), care, _quiet)
    rounds = [{name: seconds_of(step, device) for name, step in steps.items()} for _ in range(repeats)]
    return {name: median(one[name] for one in rounds) for name in steps}


def noise_job(spec: JobSpec, images: int, device: torch.device) -> Job:
    """Return a job on noise images."""
    data = data_of(spec, noise(images, spec.model.input_size))
    network = build_network(spec.model, 1, from_scratch=True).to(device)
    inputs = Inputs(network, data.train, data.mean_SS3, device)
    return Job(Trainer(spec, network, inputs, inputs), data, inputs, inputs, inputs)


def animals_job(backbone: BackboneName, device: torch.device, cache: Path) -> Job:
    """Return a job of the laptop profile on generated animals, with random starting weights."""
    from orchestrator.planning.planner import NullResolver, plan
    from orchestrator.planning.request import SweepRequest, define

    base = {
        "category": "voc_part/cat", "model.variant": "interpretable", "weights": {"source": "random"},
        "model.backbone": backbone,
    }  # fmt: skip
    sweep = SweepSpec.model_validate({"name": "metrics", "profile": "laptop", "base": base})
    (spec,) = plan(define(SweepRequest(sweep=sweep)), NullResolver()).jobs
    side = spec.model.input_size
    data = load_job_data(spec.data, spec.evaluation, input_size=side, seed=0, cache_dir=cache, data_root=None)
    network = build_network(spec.model, spec.n_outputs, from_scratch=True)
    if spec.train.freeze_below is not None:
        network.freeze_below(spec.train.freeze_below)
    network.to(device)
    train, test, measured = (
        Inputs(network, split, data.mean_SS3, device) for split in (data.train, data.test, data.measured)
    )
    for inputs, flip in ((train, spec.train.horizontal_flip), (test, False)):
        inputs.keep_features(horizontal_flip=flip, report=_quiet)
    return Job(Trainer(spec, network, train, test), data, train, test, measured)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--animals", action="store_true", help="the laptop profile's job on generated animals")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backbone", choices=get_args(BackboneName), help="default: vgg16; of animals alexnet")
    parser.add_argument("--regions", choices=("round", "bilinear"), default="round")
    options = parser.parse_args(arguments)
    make_deterministic(options.threads)
    torch.manual_seed(0)
    device = choose_device()
    if options.animals:
        with tempfile.TemporaryDirectory(prefix="orch-metrics-") as folder:
            job = animals_job(options.backbone or "alexnet", device, Path(folder))
            report(job, timed(job, device, options.repeats), "generated animals")
        return
    backbone: BackboneName = options.backbone or "vgg16"
    spec = spec_of(backbone, options.width, options.size, options.batch, options.regions)
    job = noise_job(spec, options.images, device)
    report(job, timed(job, device, options.repeats), f"noise, {options.regions} regions")


def report(job: Job, seconds: dict[str, float], images: str) -> None:
    """Print the times and the ratios."""
    network, model = job.trainer.network, job.trainer.spec.model
    print(
        f"{model.backbone}, {network.filters(network.top_layer)} filters, {model.input_size} px, {images}: "
        f"{len(job.train)} to train, {len(job.test)} to test, {len(job.measured)} to measure"
    )
    for name, value in seconds.items():
        print(f"{name:>40}: {value:8.3f} s")
    for above, below, target in RATIOS:
        words = f"{above} / {below}"
        print(f"{words:>46}: {seconds[above] / seconds[below]:5.2f} (target: at most {target})")


def _quiet(_: str) -> None:
    return None


if __name__ == "__main__":
    main()
