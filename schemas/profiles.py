"""The built-in profiles, as data: the paper's setting, and one for a machine without GPU or data sets."""

from __future__ import annotations

from typing import Any

from schemas.categories import CATEGORIES
from schemas.model_spec import BackboneName
from schemas.sweep import Profile, Resources, Rule

GENERATED_PRETRAINING: dict[str, Any] = {
    "source": "pretrain",
    "data": {
        "categories": tuple(category.id for category in CATEGORIES),
        "images": "generated",
        "train_per_category": 240,
        "test_per_category": 20,
    },
}
"""Starting weights from pre-training on generated animals of all 37 categories."""


def _schedule(*backbones: BackboneName, batch_size: int, factor: float) -> Rule:
    """Return the released code's batch size and learning rates: 1e-4 to 1e-5 times the backbone's factor."""
    return Rule(
        when={"backbone": list(backbones)},
        set={
            "train.batch_size": batch_size,
            "train.learning_rate": 1e-4 * factor,
            "train.final_learning_rate": 1e-5 * factor,
        },
    )


_RATES = ("train.learning_rate", "train.final_learning_rate")

_MULTI_CATEGORY = Rule(when={"variant": "interpretable"}, least_categories=2, set={"filter_loss.assignment": "steady"})
_RELEASED_MULTI_CATEGORY = (
    _MULTI_CATEGORY,
    # The released code: 80 epochs with log-spaced learning rates, multiplied by the number of labels.
    Rule(
        least_categories=2,
        # There are no negative images.
        set={"train.epochs": 80, "train.decay_epochs": None, "data.negatives": "other_categories"},
        by_categories=_RATES,
    ),
    # The rates are divided by 5 for softmax, and by 10 for more than ten labels.
    Rule(when={"loss": "softmax"}, least_categories=2, multiply=dict.fromkeys(_RATES, 1 / 5)),
    Rule(least_categories=11, multiply=dict.fromkeys(_RATES, 1 / 10)),
)

_LAPTOP = Profile(
    name="laptop",
    description="Generated animals, small inputs and widths, AlexNet by default: minutes on two cores.",
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
        # One valid unit per image on a 7 x 7 map, as the paper's 0.005 gives on VGG-16's 14 x 14 map.
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
        # 64 measured filters for every backbone, as for AlexNet at width 0.25.
        Rule(when={"backbone": ["vgg_m", "vgg_s"]}, set={"model.width": 0.125}),
        Rule(when={"backbone": "vgg16"}, set={"model.width": 0.125, "model.input_size": 96}),
        _MULTI_CATEGORY,
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
        _schedule("alexnet", "alexnet_2012", batch_size=512, factor=30),
        _schedule("vgg_m", batch_size=196, factor=30),
        _schedule("vgg_s", batch_size=128, factor=10),
        _schedule("vgg16", batch_size=32, factor=1),
        *_RELEASED_MULTI_CATEGORY,
        # torchvision publishes no weights for these backbones.
        Rule(when={"backbone": ["vgg_m", "vgg_s", "alexnet_2012"]}, set={"weights": GENERATED_PRETRAINING}),
        # conv1 of the original AlexNet has no padding: 13 x 13 maps need an input of 227 px.
        Rule(when={"backbone": "alexnet_2012"}, set={"model.input_size": 227}),
    ),
    resources=Resources(memory_gb_per_worker=8.0),
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (_LAPTOP, _PAPER)}
"""Name -> built-in profile."""
