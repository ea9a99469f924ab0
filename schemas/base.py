"""Base classes of all models in this package, and readable messages for validation errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schemas.errors import SpecError

Positive = Annotated[float, Field(gt=0)]
"""A number above 0."""
NonNegative = Annotated[float, Field(ge=0)]
"""A number of at least 0."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
"""A fraction strictly between 0 and 1."""


Listed = Field(strict=False)
"""For tuples that are also given as lists. Their items stay strict."""

SCALARS = ConfigDict(strict=True, allow_inf_nan=False)
"""No conversion between kinds of scalars, and finite numbers only. A field for floats also takes integers."""

MAX_TEXT = 4096
"""Largest number of characters of a text."""
_INTEGERS = range(-(2**63), 2**63)


class FieldError(ValueError):
    """A value that its field does not take. The message follows on the field's name and the value."""


def normal(value: Any) -> Any:
    """Return a value in the one form in which it is stored and hashed: -0.0 becomes 0.0.

    Raises:
        FieldError: an integer of more than 64 bits, a text that is too long, or one with characters that
            cannot be stored.
    """
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, int) and value not in _INTEGERS:
        raise FieldError("Input should be an integer of at most 64 bits")
    if isinstance(value, str):
        return _storable(value)
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(normal(item) for item in value)
    if isinstance(value, dict):
        return {normal(name): normal(item) for name, item in value.items()}
    return value


def _storable(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise FieldError(f"Input should have at most {MAX_TEXT} characters")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise FieldError("Input should have no NUL and no unpaired surrogate")
    return text


class Frozen(BaseModel):
    """Immutable model that rejects unknown fields, so that a typo in a sweep file fails instead of being ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True) | SCALARS

    @field_validator("*", mode="after")
    @classmethod
    def _normal(cls, value: Any) -> Any:
        return normal(value)


class Stored(BaseModel):
    """Immutable model that ignores unknown fields, for data written by orch itself, possibly by another version."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def field_types(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Return the type of each leaf field of `model` by its dotted name, such as `train.epochs`.

    Args:
        model: model class; nested models are entered.
        prefix: prepended to each name, with its dot.

    Returns:
        Types as pydantic takes them, constraints included. A discriminator is a literal of all its values.
    """
    found: dict[str, list[Any]] = {}
    for name, field in model.model_fields.items():
        inner = _models_in(field.annotation)
        for nested in inner:
            for path, kind in field_types(nested, f"{prefix}{name}.").items():
                found.setdefault(path, []).append(kind)
        if not inner:
            kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            found.setdefault(f"{prefix}{name}", []).append(kind)
    return {path: _either(kinds) for path, kinds in found.items()}


def field_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted names of all leaf fields of `model`; see `field_types`."""
    return list(field_types(model, prefix))


def _either(kinds: list[Any]) -> Any:
    if all(get_origin(kind) is Literal for kind in kinds):
        return Literal[tuple(value for kind in kinds for value in get_args(kind))]
    return reduce(or_, kinds)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in getattr(annotation, "__args__", ()) for model in _models_in(arg)]


def brief(value: Any) -> str:
    """Return one line that shows a value, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python converts
        return "a number with too many digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def nearest(wrong: str, valid: Iterable[str]) -> str:
    """Return a question that suggests the nearest valid name, or nothing if none is near."""
    near = get_close_matches(wrong, list(valid), n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else ""


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """Return a sentence that suggests the nearest valid name, or lists the valid names if none is near."""
    names = list(valid)
    listed = ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:12])}, ... ({len(names)} in all)"
    return f"{nearest(wrong, names)} Valid: {listed}.".strip()


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


_PLAINLY = dict.fromkeys(("dict_type", "model_type"), "Input should be fields, such as `{name: value}`") | {
    "tuple_type": "Input should be a list, such as `[value]`"
}
"""Types of pydantic errors whose message names a Python type -> what a person reads."""


def explain(error: ValidationError, where: str, root: type[BaseModel], at: str = "") -> SpecError:
    """Turn a pydantic validation error into a `SpecError` with one readable message.

    Args:
        error: what pydantic raised.
        where: origin of the input, such as a file's name; the message begins with it.
        root: model that was validated, for suggestions of valid field names.
        at: name of the field that was validated alone.
    """
    lines = []
    for item in error.errors(include_url=False):
        parts = (at, *(str(part) for part in item["loc"] if not str(part).startswith(("function-", "[key]"))))
        location = ".".join(part for part in parts if part)
        given = item["input"]
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown field `{location}`. {unknown_field(location, field_paths(root))}")
        elif item["type"] == "literal_error":
            hint = nearest(str(given).lower(), re.findall(r"'([^']*)'", item["ctx"]["expected"]))
            lines.append(f"`{location}` is {brief(given)}; it must be {item['ctx']['expected']}. {hint}".strip())
        elif item["type"] == "missing":
            lines.append(f"`{location}` is required but not set.")
        elif item["type"] == "value_error" and not isinstance(item["ctx"]["error"], FieldError):
            lines.append(f"{item['ctx']['error']}")
        else:
            quotes = item["type"] == "string_type" and isinstance(given, (bool, int, float))
            says = _PLAINLY.get(item["type"], item["msg"].removeprefix("Value error, "))
            lines.append(f"`{location}` is {brief(given)}: {says}.{' Put it in quotes.' if quotes else ''}")
    return SpecError(f"{where}: " + " ".join(lines))
