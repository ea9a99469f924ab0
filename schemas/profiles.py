"""The built-in profiles, as data: the paper's setting, and one for a machine without GPU or data sets."""

from __future__ import annotations

from typing import Any

from schemas.categories import CATEGORIES
from schemas.data_spec import SPECIES_OF
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

_WHOLE_PRETRAINING = Rule(
    when={"weights.source": "pretrain", "weights.data.images": "photographs"},
    set={"weights.data.train_per_category": None, "weights.data.test_per_category": None},
)
"""Pre-training on photographs uses all of them: the counts of `GENERATED_PRETRAINING` are for drawn animals."""

_MULTI_CATEGORY = Rule(when={"variant": "interpretable"}, least_categories=2, set={"filter_loss.assignment": "steady"})
_RELEASED_MULTI_CATEGORY = (
    _MULTI_CATEGORY,
    # The released code: 80 epochs with log-spaced learning rates, multiplied by the number of labels.
    Rule(
        least_categories=2,
        set={
            "train.epochs": 80,
            "train.decay_epochs": None,
            "data.negatives": "other_categories",  # there are no negative images
            "data.fewest_copies": 1500,
            "data.most_copies": None,
        },
        by_categories=_RATES,
    ),
    Rule(least_categories=11, set={"data.fewest_copies": 100, "data.most_copies": 400}),
    # The rates are divided by 5 for softmax, and by 10 for more than ten labels.
    Rule(when={"loss": "softmax"}, least_categories=2, multiply=dict.fromkeys(_RATES, 1 / 5)),
    Rule(least_categories=11, multiply=dict.fromkeys(_RATES, 1 / 10)),
)

_RELEASED_CUB = Rule(
    when={"category": SPECIES_OF, "data.images": "photographs"},
    # The released code: each bird once, on its side of the published split, beside 500 negatives four times. Filters
    # are measured on test images.
    set={
        "data.split": "official",
        "data.fewest_copies": None,
        "data.most_copies": None,
        "data.negatives_per_positive": 2000 / 5994,
        "data.repeat_negatives": True,
        "evaluation.split": "test",
    },
)

_RELEASED_CUB_NEGATIVES = Rule(
    when={"category": SPECIES_OF, "data.images": "photographs", "data.negatives": "folder"},
    # The released code tests the other 500 negatives.
    set={"data.negatives_test_fraction": 0.5},
)
_OTHER_SPLIT_OF_CUB = Rule(
    when={"category": SPECIES_OF, "data.split": ["even", "seeded"]}, set={"data.negatives_test_fraction": None}
)
"""For those who set another split: as many negatives are tested as birds."""

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
        # Settled on photographs of cats and birds (examples/settings.yaml, docs/filter-loss.md).
        "filter_loss": {"weight": 1e-2, "schedule": "constant"},
        "train": {"epochs": 40},
        "evaluation": {"split": "all"},
    },
    axes={"backbone": ("alexnet",)},
    rules=(
        # 64 measured filters for every backbone, as for AlexNet at width 0.25.
        Rule(when={"backbone": ["vgg_m", "vgg_s"]}, set={"model.width": 0.125}),
        Rule(when={"backbone": "vgg16"}, set={"model.width": 0.125, "model.input_size": 96}),
        _MULTI_CATEGORY,
        _WHOLE_PRETRAINING,
    ),
)

_PAPER = Profile(
    name="paper",
    description="224 px, full width and the authors' schedules; for GPUs and the real data sets.",
    base={
        "model": {"width": 1.0, "input_size": 224, "fc_width": 4096, "dropout": 0.8},
        # The released code: positives and their mirror images, repeated to 3,000, beside 1,000 negatives, nine tenths
        # of each for training.
        "data": {
            "images": "photographs",
            "negatives": "folder",
            "negatives_per_positive": 1 / 3,
            "fewest_copies": 3000,
            "most_copies": 3000,
        },
        "weights": {"source": "torchvision"},
        "train": {
            "epochs": 50,
            "decay_epochs": 10,
            "horizontal_flip": False,
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
        _RELEASED_CUB,
        _RELEASED_CUB_NEGATIVES,
        _OTHER_SPLIT_OF_CUB,
        # torchvision publishes no weights for these backbones.
        Rule(when={"backbone": ["vgg_m", "vgg_s", "alexnet_2012"]}, set={"weights": GENERATED_PRETRAINING}),
        _WHOLE_PRETRAINING,
        # conv1 of the original AlexNet has no padding: 13 x 13 maps need an input of 227 px.
        Rule(when={"backbone": "alexnet_2012"}, set={"model.input_size": 227}),
    ),
    resources=Resources(memory_gb_per_worker=8.0),
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (_LAPTOP, _PAPER)}
"""Name -> built-in profile."""
