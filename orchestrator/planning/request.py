"""Decides what a command line and a sweep file mean: checked fields, axes and rows, and the sweep's name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any, get_args

from orchestrator.planning.layers import Tree, field_of, flatten, has, lookup, nest, overlay, without
from schemas.base import did_you_mean, field_paths, unknown_field
from schemas.categories import BY_ID, DATASETS, DatasetName, find_categories
from schemas.errors import SpecError
from schemas.grids import BACKBONES, GRIDS
from schemas.job import BackboneName, JobSpec, Variant
from schemas.profiles import PROFILES
from schemas.sweep import AXIS_ALIASES, Profile, Resources, SweepSpec

CATEGORIES_FIELD = AXIS_ALIASES["category"]
BACKBONE_FIELD = AXIS_ALIASES["backbone"]
VARIANT_FIELD = AXIS_ALIASES["variant"]
DOMAINS: dict[str, tuple[str, ...]] = {
    BACKBONE_FIELD: get_args(BackboneName),
    VARIANT_FIELD: get_args(Variant),
    CATEGORIES_FIELD: tuple(BY_ID),
}
"""All values of the fields whose values are names."""
_WHOLE = DOMAINS | {BACKBONE_FIELD: BACKBONES}
"""Values of an axis that counts as naming all of them; of the backbones, the paper's four."""
SWEEP_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
FIELDS = tuple(field_paths(JobSpec))
SECTIONS = frozenset(path.rsplit(".", depth)[0] for path in FIELDS for depth in range(1, path.count(".") + 1))


@dataclass(frozen=True)
class SweepRequest:
    """A sweep file or grid, and the options of the command line."""

    sweep: SweepSpec
    file_stem: str | None = None
    """Stem of the sweep file's name: the sweep's name if the file sets none."""
    name: str | None = None
    profile: str | None = None
    categories: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    sets: Mapping[str, Any] | None = None
    """Values of `--set`, by field name."""
    data_root: str | None = None
    default_profile: str = "laptop"


@dataclass(frozen=True)
class Definition:
    """A request with its grid and profile looked up and every name checked."""

    name: str
    profile: Profile
    photographs: bool
    """Whether jobs use photographs instead of generated images."""
    layers: tuple[Tree, ...]
    """Fields of the grid and the file, lowest first: above the profile's, below those of axes and rows."""
    sets: Tree
    """Fields of `--set`, above all others."""
    axes: dict[str, tuple[Any, ...]]
    """Values by full field name, in the order written."""
    crosses: bool
    """Whether the grid or the file has axes. Otherwise the base is a job only if it sets all that a job needs."""
    include: tuple[Tree, ...]
    """Rows of fields, each a further job."""
    exclude: tuple[Tree, ...]
    """Rows of fields; a job that matches one is left out."""
    resources: Resources


def define(request: SweepRequest) -> Definition:
    """Look up and check everything that a request names.

    Args:
        request: the sweep and the options of the command line.

    Returns:
        The definition that `planner.plan` turns into jobs.

    Raises:
        SpecError: an unknown grid, profile, field, category, backbone, variant or data set.
    """
    grid = find_grid(request.sweep.grid) if request.sweep.grid else SweepSpec()
    own, sets = request.sweep, dict(request.sets or {})
    profile = find_profile(request.profile or own.profile or grid.profile or request.default_profile)
    for where, fields in (("grid", grid.base), ("`base`", own.base), ("`--set`", sets)):
        _check_fields(fields, where)
    layers, typed = (nest(grid.base), nest(own.base)), nest(sets)
    user = reduce(overlay, (*layers, typed))
    axes = _axes(request, grid, profile, user)
    for field in [name for name, _ in flatten(typed) if name in (*axes, CATEGORIES_FIELD)]:
        axes[field] = _axis_values(field, (lookup(typed, field),))
    include = _include_rows(request, (*grid.include, *own.include), axes, profile, user)
    if has(typed, CATEGORIES_FIELD):  # a word may stand for several categories: one job each
        typed = without(typed, CATEGORIES_FIELD)
        pinned = [nest({CATEGORIES_FIELD: ids}) for ids in axes[CATEGORIES_FIELD]]
        include = tuple(overlay(row, ids) for row in include for ids in pinned)
    photographs = lookup(user, "data.images") == "photographs" or (
        request.data_root is not None and lookup(user, "data.images") is None
    )
    return Definition(
        name=_name(request, profile.name, photographs),
        profile=profile,
        photographs=photographs,
        layers=layers,
        sets=typed,
        axes=axes,
        crosses=bool(grid.axes or own.axes),
        include=include,
        exclude=tuple(_row(row, "`exclude`") for row in (*grid.exclude, *own.exclude)),
        resources=_resources(profile.resources, grid.resources, own.resources),
    )


def find_grid(name: str) -> SweepSpec:
    """Return the built-in grid of a name.

    Raises:
        SpecError: no grid has this name.
    """
    if name not in GRIDS:
        raise SpecError(f"No grid is called {name!r}. {did_you_mean(name, GRIDS)} `orch grid list` describes them.")
    return GRIDS[name]


def find_profile(name: str) -> Profile:
    """Return the profile of a name.

    Raises:
        SpecError: no profile has this name.
    """
    if name not in PROFILES:
        raise SpecError(f"No profile is called {name!r}. {did_you_mean(name, PROFILES)}")
    return PROFILES[name]


def find_dataset(word: str) -> DatasetName:
    """Return the data set whose name begins with a word, such as `voc`.

    Raises:
        SpecError: no data set begins with it.
    """
    for dataset in DATASETS:
        if dataset.startswith(word.lower().replace("-", "_")):
            return dataset
    raise SpecError(f"No data set is called {word!r}. {did_you_mean(word, DATASETS)}")


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
        raise SpecError(f"Unknown field `{name}` in {where}. {unknown_field(name, (*AXIS_ALIASES, *FIELDS))}")
    return field


def _check_fields(fields: Mapping[str, Any], where: str) -> None:
    """Check that every name is a field, none occurs twice (nested, dotted or as an alias), and sections have fields."""
    given: set[str] = set()
    for written, value in fields.items():
        for name, leaf in flatten(nest({written: value})):
            field = check_field(name, where)
            if field in SECTIONS and not isinstance(leaf, Mapping) and (leaf is not None or field != "filter_loss"):
                raise SpecError(
                    f"{where} sets `{field}` to {leaf!r}, but `{field}` is a section. "
                    f"Set its fields, such as `{next(name for name in FIELDS if name.startswith(f'{field}.'))}`."
                )
            _reject_duplicate(field, given, where)


def _reject_duplicate(field: str, given: set[str], where: str) -> None:
    if field in given:
        raise SpecError(f"{where} sets `{field}` twice, under two spellings. Keep one of them.")
    given.add(field)


def _axes(request: SweepRequest, grid: SweepSpec, profile: Profile, user: Tree) -> dict[str, tuple[Any, ...]]:
    named: set[str] = set()
    for axis in request.sweep.axes:
        _reject_duplicate(check_field(axis, "`axes`"), named, "`axes`")
    own = {field_of(axis): values for axis, values in request.sweep.axes.items()}
    axes = {check_field(axis, "grid axis"): values for axis, values in grid.axes.items()} | own
    for axis, values in profile.axes.items():
        field = field_of(axis)
        whole = _WHOLE.get(field, ())
        named_all = field in axes and bool(whole) and all(value in axes[field] for value in whole)
        if field not in own and (named_all or (field not in axes and lookup(user, field) is None)):
            axes[field] = values
    axes = {field: _axis_values(field, values) for field, values in axes.items()}
    if request.categories or request.datasets:
        axes[CATEGORIES_FIELD] = _narrow_categories(request, axes.get(CATEGORIES_FIELD))
    for field, words in ((BACKBONE_FIELD, request.backbones), (VARIANT_FIELD, request.variants)):
        if words:
            axes[field] = tuple(_named_value(field, word) for word in words)
    return axes


def _named_value(field: str, word: str) -> str:
    value = word.strip().lower()
    if value not in DOMAINS[field]:
        kind = field.rsplit(".", 1)[-1]
        raise SpecError(f"No {kind} is called {word!r}. {did_you_mean(value, DOMAINS[field])}")
    return value


def _axis_values(field: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if field != CATEGORIES_FIELD:
        return values
    found = [c for v in values for c in ((v,) if isinstance(v, (list, tuple)) else _ids(v))]
    return tuple(dict.fromkeys(axis_value(field, value) for value in found))


def axis_value(field: str, value: Any) -> Any:
    """Return an axis value as a job has it: categories as a tuple of ids, everything else unchanged."""
    if field != CATEGORIES_FIELD:
        return value
    words = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(dict.fromkeys(id_ for word in words for id_ in _ids(word)))


def _ids(word: Any) -> tuple[str, ...]:
    return tuple(category.id for category in find_categories(str(word)))


def _narrow_categories(request: SweepRequest, axis: tuple[Any, ...] | None) -> tuple[Any, ...]:
    available = axis if axis is not None else tuple((id_,) for id_ in BY_ID)
    datasets = {find_dataset(word) for word in request.datasets}
    if datasets:
        available = tuple(value for value in available if all(BY_ID[id_].dataset in datasets for id_ in value))
    if not available:
        raise SpecError(f"The sweep has no category of {', '.join(sorted(datasets))}. Omit `--dataset`, or choose "
                        "another grid: `orch grid list`.")  # fmt: skip
    if not request.categories:
        return available
    single = [value for value in available if len(value) == 1]
    for word in request.categories:
        if not any(set(_ids(word)) & set(value) for value in single or available):
            names = ", ".join(BY_ID[id_].label for value in single or available for id_ in value)
            raise SpecError(f"The sweep has no category {word!r}. It has: {names}. `--grid all-categories` has all 37.")
    wanted = {id_ for word in request.categories for id_ in _ids(word)}
    if single:
        return tuple(value for value in single if wanted & set(value))
    return tuple(_some_of(value, wanted) for value in available if wanted & set(value))


def _some_of(value: tuple[str, ...], wanted: set[str]) -> tuple[str, ...]:
    """The categories of one network that the user named; at least two."""
    kept = tuple(id_ for id_ in value if id_ in wanted)
    if len(kept) == 1:
        raise SpecError(
            f"The networks of this sweep distinguish several categories, but `--category` selects only {kept[0]}. "
            "Name a second one, or choose a grid with one network per category: `orch grid list`."
        )
    return kept


def _row(row: Mapping[str, Any], where: str) -> Tree:
    _check_fields(row, where)
    return nest(row)


def _include_rows(
    request: SweepRequest, rows: tuple[dict[str, Any], ...], axes: Mapping[str, tuple[Any, ...]], profile: Profile,
    user: Tree,
) -> tuple[Tree, ...]:  # fmt: skip
    """The `include` rows that match `--category`, `--backbone` and `--variant`, crossed with the profile's axes."""
    given = [field_of(axis) for axis in profile.axes]
    narrowed = {
        CATEGORIES_FIELD: bool(request.categories or request.datasets),
        BACKBONE_FIELD: bool(request.backbones),
        VARIANT_FIELD: bool(request.variants),
    }
    kept = []
    for row in rows:
        tree = _row(row, "`include`")
        named = [(f, axis_value(f, lookup(tree, f))) for f in narrowed if narrowed[f] and lookup(tree, f) is not None]
        if all(value in axes[field] or _is_of_dataset(request, field, value) for field, value in named):
            open_axes = [field for field in given if field in axes and lookup(overlay(user, tree), field) is None]
            kept += [
                overlay(nest(dict(zip(open_axes, values, strict=True))), tree)
                for values in product(*(axes[field] for field in open_axes))
            ]
    return tuple(kept)


def _is_of_dataset(request: SweepRequest, field: str, value: Any) -> bool:
    """Whether `--dataset` alone selects a network of several categories: all of them are of these data sets."""
    datasets = {find_dataset(word) for word in request.datasets}
    selected = field == CATEGORIES_FIELD and bool(datasets) and not request.categories
    return selected and all(BY_ID[id_].dataset in datasets for id_ in value)


def _resources(*layers: Resources) -> Resources:
    given = {name: value for layer in layers for name, value in layer.model_dump(exclude_unset=True).items()}
    return Resources.model_validate(given)


def _name(request: SweepRequest, profile: str, photographs: bool) -> str:
    """Name of the sweep. Equal requests get equal names, so that repeating a command continues its sweep."""
    if request.name:
        return check_name(request.name)
    own = request.sweep.name or request.file_stem
    if own:
        return re.sub(r"[^A-Za-z0-9._-]+", "-", own).strip("-._")[:80] or "sweep"
    typed = (
        request.categories,
        request.backbones,
        request.variants,
        request.datasets,
        sorted((request.sets or {}).items()),
    )
    suffix = f"-{hashlib.sha256(repr(typed).encode()).hexdigest()[:6]}" if any(typed) else ""
    return f"{request.sweep.grid or 'sweep'}-{profile}{'-photographs' if photographs else ''}{suffix}"


def check_name(name: str) -> str:
    """Return the name if a sweep may have it. It is also used as a file name.

    Raises:
        SpecError: it has other characters than letters, digits, dots, dashes and underscores, or is too long.
    """
    if not re.fullmatch(SWEEP_NAME, name):
        raise SpecError(
            f"{name!r} is not a valid sweep name. Use at most 80 letters, digits, dots, dashes and underscores, "
            "beginning with a letter or digit."
        )
    return name
