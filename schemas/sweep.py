"""What a sweep is: a base, axes over any field of a job, rows added and left out. A built-in grid is the same model."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from schemas.base import Frozen

AxisValues = tuple[Any, ...]

AXIS_ALIASES = {
    "category": "data.categories",
    "backbone": "model.backbone",
    "variant": "model.variant",
}
"""Short names that may stand for a field in axes, include and exclude rows and on the command line."""


class Resources(Frozen):
    """What a slot takes. No part of a job's key: the same job on another machine is the same job."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Jobs at a time; None makes one slot per GPU, or per core where there is no GPU."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """None: one GPU a worker where Ray has any, else none. A fraction shares a GPU."""
    memory_gb_per_worker: Annotated[float, Field(gt=0)] = 1.0


class SweepSpec(Frozen):
    """A sweep file. `grid` starts from a built-in grid; everything else here is laid over it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] | None = None
    description: str = ""
    grid: str | None = None
    profile: str | None = None
    base: dict[str, Any] = Field(default_factory=dict)
    """Fields of a job, nested (`train: {epochs: 5}`) or dotted (`train.epochs: 5`)."""
    axes: dict[str, AxisValues] = Field(default_factory=dict)
    """Field or alias -> values; the jobs are their cross product, in the order written, the last axis fastest."""
    include: tuple[dict[str, Any], ...] = ()
    """Further jobs, each as the fields in which it differs from the base. A file may consist of nothing else."""
    exclude: tuple[dict[str, Any], ...] = ()
    """Jobs to leave out: those that agree with every entry of a row; a list agrees with any of its values."""
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _axes_are_not_empty(self) -> Self:
        for axis, values in self.axes.items():
            if not values:
                raise ValueError(
                    f"axis `{axis}` has no values, so the sweep would have no jobs. Give it one, or drop it."
                )
        return self


class Rule(Frozen):
    """Fields that a profile sets on the jobs that agree with `when`, such as a backbone's own learning rate."""

    when: dict[str, Any] = Field(default_factory=dict)
    least_categories: Annotated[int, Field(ge=1)] = 1
    """The rule is for networks that tell at least so many categories apart."""
    set: dict[str, Any] = Field(default_factory=dict)
    multiply: dict[str, float] = Field(default_factory=dict)
    """Numbers of the profile, and by what they are multiplied."""
    by_categories: tuple[str, ...] = ()
    """Numbers of the profile that are multiplied by the number of categories."""


class Profile(Frozen):
    """A setting of the machine and the science: laid under every grid."""

    name: str
    description: str
    base: dict[str, Any]
    photographs: dict[str, Any]
    """Laid over `base` when the sweep reads photographs (`--data-root`)."""
    axes: dict[str, AxisValues] = Field(default_factory=dict)
    """Values an axis of a grid takes unless the user names others."""
    rules: tuple[Rule, ...] = ()
    """Laid over the base, under the user's own fields."""
    resources: Resources = Resources()
