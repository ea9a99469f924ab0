"""The built-in profiles, as data: the paper's setting, and one for a machine without GPU or data sets."""

from __future__ import annotations

from typing import Any

from schemas.job import ALL_CATEGORY_IDS, BackboneName
from schemas.sweep import Profile, Resources, Rule

GENERATED_PRETRAINING: dict[str, Any] = {
    "source": "pretrain",
    "data": {
        "categories": ALL_CATEGORY_IDS,
        "images": "generated",
        "train_per_category": 240,
        "test_per_category": 20,
    },
}


def _schedule(*backbones: BackboneName, batch_size: int, factor: float) -> Rule:
    return Rule(
        when={"backbone": list(backbones)},
        set={
            "train.batch_size": batch_size,
            "train.learning_rate": 1e-4 * factor,
            "train.final_learning_rate": 1e-5 * factor,
        },
    )


_RATES = ("train.learning_rate", "train.final_learning_rate")

_SEVERAL_CATEGORIES = Rule(
    when={"variant": "interpretable"}, least_categories=2, set={"filter_loss.assignment": "steady"}
)
_RELEASED_SEVERAL = (
    _SEVERAL_CATEGORIES,
    # The released code: 80 epochs, all of them log-spaced, at rates times the number of labels ...
    Rule(
        least_categories=2,
        # ... and no negatives: each category is the others'.
        set={"train.epochs": 80, "train.decay_epochs": None, "data.negatives": "other_categories"},
        by_categories=_RATES,
    ),
    # ... a fifth of them for softmax, a tenth for more than ten labels.
    Rule(when={"loss": "softmax"}, least_categories=2, multiply=dict.fromkeys(_RATES, 1 / 5)),
    Rule(least_categories=11, multiply=dict.fromkeys(_RATES, 1 / 10)),
)

_LAPTOP = Profile(
    name="laptop",
    description="Generated animals, small inputs and widths, AlexNet unless told otherwise: minutes on two cores.",
    base={
        "model": {"width": 0.25, "input_size": 128, "fc_width": 256, "dropout": 0.2},
        "data": {
            "images": "generated",
            "train_per_category": 240,
            "test_per_category": 100,
            "negatives_per_positive": 1.0,
        },
        "weights": GENERATED_PRETRAINING,
        "train": {
            "epochs": 12,
            "batch_size": 32,
            "learning_rate": 0.02,
            "final_learning_rate": 0.002,
            "max_grad_norm": 5.0,
            "freeze_below": "top_conv",
        },
        # One valid unit an image on a 7 x 7 map, as the paper's 0.005 leaves on VGG-16's 14 x 14.
        "evaluation": {"split": "test", "valid_share": 0.02},
    },
    photographs={
        "data": {
            "images": "photographs",
            "train_per_category": None,
            "test_per_category": None,
        },
        "train": {"epochs": 40},
        "evaluation": {"split": "all"},
    },
    axes={"backbone": ("alexnet",)},
    rules=(
        # At half the width all four measure 64 filters, as AlexNet does at a quarter.
        Rule(when={"backbone": ["vgg_m", "vgg_s"]}, set={"model.width": 0.125}),
        Rule(when={"backbone": "vgg16"}, set={"model.width": 0.125, "model.input_size": 96}),
        _SEVERAL_CATEGORIES,
    ),
)

_PAPER = Profile(
    name="paper",
    description="224 px, full width and the authors' schedules; for GPUs and the real data sets.",
    base={
        "model": {"width": 1.0, "input_size": 224, "fc_width": 4096, "dropout": 0.8},
        "data": {"images": "photographs", "negatives": "folder", "negatives_per_positive": 1 / 3},
        "weights": {"source": "torchvision"},
        "train": {
            "epochs": 50,
            "decay_epochs": 10,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "bias_lr_multiplier": 5.0,
            "new_bias_lr_multiplier": 2.0,
        },
        "evaluation": {"split": "all"},
    },
    photographs={},
    rules=(
        # The released code's batch sizes, and its 1e-4 -> 1e-5 times a factor of the backbone.
        _schedule("alexnet", "alexnet_2012", batch_size=512, factor=30),
        _schedule("vgg_m", batch_size=196, factor=30),
        _schedule("vgg_s", batch_size=128, factor=10),
        _schedule("vgg16", batch_size=32, factor=1),
        *_RELEASED_SEVERAL,
        # torchvision publishes no weights for these.
        Rule(when={"backbone": ["vgg_m", "vgg_s", "alexnet_2012"]}, set={"weights": GENERATED_PRETRAINING}),
        # Without padding, the original AlexNet's maps have their published 13 x 13 units from 227 px.
        Rule(when={"backbone": "alexnet_2012"}, set={"model.input_size": 227}),
    ),
    resources=Resources(memory_gb_per_worker=8.0),
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (_LAPTOP, _PAPER)}
