"""The built-in grids, as data."""

from __future__ import annotations

from typing import Any

from schemas.categories import CATEGORIES, DatasetName
from schemas.profiles import GENERATED_PRETRAINING
from schemas.sweep import SweepSpec

BACKBONES = ("alexnet", "vgg_m", "vgg_s", "vgg16")
"""The paper's four backbones (Sec. 5)."""
VARIANTS = ("ordinary", "interpretable")
"""Baseline and interpretable network."""
LOSSES = ("logistic", "softmax")
"""Task losses of multi-category networks (Sec. 5.1)."""


def _categories(*datasets: str) -> tuple[str, ...]:
    return tuple(c.id for c in CATEGORIES if not datasets or c.dataset in datasets)


def _single(name: str, description: str, *datasets: DatasetName) -> SweepSpec:
    axes = {"category": _categories(*datasets), "backbone": BACKBONES, "variant": VARIANTS}
    return SweepSpec(name=name, description=description, axes=axes)


def _multi(name: str, description: str, dataset: DatasetName) -> SweepSpec:
    """Return a grid of networks that each learn all categories of a data set."""
    axes = {"category": (_categories(dataset),), "backbone": BACKBONES, "loss": LOSSES, "variant": VARIANTS}
    return SweepSpec(name=name, description=description, axes=axes)


def _multi_in_the_paper() -> tuple[dict[str, Any], ...]:
    """Return the multi-category networks of Tables 2, 6 and 7: six for VOC Part, two for ILSVRC, in both variants."""
    networks = [("voc_part", backbone, loss) for backbone in ("vgg_m", "vgg_s", "vgg16") for loss in LOSSES]
    networks += [("ilsvrc_animal_part", backbone, "logistic") for backbone in ("vgg_m", "vgg_s")]
    return tuple(
        {"category": _categories(dataset), "backbone": backbone, "loss": loss, "variant": variant}
        for dataset, backbone, loss in networks
        for variant in VARIANTS
    )


GRIDS: dict[str, SweepSpec] = {
    grid.name: grid
    for grid in (
        SweepSpec(
            name="first",
            description="A first look: cat, dog and horse, ordinary and interpretable, in minutes.",
            axes={
                "category": ("voc_part/cat", "voc_part/dog", "voc_part/horse"),
                "backbone": ("alexnet",),
                "variant": VARIANTS,
            },
        ),
        SweepSpec(
            name="paper",
            description="Every network behind Tables 1-7: 296 of one category each, 16 of several.",
            axes={"category": _categories(), "backbone": BACKBONES, "variant": VARIANTS},
            include=_multi_in_the_paper(),
        ),
        _single("all-categories", "Every category, one network each (Tables 1, 3, 4, 5 and half of 7)."),
        _single("ilsvrc-animal-part", "The 30 ILSVRC 2013 DET Animal-Part categories (Table 3).", "ilsvrc_animal_part"),
        _single("voc-part", "The 6 Pascal VOC Part categories (Tables 1 and 4).", "voc_part"),
        _single("cub200", "CUB-200-2011, birds as one category (Table 5).", "cub200"),
        SweepSpec(
            name="paper-multi",
            description="The 16 networks of several categories in the paper (Tables 2 and 6, and their part of 7).",
            include=_multi_in_the_paper(),
        ),
        _multi("voc-part-multi", "The 6 VOC categories in one network, both losses (Tables 2, 6 and 7).", "voc_part"),
        _multi(
            "ilsvrc-multi",
            "The 30 ILSVRC categories in one network, both losses (Tables 6 and 7).",
            "ilsvrc_animal_part",
        ),
        SweepSpec(
            name="smoke",
            description="Tests the installation: eight networks that learn nothing pass through every part.",
            base={
                "model": {"input_size": 64, "width": 0.125, "fc_width": 64},
                "data": {
                    "train_per_category": 24,
                    "test_per_category": 12,
                    "fewest_copies": None,
                    "most_copies": None,
                },
                "train": {"epochs": 2},
                "weights": {
                    **GENERATED_PRETRAINING,
                    "epochs": 1,
                    "data": {**GENERATED_PRETRAINING["data"], "train_per_category": 8, "test_per_category": 4},
                },
            },
            axes={
                "category": ("voc_part/cat", "cub200/bird"),
                "backbone": ("alexnet", "vgg16"),
                "variant": VARIANTS,
            },
        ),
    )
    if grid.name is not None
}
"""Name -> built-in grid."""
