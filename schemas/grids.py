"""The built-in grids, as data."""

from __future__ import annotations

from schemas.categories import CATEGORIES, DatasetName
from schemas.profiles import GENERATED_PRETRAINING
from schemas.sweep import SweepSpec

BACKBONES = ("alexnet", "vgg_m", "vgg_s", "vgg16")
VARIANTS = ("ordinary", "interpretable")


def _categories(*datasets: DatasetName) -> tuple[str, ...]:
    return tuple(c.id for c in CATEGORIES if not datasets or c.dataset in datasets)


def _single(name: str, description: str, *datasets: DatasetName) -> SweepSpec:
    axes = {"category": _categories(*datasets), "backbone": BACKBONES, "variant": VARIANTS}
    return SweepSpec(name=name, description=description, axes=axes)


GRIDS: dict[str, SweepSpec] = {
    grid.name: grid
    for grid in (
        _single("all-categories", "Every category, one network each (Tables 1, 3, 4, 5 and half of 7)."),
        _single("ilsvrc-animal-part", "The 30 ILSVRC 2013 DET Animal-Part categories (Table 3).", "ilsvrc_animal_part"),
        _single("voc-part", "The 6 Pascal VOC Part categories (Tables 1 and 4).", "voc_part"),
        _single("cub200", "CUB-200-2011, birds as one category (Table 5).", "cub200"),
        SweepSpec(
            name="smoke",
            description="Eight short jobs that pass through every part of the system.",
            base={
                "model": {"input_size": 64, "width": 0.125, "fc_width": 64},
                "data": {"train_per_category": 24, "test_per_category": 12},
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
