"""Models take scalars of their own kind only, finite and in one form, however they are built."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.base import brief, explain, field_types
from schemas.job import DataSpec, FileWeights, JobSpec, ModelSpec, TrainSpec
from schemas.profiles import PROFILES
from schemas.sweep import Resources, SweepSpec

MODEL = {"backbone": "alexnet", "variant": "ordinary"}
DATA = {"categories": ["voc_part/cat"], "train_per_category": 8, "test_per_category": 4}


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (TrainSpec, {"epochs": value})
        for value in (True, 5.0, 8.5, "5", "010", None, 2**63, 10**400, math.inf, math.nan, [5])
    ]
    + [
        (TrainSpec, {"learning_rate": value})
        for value in (True, "1", "0.1", math.inf, -math.inf, math.nan, 10**400, None, [0.1])
    ]
    + [(TrainSpec, {"final_learning_rate": math.inf}), (TrainSpec, {"max_grad_norm": math.nan})]
    + [(TrainSpec, {"horizontal_flip": value}) for value in (1, 0, "true", "yes", None)]
    + [(TrainSpec, {"freeze_below": value}) for value in (5, True, "x" * 5000, "a\0b", "\ud800")]
    + [(ModelSpec, {**MODEL, "width": value}) for value in (True, "1", math.nan)]
    + [(DataSpec, {**DATA, "categories": value}) for value in ("voc_part/cat", [1], None, {"voc_part/cat": 1})]
    + [(Resources, {"workers": True}), (Resources, {"memory_gb_per_worker": math.inf})]
    + [(SweepSpec, {"axes": {"seed": 5}}), (SweepSpec, {"name": 10}), (SweepSpec, {"base": {"a": 2**64}})],
    ids=lambda value: brief(value)[:40] if isinstance(value, dict) else value.__name__,
)
def test_a_value_of_another_kind_is_refused(model: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(fields)
    message = str(explain(refused.value, "here", model))
    assert message.startswith("here: `")
    assert "\n" not in message
    assert len(message) < 300


def test_a_field_for_floats_takes_integers_and_one_zero() -> None:
    assert TrainSpec(learning_rate=5) == TrainSpec(learning_rate=5.0)
    assert isinstance(TrainSpec(learning_rate=5).learning_rate, float)
    assert math.copysign(1.0, TrainSpec(weight_decay=-0.0).weight_decay) == 1.0


def test_equal_values_have_one_key() -> None:
    def key(**train: Any) -> str:
        return JobSpec(data=DataSpec(**DATA), model=ModelSpec(**MODEL), train=TrainSpec(**train)).key

    assert key(weight_decay=-0.0) == key(weight_decay=0.0) == key(weight_decay=0)
    assert key(max_grad_norm=5) == key(max_grad_norm=5.0)


def test_a_key_is_that_of_earlier_versions() -> None:
    spec = JobSpec(data=DataSpec(**DATA), model=ModelSpec(**MODEL), train=TrainSpec(epochs=3, weight_decay=0.0), seed=7)
    assert spec.key == "fe665871c2d0"
    assert JobSpec.model_validate_json(spec.model_dump_json()).key == spec.key
    assert JobSpec.model_validate(spec.model_dump(mode="json")).key == spec.key


def test_a_field_has_the_type_of_every_kind_of_section_that_has_it() -> None:
    types = field_types(JobSpec)
    assert types["weights.source"].__args__ == (
        "pretrain", "everything", "torchvision", "imagenet", "file", "random",
    )  # fmt: skip
    assert FileWeights(path="a").path == "a"


def test_the_built_in_profiles_are_typed() -> None:
    assert all(profile.model_validate(profile.model_dump()) == profile for profile in PROFILES.values())
