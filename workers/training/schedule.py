"""What follows from an epoch's number alone: its learning rate, its batches, and which images it flips."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from schemas.job import TrainSpec
from workers.training.determinism import generator
from workers.training.inputs import Indices


def learning_rate_at(train: TrainSpec, epoch: int) -> float:
    """Return the learning rate of an epoch: log-spaced from first to final over `decay_epochs`, then constant.

    Args:
        train: the training spec.
        epoch: number of the epoch, from 1.
    """
    if train.final_learning_rate is None:
        return train.learning_rate
    last = (train.decay_epochs or train.epochs) - 1
    done = min((epoch - 1) / last, 1.0) if last else float(epoch > 1)
    return math.exp((1 - done) * math.log(train.learning_rate) + done * math.log(train.final_learning_rate))


def batches_of_epoch(n_images: int, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Shuffle all images into batches of nearly equal size; no batch has a single image if there are several."""
    order = generator(seed, epoch, "order").permutation(n_images)
    count = max(1, min(math.ceil(n_images / batch_size), n_images // 2))
    return np.array_split(order, count)


def flips_of_epoch(batches: list[Indices], seed: int, epoch: int, *, horizontal_flip: bool) -> list[NDArray[np.bool_]]:
    """Draw which images of each batch are flipped left to right: half of them, or none without `horizontal_flip`."""
    draws = generator(seed, epoch, "mirror")
    return [draws.random(len(index_B)) < (0.5 if horizontal_flip else 0.0) for index_B in batches]
