"""Which images a job trains and tests on, how they are split, and what the outputs distinguish."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Fraction, Frozen, Listed, Positive, did_you_mean, nearest
from schemas.categories import BY_ID, category_of, is_category

SPECIES_OF = "cub200/bird"
"""The category whose data set names species."""
_OFFICIALLY_SPLIT = "cub200"
"""The data set that was published with a split."""


def has_official_split(categories: Iterable[str]) -> bool:
    """Whether one of the categories was published with a split."""
    return any(category_of(name).dataset == _OFFICIALLY_SPLIT for name in categories)


class DataSpec(Frozen):
    """Images, split and labels of a job."""

    categories: Annotated[tuple[str, ...], Listed]
    """Category ids such as `voc_part/cat`, or `mittens/cat` of an imported data set: one for a single-category job,
    several for a multi-category job."""
    images: Literal["generated", "photographs"] = "generated"
    """Source of the images: drawn by orch, or read from the data sets."""
    negatives: Literal["other_categories", "folder"] = "other_categories"
    """Negative images of a single-category job: the other categories (Sec. 5.1), or a folder of photographs (the
    authors' released code). The other categories of an imported one are those of its data set and its `neg`."""
    negatives_per_positive: Positive = 1.0
    """Number of negative images per positive image, copies included, for single-category jobs."""
    repeat_negatives: bool = False
    """Whether negatives are repeated where there are fewer than `negatives_per_positive` asks for."""
    train_per_category: Annotated[int, Field(ge=2)] | None = None
    """Number of training images per category: exact for generated images, an upper limit for photographs. None uses
    all photographs."""
    test_per_category: Annotated[int, Field(ge=2)] | None = None
    """Number of test images per category, as for `train_per_category`."""
    fewest_copies: Annotated[int, Field(ge=2)] | None = None
    """Makes each image of a category and its mirror image two copies, and repeats them to at least this number,
    training and test together; `test_fraction` of the copies are test images. None, without `most_copies`, takes each
    image once."""
    most_copies: Annotated[int, Field(ge=2)] | None = None
    """As `fewest_copies`: at most this number of copies."""
    split: Literal["even", "official", "seeded"] = "even"
    """How photographs are divided into training and test images: evenly spaced (the authors' released code), as
    published with the data set (CUB only; other categories and negatives evenly spaced), or at random from
    `split_seed`. Pre-training on photographs takes the split of the job that starts from it."""
    split_seed: int = 0
    """Seed of the `seeded` split."""
    test_fraction: Fraction = 0.1
    """Fraction of the photographs that is held out for testing."""
    negatives_test_fraction: Fraction | None = None
    """The same for the folder of negatives; None takes `test_fraction`."""
    held_out_categories: Annotated[tuple[str, ...], Listed] = ()
    """Further categories whose test photographs are not trained on, whatever else they show. The planner gives
    pre-training on photographs those that the jobs that start from it are tested on."""
    labels: Literal["categories", "species", "everything"] = "categories"
    """Classes of a multi-category network: the categories, or the bird species in place of `cub200/bird`, or every kind
    that the data root has photographs of: animals, bird species, and the folder of negatives (for pre-training)."""
    label_names: Annotated[tuple[str, ...], Listed] = ()
    """Names of the outputs when the classes are species or kinds. The planner fills it in from the data."""
    digest: str = ""
    """Digest of images and annotations, so that changed data make a new job. The planner fills it in."""

    @property
    def is_single(self) -> bool:
        """Whether the job distinguishes one category from negative images."""
        return len(self.categories) == 1 and self.labels == "categories"

    def held_out(self, category: str) -> tuple[str, float, int]:
        """Return what decides which photographs of a category are test images: equal values, equal test images."""
        if self.split == "official" and category_of(category).dataset == _OFFICIALLY_SPLIT:
            return "official", 0.0, 0
        return ("even" if self.split == "official" else self.split), self.test_fraction, self.split_seed

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.categories:
            raise ValueError("`data.categories` is empty. Name at least one, such as `voc_part/cat`.")
        for field, names in (("categories", self.categories), ("held_out_categories", self.held_out_categories)):
            for name in names:
                if not is_category(name):
                    raise ValueError(f"`data.{field}` has {name!r}, which is not one. {did_you_mean(name, BY_ID)}")
                if name not in BY_ID and self.images == "generated":
                    raise ValueError(
                        f"`data.{field}` has {name}, which is not one of the generated animals. {nearest(name, BY_ID)} "
                        "If it belongs to an imported data set, pass the `--data-root` that it was imported into."
                    )
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
        if self.negatives_test_fraction is not None and self.negatives != "folder" and self.labels != "everything":
            raise ValueError(
                f"`data.negatives_test_fraction` is {self.negatives_test_fraction:g} but `data.negatives` is "
                "'other_categories', of which `data.test_fraction` is held out. Remove it, or set "
                "`data.negatives: folder`."
            )
        if self.fewest_copies and self.most_copies and self.fewest_copies > self.most_copies:
            raise ValueError(
                f"`data.fewest_copies` is {self.fewest_copies}, which is more than `data.most_copies`, "
                f"{self.most_copies}. Lower it, or raise `data.most_copies`."
            )
        if self.labels == "species" and (self.images == "generated" or SPECIES_OF not in self.categories):
            raise ValueError(
                f"`data.labels` is 'species', which only photographs of {SPECIES_OF} have. "
                f"Set `data.images: photographs` and name {SPECIES_OF}, or set `data.labels: categories`."
            )
        if self.labels == "everything" and self.images == "generated":
            raise ValueError(
                "`data.labels` is 'everything', which only photographs have. Set `data.images: photographs`."
            )
        if self.split == "official" and not has_official_split(self.categories):
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
