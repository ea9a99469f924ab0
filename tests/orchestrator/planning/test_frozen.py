"""How often the jobs of a sweep compute features of frozen layers."""

from __future__ import annotations

from typing import Any

from orchestrator.planning.frozen import SharedFeatures, shared_features
from schemas.job import JobSpec

PRETRAIN = {
    "source": "pretrain",
    "data": {"categories": ("voc_part/cat", "voc_part/dog"), "train_per_category": 4, "test_per_category": 2},
}


def job(category: str = "voc_part/cat", variant: str = "ordinary", **changes: Any) -> JobSpec:
    fields: dict[str, Any] = {
        "data": {"categories": (category,), "train_per_category": 4, "test_per_category": 2},
        "model": {"backbone": "alexnet", "variant": variant},
        "weights": PRETRAIN,
        "train": {"freeze_below": "conv5"},
    }
    return JobSpec.model_validate(fields | changes)


def test_jobs_that_start_alike_share_their_features() -> None:
    loss = [job(variant="interpretable", filter_loss={"weight": weight}) for weight in (0.1, 0.01)]
    assert shared_features([job(), job(variant="interpretable"), *loss]) == SharedFeatures(4, 1)


def test_other_images_weights_or_layers_are_computed_again() -> None:
    others = [
        job("voc_part/dog"),
        job(seed=1),  # other negatives
        job(weights=PRETRAIN | {"epochs": 3}),
        job(train={"freeze_below": "conv4"}),
        job(train={"freeze_below": "conv5", "horizontal_flip": False}),
    ]
    assert shared_features([job(), *others]) == SharedFeatures(6, 6)


def test_random_networks_share_nothing_and_those_without_frozen_layers_do_not_count() -> None:
    random = [job(variant=variant, weights={"source": "random"}) for variant in ("ordinary", "interpretable")]
    assert shared_features([*random, job(train={})]) == SharedFeatures(2, 2)
