"""What every model of this package shares: immutable, closed, and errors that teach."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import SpecError


class Frozen(BaseModel):
    """Immutable and closed: a typo in a sweep file fails instead of being ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Stored(BaseModel):
    """Immutable and lenient: what we wrote ourselves, perhaps with an older version."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def field_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of every leaf field below `model`, such as `train.epochs`."""
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
    """A sentence that names the nearest valid name, or lists them all when none is near."""
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
"""Last parts of field names as orch 0.1 had them, with the names they have now."""


def unknown_field(name: str, valid: Iterable[str]) -> str:
    """Say what to write in place of a field that does not exist: its new name, or the nearest one.

    Args:
        name: dotted, such as `train.epoch`.
        valid: the dotted names that exist.
    """
    *parents, last = name.split(".")
    if last in RENAMED_FIELDS:
        return f"It is now called `{'.'.join((*parents, RENAMED_FIELDS[last]))}`."
    return did_you_mean(name, valid)


def explain(error: ValidationError, where: str, root: type[BaseModel]) -> SpecError:
    """Turn pydantic's report into one message a person can act on."""
    lines = []
    for item in error.errors(include_url=False):
        location = ".".join(str(part) for part in item["loc"] if not str(part).startswith("function-"))
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown field `{location}`. {unknown_field(location, field_paths(root))}")
        elif item["type"] == "literal_error":
            lines.append(f"`{location}` is {item['input']!r}; it must be {item['ctx']['expected']}.")
        elif item["type"] == "missing":
            lines.append(f"`{location}` is required, and nothing sets it.")
        elif item["type"] == "value_error":
            lines.append(f"{item['ctx']['error']}")
        else:
            lines.append(f"`{location}` is {item['input']!r}: {item['msg']}.")
    return SpecError(f"{where}: " + " ".join(lines))
