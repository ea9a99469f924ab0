"""Decides what a written value means for the field it is written for: the same in every layer of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, TypeAdapter, ValidationError

from orchestrator.planning.setting_layers import Tree, field_of, flatten, has, lookup, nest, overlay
from schemas.base import SCALARS, brief, explain, field_types, normal, unknown_field
from schemas.categories import find_categories
from schemas.errors import SpecError
from schemas.job import JobSpec
from schemas.sweep import AXIS_ALIASES, Rule

CATEGORIES_FIELD = AXIS_ALIASES["category"]
PATH_FIELD = "weights.path"
_TYPES = field_types(JobSpec)
FIELDS = tuple(_TYPES)
SECTIONS = frozenset(path.rsplit(".", depth)[0] for path in FIELDS for depth in range(1, path.count(".") + 1))
_OPTIONAL_SECTION = "filter_loss"
FILLED_IN = frozenset(
    path
    for path in FIELDS
    if path == "recipe" or path.endswith((".digest", ".label_names")) or path in ("weights.sha256", "weights.label")
)
"""Fields that planning fills in from files or from the code."""
SETTABLE = tuple(path for path in FIELDS if path not in FILLED_IN)
"""Fields that people set."""


def choices(field: str) -> tuple[str, ...]:
    """Return the values that a field takes, as they are written in YAML; nothing if there is no list of them."""
    kind = _TYPES.get(field)
    if kind is bool:
        return ("true", "false")
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def check_field(name: str, where: str) -> str:
    """Return the full name of a field or section.

    Args:
        name: a dotted name or an alias.
        where: where the user wrote it, for the message.

    Raises:
        SpecError: no such field; the message names the nearest one.
    """
    field = field_of(name)
    if field not in FIELDS and field not in SECTIONS:
        raise SpecError(f"Unknown field `{name}` in {where}. {unknown_field(name, (*AXIS_ALIASES, *SETTABLE))}")
    if field in FILLED_IN:
        raise SpecError(f"`{name}` in {where} cannot be set: orch fills it in. Remove it.")
    return field


def typed_tree(fields: Mapping[str, Any], where: str, folder: Path | None = None) -> Tree:
    """Check and convert every field of a layer.

    Args:
        fields: values by name: nested, dotted or aliases.
        where: where the user wrote them, for messages.
        folder: the folder that a relative path begins at; None leaves paths as they are.

    Returns:
        The fields as a tree. Categories of a job are a tuple of ids, or one word that may stand for several categories.

    Raises:
        SpecError: an unknown field, one that is set twice, or a value that the field does not take.
    """
    given: set[str] = set()
    tree: Tree = {}
    for written, value in fields.items():
        for name, leaf in flatten(nest({written: value})):
            field = check_field(name, where)
            reject_duplicate(field, given, where)
            tree = overlay(tree, nest({field: typed_value(field, leaf, where, folder)}))
    return tree


def reject_duplicate(field: str, given: set[str], where: str) -> None:
    """Add a field to those that a layer sets.

    Raises:
        SpecError: the layer sets the field, a part of it or a section around it already.
    """
    for other in given:
        if other == field:
            raise SpecError(f"{where} sets `{field}` twice, under two spellings. Keep one of them.")
        if other.startswith(f"{field}.") or field.startswith(f"{other}."):
            raise SpecError(
                f"{where} sets both `{other}` and `{field}`, one of which is a part of the other. Keep one."
            )
    given.add(field)


def typed_value(field: str, value: Any, where: str, folder: Path | None = None) -> Any:
    """Check and convert one value; see `typed_tree`.

    Raises:
        SpecError: the field does not take this value.
    """
    if field in SECTIONS:
        return _typed_section(field, value, where, folder)
    if field == CATEGORIES_FIELD:
        return _categories(field, value, where)
    if field == f"weights.{CATEGORIES_FIELD}":
        return _unambiguous(field, value if isinstance(value, (list, tuple)) else (value,), where)
    try:
        found = _adapter(field).validate_python(value)
    except ValidationError as error:
        raise explain(error, where, JobSpec, at=field) from error
    return _absolute(found, folder, where) if field == PATH_FIELD and folder is not None else found


def _typed_section(field: str, value: Any, where: str, folder: Path | None) -> Any:
    if isinstance(value, Mapping):
        return lookup(typed_tree({field: value}, where, folder), field) if value else {}
    if value is None and field == _OPTIONAL_SECTION:
        return None
    raise SpecError(
        f"{where} sets `{field}` to {brief(value)}, but `{field}` is a section. "
        f"Set its fields, such as `{next(name for name in FIELDS if name.startswith(f'{field}.'))}`."
    )


@cache
def _adapter(field: str) -> TypeAdapter[Any]:
    typed: Any = Annotated[_TYPES[field], AfterValidator(normal)]
    return TypeAdapter(typed, config=SCALARS)


def _categories(field: str, value: Any, where: str) -> str | tuple[str, ...]:
    if isinstance(value, (list, tuple)):
        return _unambiguous(field, value, where)
    category_ids(value, where)
    return str(value)


def _unambiguous(field: str, words: Iterable[Any], where: str) -> tuple[str, ...]:
    """Ids of the categories of one network."""
    found: list[str] = []
    for word in words:
        ids = category_ids(word, where)
        if len(ids) > 1:
            raise SpecError(
                f"{where}: `{field}` lists the categories of one network, and {word!r} stands for several: "
                f"{', '.join(ids)}. Name those that you mean."
            )
        found += ids
    return tuple(dict.fromkeys(found))


def category_ids(word: Any, where: str) -> tuple[str, ...]:
    """Ids of all categories that a word stands for.

    Raises:
        SpecError: it stands for none.
    """
    if not isinstance(word, str):
        raise SpecError(f"{where}: {brief(word)} is not a category. Name one, such as `voc_part/cat`.")
    return tuple(category.id for category in find_categories(word))


def networks_of(categories: str | tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Categories of each network that a checked value stands for: a word gives one network per category."""
    return (categories,) if isinstance(categories, tuple) else tuple((id_,) for id_ in category_ids(categories, ""))


def _absolute(path: str, folder: Path, where: str) -> str:
    try:
        return str(folder / Path(path).expanduser())
    except RuntimeError as error:
        raise SpecError(
            f"{where}: `{PATH_FIELD}` is {path!r}: no such home folder. Give the path without `~`."
        ) from error


@dataclass(frozen=True)
class Pattern:
    """Fields that select jobs: of an `exclude` row, or of a profile's rule."""

    text: str
    """The fields as they are written."""
    options: Mapping[str, tuple[Any, ...]]
    """Field -> values, any of which matches. Categories are tuples of ids."""

    @classmethod
    def of(cls, fields: Mapping[str, Any], where: str, folder: Path | None = None) -> Self:
        """Check and convert the fields of a row. A list stands for any of its values.

        Raises:
            SpecError: an unknown field, one that is set twice, or a value that the field does not take.
        """
        given: set[str] = set()
        options: dict[str, tuple[Any, ...]] = {}
        for written, value in fields.items():
            for name, leaf in flatten(nest({written: value})):
                field = check_field(name, where)
                reject_duplicate(field, given, where)
                values = tuple(leaf) if isinstance(leaf, (list, tuple)) else (leaf,)
                if not values:
                    raise SpecError(f"{where}: `{field}` is an empty list, which matches nothing. Add a value.")
                if field == CATEGORIES_FIELD:
                    options[field] = tuple(category_ids(word, where) for word in values)
                else:
                    options[field] = tuple(typed_value(field, one, where, folder) for one in values)
        return cls(", ".join(f"{name}: {brief(value)}" for name, value in fields.items()), options)

    def matches(self, tree: Mapping[str, Any]) -> bool:
        """Whether a job has all the fields. A field that the job does not have matches nothing."""
        return all(
            has(tree, field) and _is_any(field, lookup(tree, field), any_) for field, any_ in self.options.items()
        )


def _is_any(field: str, value: Any, options: tuple[Any, ...]) -> bool:
    if field == CATEGORIES_FIELD:
        return any(set(value or ()) <= set(option) for option in options)
    return value in options


@dataclass(frozen=True)
class TypedRule:
    """A profile's rule with checked fields."""

    when: Pattern
    least_categories: int
    set: Tree
    factors: Mapping[str, float]
    by_categories: tuple[str, ...]

    @classmethod
    def of(cls, rule: Rule, where: str) -> Self:
        """Check the fields of a rule.

        Raises:
            SpecError: an unknown field, or a value that the field does not take.
        """
        return cls(
            Pattern.of(rule.when, where),
            rule.least_categories,
            typed_tree(rule.set, where),
            {check_field(name, where): factor for name, factor in rule.multiply.items()},
            tuple(check_field(name, where) for name in rule.by_categories),
        )
