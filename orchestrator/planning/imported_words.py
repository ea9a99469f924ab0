"""Decides which imported category a word of a sweep means: the one of that name, unless a published data set has it.

A word such as `cat` keeps its meaning when a data set with cats of its own is imported.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from orchestrator.planning.setting_layers import field_of
from orchestrator.planning.typed import CATEGORIES_FIELD
from schemas.categories import CATEGORIES, category_of
from schemas.errors import SpecError
from schemas.sweep import SweepSpec


def with_imported_ids(sweep: SweepSpec, imported: Collection[str]) -> SweepSpec:
    """Return a sweep in which the names of imported categories are ids: `tabby` becomes `mittens/tabby`.

    Args:
        sweep: A sweep file.
        imported: Ids of the imported categories under the data root.

    Raises:
        SpecError: Several imported data sets have a category of a name.
    """
    if not imported:
        return sweep
    axes = {
        axis: tuple(_value(axis, value, imported, f"axis `{axis}`") for value in values)
        for axis, values in sweep.axes.items()
    }
    return sweep.model_copy(
        update={
            "base": fields_with_ids(sweep.base, imported, "`base`"),
            "axes": axes,
            "include": tuple(fields_with_ids(row, imported, "an `include` row") for row in sweep.include),
            "exclude": tuple(fields_with_ids(row, imported, "an `exclude` row") for row in sweep.exclude),
        }
    )


def fields_with_ids(fields: Mapping[str, Any], imported: Collection[str], where: str) -> dict[str, Any]:
    """Return the fields with ids for the names of imported categories; arguments as for `with_imported_ids`."""
    return {name: _value(str(name), value, imported, where) for name, value in fields.items()}


def id_of(word: str, imported: Collection[str], where: str) -> str:
    """Return the id of the imported category that a word names; the word itself if a published category has the name.

    Raises:
        SpecError: Several imported data sets have the name.
    """
    name = word.strip().lower()
    found = [id_ for id_ in imported if category_of(id_).key == name]
    if not found or any(name in (category.key, category.name) for category in CATEGORIES):
        return word
    if len(found) > 1:
        raise SpecError(
            f"{where}: `{word}` is a category of several data sets: {', '.join(found)}. Write the id of the one that "
            "you mean."
        )
    return found[0]


def _value(name: str, value: Any, imported: Collection[str], where: str) -> Any:
    if isinstance(value, Mapping):
        return {inner: _value(f"{name}.{inner}", one, imported, where) for inner, one in value.items()}
    if field_of(name) not in (CATEGORIES_FIELD, f"weights.{CATEGORIES_FIELD}"):
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(_value(name, one, imported, where) for one in value)
    return id_of(value, imported, where) if isinstance(value, str) else value
