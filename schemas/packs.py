"""Which jobs may train as one batched network, and in how large packs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from schemas.base import FieldError, Frozen
from schemas.job import JobSpec

MOST_JOBS = 32
"""Most jobs of a pack that can be asked for."""


def _checked(value: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool) and 2 <= value <= MOST_JOBS
    if not is_number and value not in ("auto", "off"):
        raise FieldError(f"it must be 'auto', 'off' or a number from 2 to {MOST_JOBS}")
    return value


PackSetting = Annotated[Literal["auto", "off"] | int, BeforeValidator(_checked)]
"""Number of jobs that one worker process trains as one network; `auto` lets each worker probe whether that pays."""

AUTO_JOBS = 8
"""Jobs of a pack of `auto`, if they fit into the memory of the GPU."""

STACKED_FORMS = frozenset({"labelled", "exact", "released"})
"""Forms of the filter loss that autograd differentiates; the others have a backward of their own and a first batch
that differs, so they are not stacked."""


def pack_shape(spec: JobSpec) -> str:
    """Return all that jobs of one pack have in common, as text; empty for a job that trains alone.

    Seeds, images, starting weights, learning rates, and weight and schedule of the filter loss may differ. A job that
    trains every layer fills a GPU by itself.
    """
    train, filter_loss = spec.train, spec.filter_loss
    if train.freeze_below is None or (filter_loss is not None and filter_loss.form not in STACKED_FORMS):
        return ""
    if not train.deterministic:  # which kernels may be used holds for a whole process
        return ""
    return json.dumps([
        spec.model.model_dump(mode="json"), spec.n_outputs, spec.loss, train.freeze_below, train.precision,
        train.batch_size, filter_loss and filter_loss.model_dump(mode="json", exclude={"weight", "schedule"}),
    ])  # fmt: skip


class Packing(Frozen):
    """What a worker has to know of the packs of a sweep."""

    setting: PackSetting
    """As the sweep sets it."""
    example: JobSpec
    """A job that may train in a pack, to probe with."""

    @property
    def most(self) -> int:
        """The most jobs that a worker may run at the same time."""
        if isinstance(self.setting, int):
            return self.setting
        return AUTO_JOBS if self.setting == "auto" else 1


def packing_of(setting: PackSetting, specs: Iterable[JobSpec]) -> Packing | None:
    """Return what workers have to know of a sweep's packs; None if none of its jobs may train in one."""
    if setting == "off":
        return None
    example = next((spec for spec in specs if pack_shape(spec)), None)
    return None if example is None else Packing(setting=setting, example=example)
