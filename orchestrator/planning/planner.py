"""Decides which jobs a sweep has: merges layers, crosses axes, adds upstream jobs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Protocol

from pydantic import ValidationError

from interp_model.backbones import check_model
from orchestrator.planning.request import DOMAINS, VARIANT_FIELD, Definition
from orchestrator.planning.setting_layers import Tree, lookup, nest, overlay, without
from orchestrator.planning.typed import CATEGORIES_FIELD, Pattern, TypedRule, typed_tree
from schemas.base import explain
from schemas.errors import SpecError
from schemas.job import DataSpec, FileWeights, JobSpec, PretrainSpec
from schemas.sweep import Resources

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
    warnings: tuple[str, ...] = ()
    """What the sweep asks for in vain."""


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
    exclusion = _Exclusion(definition.exclude)
    trees: list[Tree] = []
    left_out: list[Tree] = []
    for tree in _trees(definition):
        (left_out if exclusion.covers(tree) else trees).append(tree)
    mixed = any(lookup(tree, VARIANT_FIELD) == "interpretable" for tree in trees)
    user = reduce(overlay, (*definition.layers, definition.sets))
    wanted = {}
    for tree in trees:
        spec = _job(_fit_variant(tree, user, mixed), definition.name)
        if exclusion.covers(_facts(spec)):  # again, because defaults have values now
            continue
        spec = _resolve(spec, resolver)
        wanted[spec.key] = spec
    if exclusion.in_vain:  # a row may match by a default what another row left out already
        for tree in left_out:
            with suppress(SpecError):  # a job that contradicts itself is left out all the more
                exclusion.covers(_facts(_job(_fit_variant(tree, user, mixed), definition.name)))
    if not wanted:
        raise SpecError(f"Sweep {definition.name} has no jobs: every job is excluded. Check its `exclude` rows.")
    upstream = {job.key: job for job in _upstream(wanted.values()) if job.key not in wanted}
    return PlannedSweep(
        name=definition.name,
        profile=definition.profile.name,
        jobs=(*upstream.values(), *wanted.values()),
        upstream_keys=frozenset(upstream),
        resources=definition.resources,
        warnings=exclusion.in_vain,
    )


class _Exclusion:
    """The `exclude` rows of a sweep, and which of them have matched."""

    def __init__(self, rows: tuple[Pattern, ...]) -> None:
        self._rows = rows
        self._matched: set[int] = set()

    def covers(self, tree: Tree) -> bool:
        """Whether a row matches the job. Every row is tried, so that those in vain are known."""
        matched = {number for number, row in enumerate(self._rows, start=1) if row.matches(tree)}
        self._matched |= matched
        return bool(matched)

    @property
    def in_vain(self) -> tuple[str, ...]:
        return tuple(
            f"`exclude` row {number} ({row.text}) matches no job of this sweep."
            for number, row in enumerate(self._rows, start=1)
            if number not in self._matched
        )


def _trees(definition: Definition) -> Iterator[Tree]:
    """Yield the merged fields of each job. The profile's rules lie below the user's fields."""
    profile = definition.profile
    below = typed_tree(profile.base, f"profile {profile.name}")
    if definition.photographs:
        below = overlay(below, typed_tree(profile.photographs, f"profile {profile.name}"))
    rows = [nest(dict(zip(definition.axes, values, strict=True))) for values in product(*definition.axes.values())]
    if definition.include and not definition.crosses:
        rows = [row for row in rows if _is_complete(reduce(overlay, (*definition.layers, row, definition.sets)))]
    for row in (*rows, *definition.include):
        above = [*definition.layers, row, definition.sets]
        fields, ruled = reduce(overlay, above, below), below
        categories = len(lookup(fields, CATEGORIES_FIELD) or ())
        for rule in definition.rules:
            if categories >= rule.least_categories and rule.when.matches(fields):
                ruled = _apply_rule(ruled, rule, categories)
        yield reduce(overlay, above, ruled)


def _apply_rule(tree: Tree, rule: TypedRule, categories: int) -> Tree:
    tree = overlay(tree, rule.set)
    for field, factor in [*rule.factors.items(), *((field, categories) for field in rule.by_categories)]:
        tree = overlay(tree, nest({field: lookup(tree, field) * factor}))
    return tree


def _is_complete(tree: Tree) -> bool:
    return all(lookup(tree, field) is not None for field in DOMAINS)


def _facts(spec: JobSpec) -> Tree:
    """Every field of a job that its variant uses, defaults included."""
    tree: Tree = spec.model_dump(mode="json")
    if spec.model.variant == "ordinary":
        for field in INTERPRETABLE_ONLY:
            tree = without(tree, field)
    return tree


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
