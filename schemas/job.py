"""What one job is. A job's identity is its spec, so equal specs have equal keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Frozen, did_you_mean
from schemas.categories import BY_ID, CATEGORIES

RECIPE_VERSION = 2
"""Raised when the code changes what an unchanged spec computes, so that old results are not taken for new ones; a
changed default is such a change."""
CHECKPOINT_EVERY = 1

BackboneName = Literal["alexnet", "vgg_m", "vgg_s", "vgg16", "alexnet_2012"]
"""`alexnet` is torchvision's; `alexnet_2012` the original with groups and normalisation, which the paper used."""
Variant = Literal["ordinary", "interpretable"]
LossKind = Literal["logistic", "softmax"]

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


SPECIES_OF = "cub200/bird"
"""The category whose data set names species."""


class DataSpec(Frozen):
    categories: tuple[str, ...]
    """Category ids such as `voc_part/cat`; one for a single-category job, more for a multi-category one."""
    images: Literal["generated", "photographs"] = "generated"
    negatives: Literal["other_categories", "folder"] = "other_categories"
    """Single-category jobs: the other categories (Sec. 5.1), or a folder of photographs (the released code)."""
    negatives_per_positive: Positive = 1.0
    train_per_category: Annotated[int, Field(ge=2)] | None = None
    """How many generated animals, or at most how many photographs; None takes all photographs."""
    test_per_category: Annotated[int, Field(ge=2)] | None = None
    split: Literal["even", "official", "seeded"] = "even"
    """Evenly spaced as in the released code, the split that the data set publishes (CUB), or drawn by `split_seed`."""
    split_seed: int = 0
    test_fraction: Fraction = 0.1
    labels: Literal["categories", "species"] = "categories"
    """What a network of several outputs tells apart: the categories, or in place of `cub200/bird` its species."""
    label_names: tuple[str, ...] = ()
    """One an output where labels are species; filled in by the planner, who finds out which species there are."""
    digest: str = ""
    """Of images and annotations; filled in by the planner, so that changed data make a new job."""

    @property
    def is_single(self) -> bool:
        """One category against images of others."""
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
                "`data.images` is 'generated', so someone must say how many: "
                "set `data.train_per_category` and `data.test_per_category`."
            )
        if self.images == "generated" and self.negatives == "folder":
            raise ValueError(
                "`data.negatives` is 'folder' but `data.images` is 'generated'. "
                "Generated animals take them from the other categories: set `data.negatives: other_categories`."
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
                "`data.split` is 'seeded' but `data.images` is 'generated', whose test animals are drawn apart. "
                "Leave it out, or set `data.images: photographs`."
            )
        if self.split_seed and self.split != "seeded":
            raise ValueError(
                f"`data.split_seed` is {self.split_seed} but `data.split` is {self.split!r}, which has no seed. "
                "Remove it, or set `data.split: seeded`."
            )
        return self


class ModelSpec(Frozen):
    backbone: BackboneName
    variant: Variant
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Multiplies every channel count; 1 is the published network."""
    input_size: Annotated[int, Field(ge=48, le=512)] = 224
    """Side of the square input, pixels."""
    fc_width: Annotated[int, Field(ge=8)] = 4096
    """Units of fc6 and fc7."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    mask: bool = True
    """Interpretable layers only: multiply by the template at the peak. False is an ablation."""


class FilterLossSpec(Frozen):
    form: Literal["labelled", "exact", "full", "approximate"] = "labelled"
    """How Eqs. 1-5 become a gradient; docs/filter-loss.md has them side by side. `full` and `approximate` are Eq. 4."""
    weight: NonNegative = 1e-3
    """Of the loss summed over filters, beside a task loss averaged over images."""
    schedule: Literal["inverse_epoch", "constant", "activation"] = "inverse_epoch"
    """lambda = weight / t, or weight, or the paper's weight / t * mean_x max_ij x_ij (Sec. 5)."""
    logit_scale: Positive = 1.0
    """`labelled` and `exact`: nats by which a lone unit at the filter's mean peak fits its template."""
    gradient_scope: Literal["layer", "network"] = "network"
    """How deep the gradient flows: into the interpretable layer's own weights, or through all trained layers."""
    assignment: Literal["running", "steady"] = "running"
    """Networks of several categories: how a filter finds the category that activates it most. By a mean that runs over
    batches (the released code), or by one over more images that it leaves for a clearly stronger category only. A
    network of one category gives all filters that one, as the released code does."""


class PretrainSpec(Frozen):
    """Weights from an upstream job that learns many categories at once with the same backbone."""

    source: Literal["pretrain"] = "pretrain"
    data: DataSpec
    epochs: Annotated[int, Field(ge=1)] = 8
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Positive = 0.05
    """Falls log-spaced to a hundredth of itself."""
    max_grad_norm: Positive | None = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Narrow layers that learn from scratch in a few epochs have nothing to spare."""
    seed: int = 0


class TorchvisionWeights(Frozen):
    source: Literal["torchvision"] = "torchvision"


class FileWeights(Frozen):
    source: Literal["file"] = "file"
    path: str
    sha256: str = ""
    """Filled in by the planner; the content, not the path, is what decides the result."""
    label: str = ""
    """What an imported file says that its numbers learned; filled in by the planner, for tables and figures."""


class RandomWeights(Frozen):
    source: Literal["random"] = "random"


WeightsSpec = Annotated[PretrainSpec | TorchvisionWeights | FileWeights | RandomWeights, Field(discriminator="source")]


class TrainSpec(Frozen):
    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=2)] = 32
    """At least 2: the filter loss normalises over the images of a batch (Eq. 2)."""
    learning_rate: Positive = 0.01
    final_learning_rate: Positive | None = None
    """Reached log-spaced over `decay_epochs`, then held; None keeps `learning_rate`."""
    decay_epochs: Annotated[int, Field(ge=1)] | None = None
    """None spreads the decay over all epochs."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 5e-4
    freeze_below: str | None = None
    """Layers before this one keep their weights: a layer's name such as `conv4`, or `top_conv` for the backbone's
    last; None trains every layer (the paper)."""
    horizontal_flip: bool = True
    """Flip half of the training images left to right, anew in each epoch."""
    bias_lr_multiplier: Positive = 1.0
    """Learning-rate multiplier for the biases of the backbone's top convolution; 5 in the released code."""
    new_bias_lr_multiplier: Positive = 1.0
    """Learning-rate multiplier for the biases of the new layers (conv6, fc6 to fc8); 2 in the released code."""
    max_grad_norm: Positive | None = None
    """Largest norm of the whole gradient; None does not clip."""
    checkpoint_every: Annotated[int, Field(ge=1)] = CHECKPOINT_EVERY
    """Epochs between checkpoints. No part of a job's key: the result is the same."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Batches between checkpoints within an epoch, for epochs that are long; None has none there. No part of the key
    either."""


class EvaluationSpec(Frozen):
    split: Literal["test", "all"] = "test"
    """Images on which filters are measured: held-out ones (the text), or every annotated one (the released code)."""
    top_images: Annotated[int, Field(ge=2)] = 100
    """Per filter and landmark (Sec. 5.2.2)."""
    fewest_images: Annotated[int, Field(ge=2)] = 2
    """On which a filter's deviation at a landmark must rest; 2 as in the released code. With many categories the lowest
    of a filter's deviations (min_c) may be that of a category on which it fires twice: 20 rules that out."""
    valid_share: Fraction = 0.005
    """p(x_ij > T_f): the share of a filter's units, over all images, that part interpretability takes for valid (Sec.
    5.2.1). On maps of 13 to 17 units a side that is about one unit an image; on smaller maps it is fewer, and an image
    without a valid unit is associated with no part."""
    part_regions: Literal["round", "bilinear"] = "round"
    """From a filter's strongest units to a region of the image (Sec. 5.2.1): a disc around each unit's centre (footnote
    5), or Network Dissection's bilinear up-scaling of the map."""
    round_radius: Annotated[float, Field(gt=0, le=1)] = 0.15
    """Of the disc, as a share of the input's side. The paper does not give it (footnote 5): 0.15 makes a disc about as
    large as an animal's head in its crop. Compare networks at one radius only."""


class JobSpec(Frozen):
    recipe: int = RECIPE_VERSION
    data: DataSpec
    model: ModelSpec
    loss: LossKind = "logistic"
    weights: WeightsSpec = RandomWeights()
    filter_loss: FilterLossSpec | None = None
    """None on an ordinary network, and on an interpretable one that has the mask alone."""
    train: TrainSpec = TrainSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.filter_loss is not None and self.model.variant == "ordinary":
            raise ValueError(
                "`filter_loss` is given but `model.variant` is 'ordinary', so no layer has a filter loss. "
                "Remove `filter_loss` for the baseline, or set `model.variant: interpretable`."
            )
        if not self.model.mask and self.model.variant == "ordinary":
            raise ValueError(
                "`model.mask: false` is given but `model.variant` is 'ordinary', which has no mask to take away. "
                "Remove it, or set `model.variant: interpretable`."
            )
        if self.data.labels == "species" and self.model.variant == "interpretable":
            raise ValueError(
                "`data.labels` is 'species', but filters of an interpretable network stand for categories. "
                "Species are for pre-training: set `weights.data.labels: species`, and `data.labels: categories`."
            )
        if self.is_single and self.loss == "softmax":
            raise ValueError(
                "`loss` is 'softmax' for one category against the rest. Single-category networks take the "
                "logistic log loss (Sec. 5.1): set `loss: logistic`, or name several `data.categories`."
            )
        return self

    @property
    def is_single(self) -> bool:
        """One category against images of others; otherwise as many outputs as categories."""
        return self.data.is_single

    @property
    def n_outputs(self) -> int:
        return len(self.output_labels)

    @property
    def output_labels(self) -> tuple[str, ...]:
        """What a person calls each output."""
        return self.data.label_names or tuple(BY_ID[name].label for name in self.data.categories)

    @property
    def upstream(self) -> JobSpec | None:
        """The job whose final weights this one starts from."""
        if not isinstance(self.weights, PretrainSpec):
            return None
        recipe = self.weights
        return JobSpec(
            recipe=self.recipe,
            data=recipe.data,
            model=self.model.model_copy(update={"variant": "ordinary", "mask": True, "dropout": recipe.dropout}),
            loss="softmax",
            train=TrainSpec(
                epochs=recipe.epochs,
                batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                final_learning_rate=recipe.learning_rate / 100,
                max_grad_norm=recipe.max_grad_norm,
            ),
            evaluation=EvaluationSpec(),  # its own, so that measuring otherwise does not train it again
            seed=recipe.seed,
        )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy has a key of its own: pydantic would take the cached one along."""
        copied = super().model_copy(update=update, deep=deep)
        vars(copied).pop("key", None)
        return copied

    @cached_property
    def key(self) -> str:
        """First 12 hex digits of the SHA-256 of what decides the result, the upstream job's key included."""
        upstream = self.upstream
        parts = [json.dumps(self._deciding, sort_keys=True), upstream.key if upstream else ""]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    @property
    def _deciding(self) -> dict[str, Any]:
        """What decides the result, as far as it departs from the defaults.

        So a field that is added with a default meaning "as before" leaves every key as it was. A default that is
        changed would make an old key mean a new job: `RECIPE_VERSION` is raised with it, and is always in here.
        Where a weights file lies does not count; its content does.
        """
        any_interval = {"checkpoint_every": CHECKPOINT_EVERY, "checkpoint_every_steps": None}
        update: dict[str, Any] = {"train": self.train.model_copy(update=any_interval)}
        if isinstance(self.weights, FileWeights) and self.weights.sha256:
            update["weights"] = self.weights.model_copy(update={"path": "", "label": ""})
        fields = self.model_copy(update=update).model_dump(mode="json", exclude_defaults=True)
        weights = {**fields.get("weights", {}), "source": self.weights.source}
        return {**fields, "recipe": self.recipe, "weights": weights}

    @property
    def title(self) -> str:
        """What a person calls the job: `voc-cat alexnet interpretable`, and how its filters depart from the default."""
        seed = f" seed {self.seed}" if self.seed else ""
        what = categories_label(self.data.categories, self.loss)
        if self.data.labels == "species":
            what += " by species"
        split = f" split {self.data.split_seed}" if self.data.split == "seeded" else ""
        return f"{what} {self.model.backbone} {self.model.variant}{self._departures}{seed}{split}"

    @property
    def _departures(self) -> str:
        usual = FilterLossSpec(assignment="running" if self.is_single else "steady")
        if self.model.variant == "ordinary" or (self.model.mask and self.filter_loss == usual):
            return ""
        if self.filter_loss is None:
            return " (mask alone)" if self.model.mask else " (neither mask nor loss)"
        own = self.filter_loss.model_dump()
        changed = [f"{name} {value}" for name, value in own.items() if value != getattr(usual, name)]
        return f" ({', '.join([*([] if self.model.mask else ['loss alone']), *changed])})"


def categories_label(categories: Sequence[str], loss: LossKind) -> str:
    """What a person calls the categories of a network: `voc-cat`, or `6 voc categories softmax`."""
    if len(categories) == 1:
        return BY_ID[categories[0]].label if categories[0] in BY_ID else categories[0]
    prefixes = {BY_ID[name].label_prefix if name in BY_ID else "" for name in categories}
    kind = f" {prefixes.pop()}" if len(prefixes) == 1 else ""
    return f"{len(categories)}{kind} categories {loss}"


ALL_CATEGORY_IDS = tuple(category.id for category in CATEGORIES)
