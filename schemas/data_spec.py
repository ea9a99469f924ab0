"""Which images a job trains and tests on, how they are split, and what the outputs distinguish."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Fraction, Frozen, Listed, Positive, did_you_mean
from schemas.categories import BY_ID

SPECIES_OF = "cub200/bird"
"""The category whose data set names species."""


class DataSpec(Frozen):
    """Images, split and labels of a job."""

    categories: Annotated[tuple[str, ...], Listed]
    """Category ids such as `voc_part/cat`: one for a single-category job, several for a multi-category job."""
    images: Literal["generated", "photographs"] = "generated"
    """Source of the images: drawn by orch, or read from the data sets."""
    negatives: Literal["other_categories", "folder"] = "other_categories"
    """Negative images of a single-category job: the other categories (Sec. 5.1), or a folder of photographs (the
    authors' released code)."""
    negatives_per_positive: Positive = 1.0
    """Number of negative images per positive image, for single-category jobs."""
    train_per_category: Annotated[int, Field(ge=2)] | None = None
    """Number of training images per category: exact for generated images, an upper limit for photographs. None uses
    all photographs."""
    test_per_category: Annotated[int, Field(ge=2)] | None = None
    """Number of test images per category, as for `train_per_category`."""
    split: Literal["even", "official", "seeded"] = "even"
    """How photographs are divided into training and test images: evenly spaced (the authors' released code), as
    published with the data set (CUB only), or at random from `split_seed`."""
    split_seed: int = 0
    """Seed of the `seeded` split."""
    test_fraction: Fraction = 0.1
    """Fraction of the photographs that is held out for testing."""
    labels: Literal["categories", "species"] = "categories"
    """Classes of a multi-category network: the categories, or the bird species in place of `cub200/bird`."""
    label_names: Annotated[tuple[str, ...], Listed] = ()
    """Names of the outputs when the classes are species. The planner fills it in from the data set."""
    digest: str = ""
    """Digest of images and annotations, so that changed data make a new job. The planner fills it in."""

    @property
    def is_single(self) -> bool:
        """Whether the job distinguishes one category from negative images."""
        return len(self.categories) == 1 and self.labels == "categories"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.categories:
            raise ValueError("`data.categories` is empty. Name at least one, such as `voc_part/cat`.")
        for name in self.categories:
            if name not in BY_ID:
                raise ValueError(f"`data.categories` has {name!r}, which is not one. {did_you_mean(name, BY_ID)}")
        if len(set(self.categories)) != len(self.categories):
            raise ValueError(f"`data.categories` names a category twice: {', '.join(self.categories)}.")
        if self.images == "generated" and None in (self.train_per_category, self.test_per_category):
            raise ValueError(
                "`data.images` is 'generated', but the number of images is missing: "
                "set `data.train_per_category` and `data.test_per_category`."
            )
        if self.images == "generated" and self.negatives == "folder":
            raise ValueError(
                "`data.negatives` is 'folder' but `data.images` is 'generated'. "
                "Generated images take their negatives from other categories: set `data.negatives: other_categories`."
            )
        if self.labels == "species" and (self.images == "generated" or SPECIES_OF not in self.categories):
            raise ValueError(
                f"`data.labels` is 'species', which only photographs of {SPECIES_OF} have. "
                f"Set `data.images: photographs` and name {SPECIES_OF}, or set `data.labels: categories`."
            )
        if self.split == "official" and any(BY_ID[name].dataset != "cub200" for name in self.categories):
            raise ValueError("`data.split: official` exists for cub200 only. Use `data.split: even`.")
        if self.split == "seeded" and self.images == "generated":
            raise ValueError(
                "`data.split` is 'seeded' but `data.images` is 'generated', which has no split. "
                "Remove it, or set `data.images: photographs`."
            )
        if self.split_seed and self.split != "seeded":
            raise ValueError(
                f"`data.split_seed` is {self.split_seed} but `data.split` is {self.split!r}, which has no seed. "
                "Remove it, or set `data.split: seeded`."
            )
        return self
