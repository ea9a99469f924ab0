"""Base classes of all models in this package, and readable messages for validation errors."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import SpecError

Positive = Annotated[float, Field(gt=0)]
"""A number above 0."""
NonNegative = Annotated[float, Field(ge=0)]
"""A number of at least 0."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
"""A fraction strictly between 0 and 1."""


class Frozen(BaseModel):
    """Immutable model that rejects unknown fields, so that a typo in a sweep file fails instead of being ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Stored(BaseModel):
    """Immutable model that ignores unknown fields, for data written by orch itself, possibly by another version."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def field_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted names of all leaf fields of `model`, such as `train.epochs`.

    Args:
        model: model class; nested models are entered.
        prefix: prepended to each name, with its dot.
    """
    paths: list[str] = []
    for name, field in model.model_fields.items():
        inner = _models_in(field.annotation)
        nested = [path for t in inner for path in field_paths(t, f"{prefix}{name}.")]
        paths += nested or [f"{prefix}{name}"]
    return list(dict.fromkeys(paths))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in getattr(annotation, "__args__", ()) for model in _models_in(arg)]


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """Return a sentence that suggests the nearest valid name, or lists the valid names if none is near."""
    names = list(valid)
    near = get_close_matches(wrong, names, n=1, cutoff=0.5)
    listed = ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:12])}, ... ({len(names)} in all)"
    return f"Did you mean {near[0]!r}? Valid: {listed}." if near else f"Valid: {listed}."


RENAMED_FIELDS = {
    "clip_gradient": "max_grad_norm",
    "mirror": "horizontal_flip",
    "faster_biases": "bias_lr_multiplier",
    "reach": "gradient_scope",
    "sharpness": "logit_scale",
}
"""Renamed fields: last part of the old field name -> new one."""


def unknown_field(name: str, valid: Iterable[str]) -> str:
    """Return a sentence that suggests a replacement for an unknown field: its new name, or the nearest one.

    Args:
        name: dotted name of the unknown field, such as `train.epoch`.
        valid: dotted names of the existing fields.
    """
    *parents, last = name.split(".")
    if last in RENAMED_FIELDS:
        return f"It is now called `{'.'.join((*parents, RENAMED_FIELDS[last]))}`."
    return did_you_mean(name, valid)


def explain(error: ValidationError, where: str, root: type[BaseModel]) -> SpecError:
    """Turn a pydantic validation error into a `SpecError` with one readable message.

    Args:
        error: what pydantic raised.
        where: origin of the input, such as a file's name; the message begins with it.
        root: model that was validated, for suggestions of valid field names.
    """
    lines = []
    for item in error.errors(include_url=False):
        location = ".".join(str(part) for part in item["loc"] if not str(part).startswith("function-"))
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown field `{location}`. {unknown_field(location, field_paths(root))}")
        elif item["type"] == "literal_error":
            lines.append(f"`{location}` is {item['input']!r}; it must be {item['ctx']['expected']}.")
        elif item["type"] == "missing":
            lines.append(f"`{location}` is required but not set.")
        elif item["type"] == "value_error":
            lines.append(f"{item['ctx']['error']}")
        else:
            lines.append(f"`{location}` is {item['input']!r}: {item['msg']}.")
    return SpecError(f"{where}: " + " ".join(lines))
