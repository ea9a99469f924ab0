"""Decides what a command line and a sweep file mean: checked fields, axes and rows, and the sweep's name."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain, product
from pathlib import Path
from typing import Any, get_args

from orchestrator.planning.imported_words import fields_with_ids, id_of, with_imported_ids
from orchestrator.planning.setting_layers import Tree, field_of, flatten, has, lookup, nest, overlay, without
from orchestrator.planning.typed import (
    CATEGORIES_FIELD,
    SECTIONS,
    Pattern,
    TypedRule,
    check_field,
    networks_of,
    reject_duplicate,
    typed_tree,
    typed_value,
)
from schemas.base import brief, did_you_mean
from schemas.categories import BY_ID, CATEGORIES, DATASETS, category_of, find_categories, is_category
from schemas.errors import SpecError
from schemas.grids import BACKBONES, GRIDS
from schemas.job import Variant
from schemas.model_spec import TABLE, foreign_name
from schemas.profiles import PROFILES
from schemas.sweep import AXIS_ALIASES, MAX_NAME, NAME_RULE, Profile, Resources, SweepSpec, is_name

BACKBONE_FIELD = AXIS_ALIASES["backbone"]
VARIANT_FIELD = AXIS_ALIASES["variant"]
DOMAINS: dict[str, tuple[str, ...]] = {
    BACKBONE_FIELD: TABLE,
    VARIANT_FIELD: get_args(Variant),
    CATEGORIES_FIELD: tuple(BY_ID),
}
"""All values of the fields whose values are names."""
_WHOLE = DOMAINS | {BACKBONE_FIELD: BACKBONES}
"""Values of an axis that counts as naming all of them; of the backbones, the paper's four."""


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
    imported: tuple[str, ...] = ()
    """Ids of the imported categories under the data root."""
    default_profile: str = "laptop"
    folder: Path | None = None
    """Folder that relative paths in the sweep file begin at; None leaves them as they are."""
    set_folder: Path | None = None
    """Folder that relative paths in `sets` begin at; None leaves them as they are."""


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
    exclude: tuple[Pattern, ...]
    """A job that matches one is left out."""
    rules: tuple[TypedRule, ...]
    """Rules of the profile."""
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
    request = replace(
        request,
        sweep=with_imported_ids(request.sweep, request.imported),
        sets=fields_with_ids(request.sets or {}, request.imported, "`--set`"),
    )
    grid = find_grid(request.sweep.grid) if request.sweep.grid else SweepSpec()
    own = request.sweep
    profile = find_profile(request.profile or own.profile or grid.profile or request.default_profile)
    layers = (typed_tree(grid.base, "grid"), typed_tree(own.base, "`base`", request.folder))
    sets = typed_tree(request.sets or {}, "`--set`", request.set_folder)
    user = reduce(overlay, (*layers, sets))
    axes = _axes(request, grid, profile, user, lookup(reduce(overlay, layers), CATEGORIES_FIELD))
    for field in [name for name, _ in flatten(sets) if name in (*axes, CATEGORIES_FIELD)]:
        axes[field] = _values_of(field, lookup(sets, field))
    include = tuple(_include_rows(request, _typed_rows(request, grid), axes, profile, user))
    if has(sets, CATEGORIES_FIELD):  # a word may stand for several categories: one job each
        sets = without(sets, CATEGORIES_FIELD)
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
        sets=sets,
        axes=axes,
        crosses=bool(grid.axes or own.axes),
        include=include,
        exclude=tuple(
            _pattern(row, number, request.folder) for number, row in enumerate((*grid.exclude, *own.exclude), start=1)
        ),
        rules=tuple(TypedRule.of(rule, f"profile {profile.name}") for rule in profile.rules),
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


def find_backbone(word: str) -> str:
    """Return the name of a backbone: of the table, or `SOURCE:NAME@LAYER`.

    Raises:
        SpecError: it is neither.
    """
    name = word.strip()
    if foreign_name(name):
        return name
    if name.lower() not in TABLE:
        raise SpecError(
            f"No backbone is called {word!r}. {did_you_mean(name.lower(), TABLE)} "
            "Networks of other libraries are called SOURCE:NAME@LAYER, such as torchvision:resnet18@layer4."
        )
    return name.lower()


def find_dataset(word: str, imported: Iterable[str] = ()) -> str:
    """Return the data set that a word names: an imported one, or one of the paper's that begins with it, such as `voc`.

    Args:
        imported: names of imported data sets.

    Raises:
        SpecError: no data set is called so.
    """
    name, own = word.strip().lower().replace("-", "_"), tuple(dict.fromkeys(imported))
    if name in own:
        return name
    for dataset in DATASETS:
        if name and dataset.startswith(name):
            return dataset
    raise unknown_dataset(word, own)


def unknown_dataset(word: str, imported: Iterable[str]) -> SpecError:
    """Return the error for a word that names no data set.

    Args:
        imported: names of imported data sets.
    """
    return SpecError(
        f"No data set is called {word!r}. {did_you_mean(word.strip().lower(), (*DATASETS, *imported))} "
        "An imported one is known by the `--data-root` that holds it: `orch data list` shows them."
    )


def _datasets(request: SweepRequest) -> set[str]:
    """The data sets of `--dataset`."""
    own = [category_of(id_).dataset for id_ in request.imported]
    return {find_dataset(word, own) for word in request.datasets}


def _axes(
    request: SweepRequest, grid: SweepSpec, profile: Profile, user: Tree, base_categories: Any
) -> dict[str, tuple[Any, ...]]:
    """Values of each axis. Categories of the base are an axis too, because a word may stand for several."""
    named: set[str] = set()
    for axis in request.sweep.axes:
        reject_duplicate(check_field(axis, "`axes`"), named, "`axes`")
    own = {field_of(axis): _axis_values(axis, values, request.folder) for axis, values in request.sweep.axes.items()}
    axes = {check_field(axis, "grid axis"): _axis_values(axis, values) for axis, values in grid.axes.items()} | own
    if base_categories is not None and CATEGORIES_FIELD not in axes:
        axes = {CATEGORIES_FIELD: networks_of(base_categories), **axes}
    for axis, values in profile.axes.items():
        field = field_of(axis)
        whole = _WHOLE.get(field, ())
        named_all = field in axes and bool(whole) and all(value in axes[field] for value in whole)
        if field not in own and (named_all or (field not in axes and lookup(user, field) is None)):
            axes[field] = _axis_values(axis, values)
    if request.categories or request.datasets:
        axes[CATEGORIES_FIELD] = _narrow_categories(request, axes.get(CATEGORIES_FIELD))
    for field, words in ((BACKBONE_FIELD, request.backbones), (VARIANT_FIELD, request.variants)):
        if words:
            axes[field] = tuple(_named_value(field, word) for word in words)
    return axes


def _named_value(field: str, word: str) -> str:
    if field == BACKBONE_FIELD:
        return find_backbone(word)
    value = word.strip().lower()
    if value not in DOMAINS[field]:
        kind = field.rsplit(".", 1)[-1]
        raise SpecError(f"No {kind} is called {word!r}. {did_you_mean(value, DOMAINS[field])}")
    return value


def _axis_values(axis: str, values: tuple[Any, ...], folder: Path | None = None) -> tuple[Any, ...]:
    field, where = field_of(axis), f"axis `{axis}`"
    return tuple(one for value in values for one in _values_of(field, typed_value(field, value, where, folder)))


def _values_of(field: str, value: Any) -> tuple[Any, ...]:
    """Values that a checked value stands for: one for each network, if it has a category that stands for several."""
    if field == CATEGORIES_FIELD:
        return networks_of(value)
    inner = CATEGORIES_FIELD.removeprefix(f"{field}.")
    if field in SECTIONS and isinstance(value, Mapping) and has(value, inner):
        return tuple(overlay(value, nest({inner: ids})) for ids in networks_of(lookup(value, inner)))
    return (value,)


def _narrow_categories(request: SweepRequest, axis: tuple[Any, ...] | None) -> tuple[Any, ...]:
    available = axis if axis is not None else tuple((id_,) for id_ in BY_ID)
    datasets = _datasets(request)
    available += _imported_values(request, datasets, any(len(value) == 1 for value in available))
    if datasets:
        available = tuple(value for value in available if all(category_of(id_).dataset in datasets for id_ in value))
    if not available:
        raise SpecError(f"The sweep has no category of {', '.join(sorted(datasets))}. Omit `--dataset`, or choose "
                        "another grid: `orch grid list`.")  # fmt: skip
    if not request.categories:
        return available
    single = [value for value in available if len(value) == 1]
    wanted: set[str] = set()
    for word in request.categories:
        ids = _ids_among(word, [id_ for value in single or available for id_ in value])
        if not ids:
            names = ", ".join(category_of(id_).label for value in single or available for id_ in value)
            raise SpecError(f"The sweep has no category {word!r}. It has: {names}. `--grid all-categories` has all 37.")
        wanted |= ids
    if single:
        return tuple(value for value in single if wanted & set(value))
    return tuple(_some_of(value, wanted) for value in available if wanted & set(value))


def _imported_values(request: SweepRequest, datasets: set[str], single: bool) -> tuple[tuple[str, ...], ...]:
    """Values that imported categories add to the axis of a grid, which cannot name them: of the data sets of
    `--dataset`, or those that `--category` names by their ids, or by names that no category of the paper has; one
    network each, or all in one as in the grid."""
    words = [word.strip().lower() for word in request.categories]
    known = {name for category in CATEGORIES for name in (category.key, category.name)}
    named = [word if word in known else id_of(word, request.imported, "`--category`") for word in words]
    own = [id_ for id_ in request.imported if category_of(id_).dataset in datasets]
    own += [id_ for id_ in named if id_ not in BY_ID and is_category(id_)]
    ids = tuple(dict.fromkeys(own))
    return tuple((id_,) for id_ in ids) if single else ((ids,) if ids else ())


def _ids_among(word: str, ids: Sequence[str]) -> set[str]:
    """Those of `ids` that a word of `--category` stands for."""
    return {category.id for category in find_categories(word, ids)} & set(ids)


def _some_of(value: tuple[str, ...], wanted: set[str]) -> tuple[str, ...]:
    """The categories of one network that the user named; at least two."""
    kept = tuple(id_ for id_ in value if id_ in wanted)
    if len(kept) == 1:
        raise SpecError(
            f"The networks of this sweep distinguish several categories, but `--category` selects only {kept[0]}. "
            "Name a second one, or choose a grid with one network per category: `orch grid list`."
        )
    return kept


def _typed_rows(request: SweepRequest, grid: SweepSpec) -> Iterator[Tree]:
    """The `include` rows of the grid and the file, one for each network that a row stands for."""
    base = reduce(overlay, (typed_tree(grid.base, "grid"), typed_tree(request.sweep.base, "`base`")))
    written = ((row, None) for row in grid.include), ((row, request.folder) for row in request.sweep.include)
    for number, (row, folder) in enumerate(chain.from_iterable(written), start=1):
        tree = typed_tree(row, f"`include` row {number}", folder)
        categories = lookup(tree if has(tree, CATEGORIES_FIELD) else base, CATEGORIES_FIELD)
        if categories is None:
            yield tree
        else:
            yield from (overlay(tree, nest({CATEGORIES_FIELD: ids})) for ids in networks_of(categories))


def _pattern(row: Mapping[str, Any], number: int, folder: Path | None) -> Pattern:
    if not row:
        raise SpecError(f"`exclude` row {number} is empty, so it would leave out every job. Name fields, or remove it.")
    return Pattern.of(row, f"`exclude` row {number}", folder)


def _include_rows(
    request: SweepRequest, rows: Iterator[Tree], axes: Mapping[str, tuple[Any, ...]], profile: Profile, user: Tree
) -> Iterator[Tree]:
    """The `include` rows that match `--category`, `--backbone` and `--variant`, crossed with the profile's axes."""
    given = [field_of(axis) for axis in profile.axes]
    narrowed = {
        CATEGORIES_FIELD: bool(request.categories or request.datasets),
        BACKBONE_FIELD: bool(request.backbones),
        VARIANT_FIELD: bool(request.variants),
    }
    for tree in rows:
        named = [(f, lookup(tree, f)) for f in narrowed if narrowed[f] and lookup(tree, f) is not None]
        if all(value in axes[field] or _is_of_dataset(request, field, value) for field, value in named):
            open_axes = [field for field in given if field in axes and lookup(overlay(user, tree), field) is None]
            for values in product(*(axes[field] for field in open_axes)):
                yield overlay(nest(dict(zip(open_axes, values, strict=True))), tree)


def _is_of_dataset(request: SweepRequest, field: str, value: Any) -> bool:
    """Whether `--dataset` alone selects a network of several categories: all of them are of these data sets."""
    datasets = _datasets(request)
    selected = field == CATEGORIES_FIELD and bool(datasets) and not request.categories
    return selected and all(category_of(id_).dataset in datasets for id_ in value)


def _resources(*layers: Resources) -> Resources:
    given = {name: value for layer in layers for name, value in layer.model_dump(exclude_unset=True).items()}
    return Resources.model_validate(given)


def _name(request: SweepRequest, profile: str, photographs: bool) -> str:
    """Name of the sweep. Equal requests get equal names, so that repeating a command continues its sweep."""
    if request.name is not None:
        return check_name(request.name)
    if request.sweep.name:
        return check_name(request.sweep.name)
    if request.file_stem:
        return name_of_file(request.file_stem)
    typed = (
        request.categories,
        request.backbones,
        request.variants,
        request.datasets,
        sorted((request.sets or {}).items()),
    )
    suffix = f"-{hashlib.sha256(repr(typed).encode()).hexdigest()[:6]}" if any(typed) else ""
    return f"{request.sweep.grid or 'sweep'}-{profile}{'-photographs' if photographs else ''}{suffix}"


def name_of_file(stem: str) -> str:
    """Return the name of the sweep in a file without `name:`.

    Spaces become dashes. A name that loses anything else ends with a digest of the file's, so that other files have
    other names.
    """
    stem = unicodedata.normalize("NFC", stem)
    spaced = re.sub(r"\s+", "-", stem.strip())
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", spaced).strip("-._")
    if name == spaced and len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(stem.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{(name or 'sweep')[: MAX_NAME - 9]}-{digest}"


def check_name(name: str) -> str:
    """Return the name if a sweep may have it. It is also used as a file name.

    Raises:
        SpecError: it has other characters than letters, digits, dots, dashes and underscores, or is too long.
    """
    if not is_name(name):
        raise SpecError(f"{brief(name)} is not a valid sweep name. Use {NAME_RULE}.")
    return name
