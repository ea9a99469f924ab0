"""Small specs and images that a network learns within seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from interp_model.network import Network, build_network
from schemas.categories import category_of
from schemas.job import JobSpec
from workers.data.dataset import JobData, Rows, Split
from workers.training.determinism import make_deterministic, seed_torch
from workers.training.inputs import Inputs
from workers.training.trainer import Trainer

SIDE = 64
CPU = torch.device("cpu")


def toy_spec(variant: str = "interpretable", **changes: Any) -> JobSpec:
    """Return a category job of a tiny AlexNet; `__` in a name stands for a dot: `train__epochs=3`."""
    fields: dict[str, Any] = {
        "data": {"categories": ("voc_part/cat",), "train_per_category": 12, "test_per_category": 6},
        "model": {"backbone": "alexnet", "variant": variant, "width": 0.05, "input_size": SIDE, "fc_width": 16},
        "filter_loss": {} if variant == "interpretable" else None,
        "train": {"epochs": 4, "batch_size": 8, "learning_rate": 0.02},
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        target = fields
        for part in path:
            target = target[part]
        target[last] = value
    return JobSpec.model_validate(fields)


def toy_split(n_images: int = 24, *, seed: int = 0, categories: int = 1) -> Split:
    """Return noise images with a square in the category's colour; negatives of a single category have none."""
    rng = np.random.default_rng(seed)
    images_NSS3 = rng.integers(0, 60, (n_images, SIDE, SIDE, 3), dtype=np.uint8)
    label_N = np.arange(n_images, dtype=np.int64) % max(categories, 2)
    landmark_NK2 = np.full((n_images, 1, 2), np.nan, dtype=np.float32)
    for n, label in enumerate(label_N):
        if categories == 1 and label == 0:
            continue
        row, column = rng.integers(8, 32, 2)
        images_NSS3[n, row : row + 20, column : column + 20, label] = 255
        landmark_NK2[n, 0] = row + 10, column + 10
    index_N = np.arange(n_images)
    names = tuple(f"toy {n}" for n in range(n_images))
    category_N = 1 - label_N if categories == 1 else label_N
    return Split(label_N, category_N, landmark_NK2, names, Rows((images_NSS3,), 0 * index_N, index_N))


def toy_data(spec: JobSpec) -> JobData:
    """Return training and test images for a spec."""
    categories = len(spec.data.categories)
    train, test = toy_split(categories=categories), toy_split(12, seed=1, categories=categories)
    return JobData(
        train,
        test,
        test,
        np.full((SIDE, SIDE, 3), 60, np.float32),
        ("cat",),
        spec.data.categories,
        tuple(map(category_of, spec.data.categories)),
        ("head",),
        "",
        True,
        (),
    )


def with_parts(data: JobData) -> JobData:
    """Return the data with measured images of all categories in turn, and a part in the left half of each."""
    index_N = np.arange(len(data.measured))
    parts_NSS = np.zeros((len(index_N), SIDE, SIDE), np.uint8)
    parts_NSS[:, :, : SIDE // 2] = 1
    rows = Rows((parts_NSS,), 0 * index_N, index_N)
    return replace(data, measured=replace(data.measured, categories_N=index_N % len(data.categories), parts_NSS=rows))


def toy_network(spec: JobSpec) -> Network:
    """Return the spec's network with random weights."""
    make_deterministic(1)
    seed_torch(spec.seed, 0, "weights")
    network = build_network(spec.model, spec.n_outputs, from_scratch=True)
    if spec.train.freeze_below is not None:
        network.freeze_below(spec.train.freeze_below)
    return network


def toy_trainer(spec: JobSpec, *, keep: bool = False) -> Trainer:
    """Return a trainer for a spec; `keep` keeps the frozen layers' features in memory."""
    data, network = toy_data(spec), toy_network(spec)
    train, test = (Inputs(network, split, data.mean_SS3, CPU) for split in (data.train, data.test))
    if keep:
        train.keep_features(horizontal_flip=spec.train.horizontal_flip, report=lambda _: None)
    return Trainer(spec, network, train, test)


def run_epochs(trainer: Trainer, epochs: int) -> Trainer:
    """Train for some epochs."""
    for _ in range(epochs):
        trainer.run_epoch(on_step=lambda: None)
    return trainer


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return a copy of the network's weights."""
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}
