"""Decides which jobs a sweep has: merges layers, crosses axes, adds upstream jobs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any, Protocol

from pydantic import ValidationError

from interp_model.backbones import check_model
from orchestrator.planning.layers import Tree, flatten, has, lookup, nest, overlay, without
from orchestrator.planning.request import CATEGORIES_FIELD, DOMAINS, VARIANT_FIELD, Definition, axis_value
from schemas.base import explain
from schemas.errors import SpecError
from schemas.job import DataSpec, FileWeights, JobSpec, PretrainSpec
from schemas.sweep import Resources, Rule

INTERPRETABLE_ONLY = ("filter_loss", "model.mask")


class Resolver(Protocol):
    """Reads the facts of a spec that depend on the content of files."""

    def data_digest(self, data: DataSpec) -> str:
        """Return the digest of a job's images."""
        ...

    def label_names(self, data: DataSpec) -> tuple[str, ...]:
        """Return the names of a network's outputs where the data decides them; otherwise an empty tuple."""
        ...

    def weights_digest(self, path: str) -> str:
        """Return the SHA-256 of a weights file."""
        ...

    def weights_label(self, path: str) -> str:
        """Return the description of where the weights of a file come from."""
        ...


class NullResolver:
    """Resolver that reads no files, for plans whose keys are not used."""

    def data_digest(self, data: DataSpec) -> str:
        """Return an empty digest."""
        return ""

    def label_names(self, data: DataSpec) -> tuple[str, ...]:
        """Return no names."""
        return ()

    def weights_digest(self, path: str) -> str:
        """Return an empty digest."""
        return ""

    def weights_label(self, path: str) -> str:
        """Return an empty label."""
        return ""


@dataclass(frozen=True)
class PlannedSweep:
    """A sweep with all its jobs."""

    name: str
    profile: str
    jobs: tuple[JobSpec, ...]
    """Upstream jobs first; no job twice."""
    upstream_keys: frozenset[str]
    """Keys of the jobs that run only because others start from them."""
    resources: Resources


def plan(definition: Definition, resolver: Resolver) -> PlannedSweep:
    """Plan the jobs of a sweep.

    Args:
        definition: the sweep with all names checked.
        resolver: reads digests and labels of the files that jobs use.

    Returns:
        The sweep with its jobs.

    Raises:
        SpecError: the fields of a job contradict each other, or every job is excluded.
    """
    trees = [tree for tree in _trees(definition) if not _excluded(tree, definition.exclude)]
    mixed = any(lookup(tree, VARIANT_FIELD) == "interpretable" for tree in trees)
    user = reduce(overlay, (*definition.layers, definition.sets))
    wanted = {}
    for tree in trees:
        spec = _job(_fit_variant(tree, user, mixed), definition.name)
        if definition.exclude and _excluded(
            _facts(spec), definition.exclude
        ):  # again, because defaults have values now
            continue
        spec = _resolve(spec, resolver)
        wanted[spec.key] = spec
    if not wanted:
        raise SpecError(f"Sweep {definition.name} has no jobs: every job is excluded. Check its `exclude` rows.")
    upstream = {job.key: job for job in _upstream(wanted.values()) if job.key not in wanted}
    return PlannedSweep(
        name=definition.name,
        profile=definition.profile.name,
        jobs=(*upstream.values(), *wanted.values()),
        upstream_keys=frozenset(upstream),
        resources=definition.resources,
    )


def _trees(definition: Definition) -> Iterator[Tree]:
    """Yield the merged fields of each job. The profile's rules lie below the user's fields."""
    profile = definition.profile
    below = nest(profile.base)
    if definition.photographs:
        below = overlay(below, nest(profile.photographs))
    rows = [nest(dict(zip(definition.axes, values, strict=True))) for values in product(*definition.axes.values())]
    if definition.include and not definition.crosses:
        rows = [row for row in rows if _is_complete(reduce(overlay, (*definition.layers, row, definition.sets)))]
    for row in (*rows, *definition.include):
        above = [*definition.layers, row, definition.sets]
        fields, ruled = _with_category_ids(reduce(overlay, above, below)), below
        categories = len(lookup(fields, CATEGORIES_FIELD) or ())
        for rule in profile.rules:
            if categories >= rule.least_categories and _matches(fields, nest(rule.when)):
                ruled = _apply_rule(ruled, rule, categories)
        yield _with_category_ids(reduce(overlay, above, ruled))


def _apply_rule(tree: Tree, rule: Rule, categories: int) -> Tree:
    tree = overlay(tree, nest(rule.set))
    for field, factor in [*rule.multiply.items(), *((field, categories) for field in rule.by_categories)]:
        tree = overlay(tree, nest({field: lookup(tree, field) * factor}))
    return tree


def _is_complete(tree: Tree) -> bool:
    return all(lookup(tree, field) is not None for field in DOMAINS)


def _with_category_ids(tree: Tree) -> Tree:
    """Replace category names such as `cat` by ids such as `voc_part/cat`."""
    for field in (CATEGORIES_FIELD, f"weights.{CATEGORIES_FIELD}"):
        if (words := lookup(tree, field)) is not None:
            tree = overlay(tree, nest({field: axis_value(CATEGORIES_FIELD, words)}))
    return tree


def _matches(tree: Tree, row: Tree) -> bool:
    return all(
        has(tree, field) and _value_matches(field, lookup(tree, field), wanted) for field, wanted in flatten(row)
    )


def _facts(spec: JobSpec) -> Tree:
    """Every field of a job that its variant uses, defaults included."""
    tree: Tree = spec.model_dump(mode="json")
    if spec.model.variant == "ordinary":
        for field in INTERPRETABLE_ONLY:
            tree = without(tree, field)
    return tree


def _value_matches(field: str, value: Any, wanted: Any) -> bool:
    options = wanted if isinstance(wanted, (list, tuple)) else (wanted,)
    if field == CATEGORIES_FIELD:
        return any(set(value or ()) <= set(axis_value(field, option)) for option in options)
    return value in options


def _excluded(tree: Tree, rows: Iterable[Tree]) -> bool:
    return any(_matches(tree, row) for row in rows)


def _fit_variant(tree: Tree, user: Tree, mixed: bool) -> Tree:
    """Add the filter loss to interpretable jobs, and remove interpretable-only fields from ordinary ones.

    In a sweep without interpretable networks, such a field of the user stays, and the spec rejects it.
    """
    if lookup(tree, VARIANT_FIELD) == "interpretable":
        return tree if "filter_loss" in tree else {**tree, "filter_loss": {}}
    for field in INTERPRETABLE_ONLY:
        if mixed or lookup(user, field) is None:
            tree = without(tree, field)
    return tree


def _job(tree: Tree, sweep: str) -> JobSpec:
    try:
        spec = JobSpec.model_validate(tree)
    except ValidationError as error:
        where = " ".join(str(lookup(tree, f)) for f in ("model.backbone", VARIANT_FIELD) if lookup(tree, f) is not None)
        raise explain(error, f"Sweep {sweep}{f', {where}' if where else ''}", JobSpec) from error
    check_model(spec.model, spec.train.freeze_below)
    return spec


def _resolve(spec: JobSpec, resolver: Resolver) -> JobSpec:
    weights = spec.weights
    if isinstance(weights, PretrainSpec):
        weights = weights.model_copy(update={"data": _resolve_data(weights.data, resolver)})
    elif isinstance(weights, FileWeights):
        found = {"sha256": resolver.weights_digest(weights.path), "label": resolver.weights_label(weights.path)}
        weights = weights.model_copy(update=found)
    return spec.model_copy(update={"data": _resolve_data(spec.data, resolver), "weights": weights})


def _resolve_data(data: DataSpec, resolver: Resolver) -> DataSpec:
    return data.model_copy(update={"digest": resolver.data_digest(data), "label_names": resolver.label_names(data)})


def _upstream(jobs: Iterable[JobSpec]) -> list[JobSpec]:
    """The jobs that `jobs` start from, each before those that need it."""
    found: list[JobSpec] = []
    for job in jobs:
        if (upstream := job.upstream) is not None:
            found += [*_upstream([upstream]), upstream]
    return found
