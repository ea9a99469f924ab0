"""What the user asked for: a sweep and everything typed after it, and the name under which it is found again."""

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
"""Every value of the fields that have names for values."""
_WHOLE = DOMAINS | {BACKBONE_FIELD: BACKBONES}
"""What an axis that means all of them names: of the backbones, the paper's four."""
SWEEP_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
FIELDS = tuple(field_paths(JobSpec))
SECTIONS = frozenset(path.rsplit(".", depth)[0] for path in FIELDS for depth in range(1, path.count(".") + 1))


@dataclass(frozen=True)
class SweepRequest:
    sweep: SweepSpec
    file_stem: str | None = None
    """Of the sweep file, whose name the sweep takes when it has none of its own."""
    name: str | None = None
    profile: str | None = None
    categories: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    sets: Mapping[str, Any] | None = None
    data_root: str | None = None
    default_profile: str = "laptop"


@dataclass(frozen=True)
class Definition:
    """A request with its grid and profile looked up and every name checked."""

    name: str
    profile: Profile
    photographs: bool
    layers: tuple[Tree, ...]
    """Fields from the grid and the file: laid over the profile's one after the other, below those of axes and rows."""
    sets: Tree
    """Fields from `--set`: laid over everything."""
    axes: dict[str, tuple[Any, ...]]
    """By full field name, in the order written."""
    crosses: bool
    """Grid or file name axes. Where neither does, the base is a job only if it says all that a job needs."""
    include: tuple[Tree, ...]
    exclude: tuple[Tree, ...]
    resources: Resources


def define(request: SweepRequest) -> Definition:
    """Look up and check everything that a request names.

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
    if has(typed, CATEGORIES_FIELD):  # a word may mean several categories: each has jobs of its own
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
    if name not in GRIDS:
        raise SpecError(f"No grid is called {name!r}. {did_you_mean(name, GRIDS)} `orch grid list` describes them.")
    return GRIDS[name]


def find_profile(name: str) -> Profile:
    if name not in PROFILES:
        raise SpecError(f"No profile is called {name!r}. {did_you_mean(name, PROFILES)}")
    return PROFILES[name]


def find_dataset(word: str) -> DatasetName:
    for dataset in DATASETS:
        if dataset.startswith(word.lower().replace("-", "_")):
            return dataset
    raise SpecError(f"No data set is called {word!r}. {did_you_mean(word, DATASETS)}")


def check_field(name: str, where: str) -> str:
    """The full name of a field that the user named.

    Raises:
        SpecError: there is none; the message names the nearest.
    """
    field = field_of(name)
    if field not in FIELDS and field not in SECTIONS:
        raise SpecError(f"{where} names `{name}`, which is no field. {unknown_field(name, (*AXIS_ALIASES, *FIELDS))}")
    return field


def _check_fields(fields: Mapping[str, Any], where: str) -> None:
    """Every name is a field, none is given twice (nested and dotted, or by an alias), and sections hold fields."""
    given: set[str] = set()
    for written, value in fields.items():
        for name, leaf in flatten(nest({written: value})):
            field = check_field(name, where)
            if field in SECTIONS and not isinstance(leaf, Mapping) and (leaf is not None or field != "filter_loss"):
                raise SpecError(
                    f"{where} sets `{field}` to {leaf!r}, but `{field}` is a section. "
                    f"Set its fields, such as `{next(name for name in FIELDS if name.startswith(f'{field}.'))}`."
                )
            _refuse_twice(field, given, where)


def _refuse_twice(field: str, given: set[str], where: str) -> None:
    if field in given:
        raise SpecError(f"{where} gives `{field}` twice, under two spellings. Keep one of them.")
    given.add(field)


def _axes(request: SweepRequest, grid: SweepSpec, profile: Profile, user: Tree) -> dict[str, tuple[Any, ...]]:
    named: set[str] = set()
    for axis in request.sweep.axes:
        _refuse_twice(check_field(axis, "`axes`"), named, "`axes`")
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
    """Categories are always a tuple of ids; everything else is taken as written."""
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
        raise SpecError(f"The sweep has no category of {', '.join(sorted(datasets))}. Leave `--dataset` out, or take "
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
    """Of the categories of one network, those that the user named."""
    kept = tuple(id_ for id_ in value if id_ in wanted)
    if len(kept) == 1:
        raise SpecError(
            f"The networks of this sweep tell several categories apart, and `--category` leaves {kept[0]} alone. "
            "Name a second one, or take a grid of one network per category: `orch grid list`."
        )
    return kept


def _row(row: Mapping[str, Any], where: str) -> Tree:
    _check_fields(row, where)
    return nest(row)


def _include_rows(
    request: SweepRequest, rows: tuple[dict[str, Any], ...], axes: Mapping[str, tuple[Any, ...]], profile: Profile,
    user: Tree,
) -> tuple[Tree, ...]:  # fmt: skip
    """Included jobs obey `--category`, `--backbone` and `--variant` like all others, and take the profile's axes."""
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
    """Where only data sets are named, a network of several of their categories is meant too."""
    datasets = {find_dataset(word) for word in request.datasets}
    asked = field == CATEGORIES_FIELD and bool(datasets) and not request.categories
    return asked and all(BY_ID[id_].dataset in datasets for id_ in value)


def _resources(*layers: Resources) -> Resources:
    given = {name: value for layer in layers for name, value in layer.model_dump(exclude_unset=True).items()}
    return Resources.model_validate(given)


def _name(request: SweepRequest, profile: str, photographs: bool) -> str:
    """Equal requests get equal names, so that typing a command again goes on with its sweep."""
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
    """A sweep's name is also a file's name, so it is kept plain."""
    if not re.fullmatch(SWEEP_NAME, name):
        raise SpecError(
            f"A sweep cannot be called {name!r}. Use letters, digits, dots, dashes and underscores, at most 80, "
            "a letter or digit first."
        )
    return name
