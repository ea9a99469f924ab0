"""Decides how often the jobs of a sweep compute features of frozen layers: jobs that start alike share them. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from schemas.job import JobSpec, RandomWeights


class SharedFeatures(NamedTuple):
    """Jobs with frozen layers, and how often one machine computes these for all of them."""

    jobs: int
    computed: int


def shared_features(jobs: Sequence[JobSpec]) -> SharedFeatures:
    """Count the jobs with frozen layers, and the different starting points among them."""
    frozen = [key for job in jobs if (key := features_key(job)) is not None]
    return SharedFeatures(len(frozen), len(set(frozen)))


def features_key(job: JobSpec) -> str | None:
    """Return a name of all that determines the features of a job's frozen layers; None without frozen layers.

    These are weights, layers, images and flips.
    """
    if job.train.freeze_below is None:
        return None
    model, upstream = job.model, job.upstream
    of_network = job.key if isinstance(job.weights, RandomWeights) else ""  # drawn for the whole network
    # The seed draws the negatives of a single category.
    about = json.dumps([
        of_network, upstream.key if upstream else job.weights.model_dump(mode="json"), model.backbone, model.width,
        model.input_size, job.train.freeze_below, job.train.horizontal_flip, job.evaluation.split,
        job.data.model_dump(mode="json"), job.seed if job.is_single else None,
    ])  # fmt: skip
    return hashlib.sha256(about.encode()).hexdigest()[:12]
