"""What a sweep is: a base, axes over job fields, included and excluded rows. Built-in grids use the same model."""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.base import FieldError, Frozen, Listed
from schemas.model_spec import Backbone
from schemas.packs import PackSetting

AxisValues = Annotated[tuple[Any, ...], Listed]
"""Values of one axis."""

MAX_NAME = 80
"""Largest number of characters of a sweep's name."""
NAME_RULE = f"at most {MAX_NAME} letters, digits, dots, dashes and underscores, beginning with a letter or digit"
"""Which names a sweep may have."""

AXIS_ALIASES = {
    "category": "data.categories",
    "backbone": "model.backbone",
    "variant": "model.variant",
}
"""Short names of fields, valid in axes, include and exclude rows and on the command line."""


class Needs(NamedTuple):
    """What one worker takes of a machine."""

    cpus: int
    gpus: float | None
    """Number of GPUs; None takes one if the machines have any."""
    memory_gb: float


class BackboneResources(Frozen):
    """Resources per worker for the jobs of one backbone. A field that is None has the value of all other jobs."""

    cpus_per_worker: Annotated[int, Field(ge=1)] | None = None
    """Number of CPU cores per worker."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """Number of GPUs per worker; a fraction shares a GPU."""
    memory_gb_per_worker: Annotated[float, Field(gt=0)] | None = None
    """Memory per worker, GB."""


class Resources(Frozen):
    """Resources per worker. They are not part of a job's key."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Number of workers; None uses one per GPU, or per core without a GPU. Each runs one job, or a pack."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    """Number of CPU cores per worker."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """Number of GPUs per worker; a fraction shares a GPU. None uses one GPU per worker if Ray has any."""
    memory_gb_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """Memory per worker, GB."""
    pack: PackSetting = "auto"
    """Number of jobs with frozen layers that a worker trains as one network, where they differ only in seeds, images,
    rates or the weight of the filter loss; `off` trains each alone. `auto` lets a worker with a GPU probe whether that
    is faster. Only rounding depends on it."""
    by_backbone: dict[Backbone, BackboneResources] = Field(default_factory=dict)
    """Other resources for the jobs of some backbones: `{vgg16: {gpus_per_worker: 1, memory_gb_per_worker: 8}}`."""

    def needs(self, backbone: str) -> Needs:
        """Return what a worker for jobs of a backbone takes."""
        own = self.by_backbone.get(backbone, BackboneResources())
        return Needs(
            self.cpus_per_worker if own.cpus_per_worker is None else own.cpus_per_worker,
            self.gpus_per_worker if own.gpus_per_worker is None else own.gpus_per_worker,
            self.memory_gb_per_worker if own.memory_gb_per_worker is None else own.memory_gb_per_worker,
        )


def is_name(text: str) -> bool:
    """Whether a sweep may be called so; its name is also used as a file name."""
    return len(text) <= MAX_NAME and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None


def _checked_name(text: str) -> str:
    if not is_name(text):
        raise FieldError(f"Use {NAME_RULE}")
    return text


class SweepSpec(Frozen):
    """A sweep file. `grid` names a built-in grid to start from; the other fields are applied on top of it."""

    name: Annotated[str, AfterValidator(_checked_name)] | None = None
    """Name of the sweep."""
    description: str = ""
    """One sentence about the sweep."""
    grid: str | None = None
    """Name of the built-in grid to start from."""
    profile: str | None = None
    """Name of the built-in profile."""
    base: dict[str, Any] = Field(default_factory=dict)
    """Fields of every job, nested (`train: {epochs: 5}`) or dotted (`train.epochs: 5`)."""
    axes: dict[str, AxisValues] = Field(default_factory=dict)
    """Field or alias -> values. The jobs are the cross product of the axes in file order; the last axis varies
    fastest."""
    include: Annotated[tuple[dict[str, Any], ...], Listed] = ()
    """Additional jobs, each given by the fields that differ from the base. A file may consist of these alone."""
    exclude: Annotated[tuple[dict[str, Any], ...], Listed] = ()
    """Jobs to remove: those that match every entry of a row. A list matches any of its values."""
    resources: Resources = Resources()
    """Resources per worker."""

    @model_validator(mode="after")
    def _axes_are_not_empty(self) -> Self:
        for axis, values in self.axes.items():
            if not values:
                raise ValueError(f"axis `{axis}` has no values, so the sweep has no jobs. Add one, or remove the axis.")
        return self


class Rule(Frozen):
    """Fields that a profile sets on matching jobs, such as the learning rate of a backbone."""

    when: dict[str, Any] = Field(default_factory=dict)
    """Fields that a job must have for the rule to apply; a list matches any of its values."""
    least_categories: Annotated[int, Field(ge=1)] = 1
    """Minimum number of categories for the rule to apply."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Fields to set."""
    multiply: dict[str, float] = Field(default_factory=dict)
    """Field -> factor, for numbers that the profile sets."""
    by_categories: Annotated[tuple[str, ...], Listed] = ()
    """Fields to multiply by the number of categories."""


class Profile(Frozen):
    """Defaults of every grid for one kind of machine and experiment."""

    name: str
    """Name of the profile."""
    description: str
    """One sentence about the profile."""
    base: dict[str, Any]
    """Fields of every job."""
    photographs: dict[str, Any]
    """Fields applied on top of `base` when the sweep reads photographs (`--data-root`)."""
    axes: dict[str, AxisValues] = Field(default_factory=dict)
    """Default values of a grid's axes."""
    rules: Annotated[tuple[Rule, ...], Listed] = ()
    """Rules applied on top of `base`, before the user's own fields."""
    resources: Resources = Resources()
    """Resources per worker."""
