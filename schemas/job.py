"""What one job is. A job's identity is its spec, so equal specs have equal keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, Self

from pydantic import BaseModel, model_validator

from schemas.base import Frozen
from schemas.categories import category_of
from schemas.data_spec import SPECIES_OF, DataSpec
from schemas.evaluation_spec import EvaluationSpec
from schemas.model_spec import BackboneName, ModelSpec, Variant
from schemas.training_spec import (
    CHECKPOINT_EVERY,
    EverythingSpec,
    FileWeights,
    FilterLossSpec,
    ImagenetWeights,
    LossKind,
    PretrainSpec,
    RandomWeights,
    TorchvisionWeights,
    TrainSpec,
    WeightsSpec,
)

__all__ = [
    "RECIPE_VERSION",
    "SPECIES_OF",
    "BackboneName",
    "DataSpec",
    "EvaluationSpec",
    "EverythingSpec",
    "FileWeights",
    "FilterLossSpec",
    "ImagenetWeights",
    "JobSpec",
    "LossKind",
    "ModelSpec",
    "PretrainSpec",
    "RandomWeights",
    "TorchvisionWeights",
    "TrainSpec",
    "Variant",
    "WeightsSpec",
    "categories_label",
    "share_parts",
    "shared_dumps",
    "validated",
]

RECIPE_VERSION = 3
"""Version of what a spec computes. Raise it when the code or a default changes the result of an unchanged spec, so that
old results are not reused for new jobs."""


NAMING = ("is_pretraining", "differs_by")
"""Fields of a spec that only its title depends on."""
EVERYTHING = "everything labelled"
"""Words for the images of the source `everything` of starting weights."""


class JobSpec(Frozen):
    """Everything that decides the result of training and measuring one network."""

    recipe: int = RECIPE_VERSION
    """`RECIPE_VERSION` of the code that planned the job."""
    data: DataSpec
    """Images, split and labels."""
    model: ModelSpec
    """Architecture."""
    loss: LossKind = "logistic"
    """Task loss (Sec. 5.1)."""
    weights: WeightsSpec = RandomWeights()
    """Source of the backbone's starting weights."""
    filter_loss: FilterLossSpec | None = None
    """Filter loss of the interpretable layers; None for ordinary networks and for interpretable ones with only the
    mask."""
    train: TrainSpec = TrainSpec()
    """Optimisation, augmentation and checkpoints."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How the filters are measured."""
    seed: int = 0
    """Seed of initialisation, dropout, flips and the order of images."""
    is_pretraining: bool = False
    """Whether the job runs because others start from its weights. Part of its title, not of its identity."""
    differs_by: str = ""
    """Fields that tell the job from others of its sweep whose title would be the same. Not part of its identity."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.filter_loss is not None and self.model.variant == "ordinary":
            raise ValueError(
                "`filter_loss` is given but `model.variant` is 'ordinary', so no layer has a filter loss. "
                "Remove `filter_loss` for the baseline, or set `model.variant: interpretable`."
            )
        if not self.model.mask and self.model.variant == "ordinary":
            raise ValueError(
                "`model.mask: false` is given but `model.variant` is 'ordinary', which has no mask. "
                "Remove it, or set `model.variant: interpretable`."
            )
        if self.model.new_layer_std is not None and self.model.variant == "ordinary":
            raise ValueError(
                "`model.new_layer_std` is given but `model.variant` is 'ordinary', which has no new convolution. "
                "Remove it, or set `model.variant: interpretable`."
            )
        if self.data.labels != "categories" and self.model.variant == "interpretable":
            what, instead = {
                "species": ("Species are", "weights.data.labels: species"),
                "everything": ("Everything is", "weights.source: everything"),
            }[self.data.labels]
            raise ValueError(
                f"`data.labels` is {self.data.labels!r}, but the filters of an interpretable network are assigned to "
                f"categories. {what} for pre-training: set `{instead}`, and `data.labels: categories`."
            )
        if self.is_single and self.loss == "softmax":
            raise ValueError(
                "`loss` is 'softmax', but the job has a single category. Single-category networks use the "
                "logistic log loss (Sec. 5.1): set `loss: logistic`, or name several `data.categories`."
            )
        if isinstance(self.weights, PretrainSpec) and self.weights.data.is_single:
            raise ValueError(
                "`weights.data` has a single category, but pre-training tells several kinds apart. Name several "
                "`weights.data.categories`, or set `weights.data.labels: species`."
            )
        return self

    @property
    def is_single(self) -> bool:
        """Whether the network has one output, for one category against negative images."""
        return self.data.is_single

    @property
    def n_outputs(self) -> int:
        """Number of outputs: 1 for a single-category job, otherwise the number of classes."""
        return len(self.output_labels)

    @property
    def output_labels(self) -> tuple[str, ...]:
        """Display name of each output, in order."""
        return self.data.label_names or tuple(category_of(name).label for name in self.data.categories)

    @property
    def upstream(self) -> JobSpec | None:
        """The pre-training job whose final weights this job starts from, or None."""
        if not isinstance(self.weights, PretrainSpec | EverythingSpec):
            return None
        recipe, data = self.weights, self.weights.data
        if isinstance(recipe, EverythingSpec):  # what it holds out is what this job may be tested on
            own = self.data
            shared = ("split", "split_seed", "test_fraction", "negatives_test_fraction")
            data = data.model_copy(update={name: getattr(own, name) for name in shared})
        return JobSpec(
            recipe=self.recipe,
            data=data,
            model=self.model.model_copy(
                update={"variant": "ordinary", "mask": True, "new_layer_std": None, "dropout": recipe.dropout}
            ),
            loss="softmax",
            train=TrainSpec(
                epochs=recipe.epochs,
                batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                final_learning_rate=recipe.learning_rate / 100,
                max_grad_norm=recipe.max_grad_norm,
            ),
            evaluation=EvaluationSpec(),  # the default, so that changing `evaluation` does not repeat pre-training
            seed=recipe.seed,
            is_pretraining=True,
        )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with `update` applied. Drops the cached key, which pydantic would copy along."""
        copied = super().model_copy(update=update, deep=deep)
        vars(copied).pop("key", None)
        return copied

    @cached_property
    def key(self) -> str:
        """Identity of the job: the first 12 hex digits of the SHA-256 of all fields that decide the result.

        The upstream job's key is one of them.
        """
        upstream = self.upstream
        parts = [json.dumps(self._deciding, sort_keys=True), upstream.key if upstream else ""]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    @property
    def _deciding(self) -> dict[str, Any]:
        """Fields that decide the result and differ from their defaults, with the recipe version.

        A new field whose default means "as before" therefore changes no key. A changed default would give an old key a
        new meaning, so `RECIPE_VERSION` must be raised with it. The content of a weights file counts, its path does
        not.
        """
        default_interval = {"checkpoint_every": CHECKPOINT_EVERY, "checkpoint_every_steps": None}
        update: dict[str, Any] = {"train": self.train.model_copy(update=default_interval)}
        if isinstance(self.weights, FileWeights) and self.weights.sha256:
            update["weights"] = self.weights.model_copy(update={"path": "", "label": ""})
        decides = self.model_copy(update=update)
        fields = decides.model_dump(mode="json", exclude_defaults=True, exclude=set(NAMING))
        weights = {**fields.get("weights", {}), "source": self.weights.source}
        return {**fields, "recipe": self.recipe, "weights": weights}

    @property
    def title(self) -> str:
        """Display name such as `voc-cat alexnet interpretable`, followed by non-default filter settings and seeds."""
        seed = f" seed {self.seed}" if self.seed else ""
        what = categories_label(self.data.categories, None if self.is_pretraining else self.loss)
        if self.data.labels == "species":
            what += " by species"
        elif self.data.labels == "everything":
            what = EVERYTHING
        split = f" split {self.data.split_seed}" if self.data.split == "seeded" else ""
        differs = f" ({self.differs_by})" if self.differs_by else ""
        network = f"{self.model.backbone} {self.model.variant}{self._filter_settings}"
        name = f"pre-training {self.model.backbone} on {what}" if self.is_pretraining else f"{what} {network}"
        return f"{name}{seed}{split}{differs}"

    @property
    def _filter_settings(self) -> str:
        usual = _usual_filter_loss(self.is_single)
        std = self.model.new_layer_std
        start = [] if std is None else [f"new layer {std}"]
        if self.model.variant == "ordinary" or (self.model.mask and self.filter_loss == usual and not start):
            return ""
        if self.filter_loss is None:
            what = "mask alone" if self.model.mask else "neither mask nor loss"
            return f" ({', '.join([what, *start])})"
        own = self.filter_loss.model_dump()
        changed = [f"{name} {value}" for name, value in own.items() if value != getattr(usual, name)]
        return f" ({', '.join([*([] if self.model.mask else ['loss alone']), *changed, *start])})"


@cache
def _usual_filter_loss(is_single: bool) -> FilterLossSpec:
    """The filter loss that a title does not mention."""
    return FilterLossSpec(assignment="running" if is_single else "steady")


def share_parts(jobs: Iterable[JobSpec]) -> None:
    """Make equal parts of several specs, such as their images, one object. A sweep of 100,000 jobs has few parts."""
    known: dict[tuple[str, str], BaseModel] = {}
    for job in jobs:
        for name, part in vars(job).items():
            if isinstance(part, BaseModel):
                vars(job)[name] = known.setdefault((name, part.model_dump_json()), part)


def shared_dumps(jobs: Iterable[JobSpec]) -> tuple[dict[str, Any], ...]:
    """Return the fields of specs, as `model_dump(mode="json")` does; parts that specs share are one object."""
    known: dict[int, dict[str, Any]] = {}

    def dumped(part: Any) -> Any:
        if not isinstance(part, BaseModel):
            return part
        if id(part) not in known:
            known[id(part)] = part.model_dump(mode="json")
        return known[id(part)]

    return tuple({name: dumped(getattr(job, name)) for name in JobSpec.model_fields} for job in jobs)


def validated(jobs: Iterable[Mapping[str, Any]]) -> tuple[JobSpec, ...]:
    """Return the specs of fields; a part that is one object in several fields is validated once and shared.

    Raises:
        ValidationError: Fields are not those of a spec.
    """
    known: dict[tuple[str, int], Any] = {}
    specs = []
    for fields in jobs:
        spec = JobSpec.model_validate({name: known.get((name, id(part)), part) for name, part in fields.items()})
        specs.append(spec)
        for name, part in fields.items():
            if isinstance(part, dict):
                known.setdefault((name, id(part)), getattr(spec, name))
    return tuple(specs)


def categories_label(categories: Sequence[str], loss: LossKind | None) -> str:
    """Display name of a network's categories: `voc-cat`, or `6 voc categories softmax`; without loss if it is None."""
    if len(categories) == 1:
        return category_of(categories[0]).label
    prefixes = {category_of(name).label_prefix for name in categories}
    kind = f" {prefixes.pop()}" if len(prefixes) == 1 else ""
    return f"{len(categories)}{kind} categories{f' {loss}' if loss else ''}"
