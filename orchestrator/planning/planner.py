"""Decides which jobs a sweep has: merges layers, crosses axes, adds upstream jobs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from itertools import chain, product
from typing import Any, Protocol

from pydantic import ValidationError

from interp_model.backbones import TORCHVISION_BACKBONES, check_model
from orchestrator.planning.request import DOMAINS, VARIANT_FIELD, Definition
from orchestrator.planning.setting_layers import Tree, flatten, lookup, nest, overlay, short, without
from orchestrator.planning.typed import CATEGORIES_FIELD, Pattern, TypedRule, typed_tree
from schemas.base import explain
from schemas.categories import BY_ID
from schemas.data_spec import has_official_split
from schemas.errors import SpecError
from schemas.job import (
    NAMING,
    DataSpec,
    EverythingSpec,
    FileWeights,
    ImagenetWeights,
    JobSpec,
    PretrainSpec,
    TorchvisionWeights,
    share_parts,
)
from schemas.model_spec import foreign_name
from schemas.sweep import Resources
from schemas.training_spec import WeightsSpec

INTERPRETABLE_ONLY = ("filter_loss", "model.mask", "model.new_layer_std")


class Resolver(Protocol):
    """Reads the facts of a spec that depend on the content of files."""

    def data_digest(self, data: DataSpec) -> str:
        """Return the digest of a job's images."""
        ...

    def label_names(self, data: DataSpec) -> tuple[str, ...]:
        """Return the names of a network's outputs where the data decides them; otherwise an empty tuple."""
        ...

    def everything(self, data: DataSpec) -> DataSpec:
        """Return the data of a pre-training on everything labelled, with what the data root has."""
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

    def everything(self, data: DataSpec) -> DataSpec:
        """Return the data as it is, with every category."""
        return data

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
    jobs = _told_apart(list(wanted.values()), _stated(definition))
    lending = {job.key: job for job in _upstream(jobs) if job.key not in wanted}
    upstream = _told_apart(list(lending.values()), ())
    share_parts((*upstream, *jobs))
    return PlannedSweep(
        name=definition.name,
        profile=definition.profile.name,
        jobs=(*upstream, *jobs),
        upstream_keys=frozenset(lending),
        resources=definition.resources,
        warnings=exclusion.in_vain,
    )


def _stated(definition: Definition) -> frozenset[str]:
    """Fields that the axes and the `include` rows set, and the sections that they replace."""
    return frozenset([*definition.axes, *(name for row in definition.include for name, _ in flatten(row))])


def _told_apart(jobs: Sequence[JobSpec], stated: Collection[str]) -> list[JobSpec]:
    """Add to titles that several jobs share the fields in which these jobs differ.

    Args:
        jobs: the jobs of a sweep.
        stated: fields and sections that the sweep sets for some of its jobs. Only if none of them differs are other
            fields named.

    Returns:
        The jobs in their order.
    """
    titles: dict[str, list[JobSpec]] = {}
    for job in jobs:
        titles.setdefault(job.title, []).append(job)
    named: dict[str, JobSpec] = {}
    for alike in titles.values():
        fields = [dict(flatten(job.model_dump(mode="json"))) for job in alike] if len(alike) > 1 else []
        names = dict.fromkeys(chain(*fields))
        differing = [name for name in names if any(one.get(name) != fields[0].get(name) for one in fields)]
        chosen = [name for name in differing if any(f"{name}.".startswith(f"{field}.") for field in stated)]
        texts = [_difference(chosen or differing, one, fields) for one in fields]
        for job, text in zip(alike, texts, strict=False):
            unique = text if texts.count(text) == 1 else f"{text}, {job.key[:6]}"
            named[job.key] = job.model_copy(update={"differs_by": unique})
    return [named.get(job.key, job) for job in jobs]


def _difference(names: Sequence[str], own: Mapping[str, Any], fields: Sequence[Mapping[str, Any]]) -> str:
    """Name a job's values of the fields in which several jobs differ; of lists only the elements that not all have."""
    parts = []
    for name in names:
        value = own.get(name)
        lists = [one[name] for one in fields if isinstance(one.get(name), list)]
        if len(lists) == len(fields):
            common = set(lists[0]).intersection(*lists)
            value = [element for element in own[name] if element not in common] or value
        parts.append(f"{name.rpartition('.')[2]} {short(value)}")
    return ", ".join(parts)


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
        yield _share_split(reduce(overlay, above, ruled))


def _share_split(tree: Tree) -> Tree:
    """Let pre-training on photographs hold out what the job holds out, unless the user set its split."""
    data, pretraining = lookup(tree, "data") or {}, lookup(tree, "weights.data") or {}
    if any(found.get("images") != "photographs" for found in (data, pretraining)):
        return tree
    missing = [name for name in ("test_fraction",) if name not in pretraining]
    # The split of CUB says nothing about pre-training on other data sets.
    is_meant = data.get("split") != "official" or has_official_split(pretraining.get("categories") or ())
    if is_meant and "split" not in pretraining:
        missing += ["split", "split_seed"]
    shared = {f"weights.data.{name}": data[name] for name in missing if name in data}
    return overlay(tree, nest(shared))


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
    if name := next((name for name in NAMING if name in tree), ""):
        raise SpecError(f"Sweep {sweep} sets `{name}`, which orch writes itself. Remove it.")
    if lookup(tree, "weights.source") == "everything" and lookup(tree, "weights.data") is not None:
        raise SpecError(
            f"Sweep {sweep} sets `weights.data`, but `weights.source` is 'everything', whose data are all labelled "
            "photographs that the job is not tested on. Remove `weights.data`, or set `weights.source: pretrain`."
        )
    try:
        spec = JobSpec.model_validate(tree)
    except ValidationError as error:
        where = " ".join(str(lookup(tree, f)) for f in ("model.backbone", VARIANT_FIELD) if lookup(tree, f) is not None)
        raise explain(error, f"Sweep {sweep}{f', {where}' if where else ''}", JobSpec) from error
    check_model(spec.model, spec.train.freeze_below)
    spec = _hold_out(spec)
    _check_held_out(spec, sweep)
    return spec


def _hold_out(spec: JobSpec) -> JobSpec:
    """Let pre-training on photographs hold out those that the job is tested on, also of categories that it lacks."""
    recipe, own = spec.weights, spec.data
    if not isinstance(recipe, PretrainSpec) or {own.images, recipe.data.images} != {"photographs"}:
        return spec
    # Every category that may be a negative, whatever the job's own, so that several jobs share one pre-training.
    tested = {*own.categories, *(BY_ID if _has_other_categories(own) else ()), *recipe.data.held_out_categories}
    names = tuple(name for name in BY_ID if name in tested and name not in recipe.data.categories)
    data = recipe.data.model_copy(update={"held_out_categories": names})
    return spec.model_copy(update={"weights": recipe.model_copy(update={"data": data})})


def _has_other_categories(data: DataSpec) -> bool:
    return data.is_single and data.negatives == "other_categories"


def _check_held_out(spec: JobSpec, sweep: str) -> None:
    """Check that pre-training trains on no image that the job is tested on.

    Raises:
        SpecError: the two split a category differently.
    """
    if spec.upstream is None or {spec.data.images, spec.upstream.data.images} != {"photographs"}:
        return
    own, before = spec.data, spec.upstream.data
    held_out = (*before.categories, *before.held_out_categories)
    used = [name for name in held_out if name in own.categories or _has_other_categories(own)]
    if seen := [name for name in used if own.held_out(name) != before.held_out(name)]:
        raise SpecError(
            f"Sweep {sweep}, {spec.title}: pre-training would train on test images of {', '.join(seen)}, because "
            f"`weights.data` is split differently: {_split(before)}, and `data`: {_split(own)}. Remove `split`, "
            "`split_seed` and `test_fraction` from `weights.data`: pre-training then has the split of the job."
        )


def _split(data: DataSpec) -> str:
    seed = f" with seed {data.split_seed}" if data.split == "seeded" else ""
    return f"{data.split}{seed}, test fraction {data.test_fraction:g}"


def _resolve(spec: JobSpec, resolver: Resolver) -> JobSpec:
    weights = _of_publisher(spec)
    if isinstance(weights, PretrainSpec):
        weights = weights.model_copy(update={"data": _resolve_data(weights.data, resolver)})
    elif isinstance(weights, EverythingSpec):
        weights = weights.model_copy(update={"data": _resolve_data(resolver.everything(weights.data), resolver)})
    elif isinstance(weights, FileWeights):
        found = {"sha256": resolver.weights_digest(weights.path), "label": resolver.weights_label(weights.path)}
        weights = weights.model_copy(update=found)
    return spec.model_copy(update={"data": _resolve_data(spec.data, resolver), "weights": weights})


def _of_publisher(spec: JobSpec) -> WeightsSpec:
    """Return the job's weights, with `torchvision` in place of `imagenet` where torchvision publishes them.

    Raises:
        SpecError: no library that orch knows publishes ImageNet weights for the backbone.
    """
    weights, backbone = spec.weights, spec.model.backbone
    name = foreign_name(backbone)
    by = name.source if name else "torchvision" if backbone in TORCHVISION_BACKBONES else None
    if isinstance(weights, ImagenetWeights) and by != "lite":
        if by == "torchvision":
            return TorchvisionWeights()
        raise SpecError(
            f"`weights.source` is 'imagenet', but no package carries such weights for {backbone}. Set "
            "`weights.source: pretrain`, or `file` with a path."
        )
    if isinstance(weights, TorchvisionWeights) and by is None:
        raise SpecError(
            f"`weights.source` is 'torchvision', which publishes no weights for {backbone}, only for "
            f"{', '.join(sorted(TORCHVISION_BACKBONES))} and its own networks. Set `weights.source: pretrain`, or "
            "`file` with a path."
        )
    if isinstance(weights, TorchvisionWeights) and name and by != "torchvision":
        raise SpecError(
            f"`weights.source` is 'torchvision', but {backbone} is not torchvision's. Set `weights.source: imagenet` "
            "for EfficientNet-Lite, or `file` with a path."
        )
    return weights


def _resolve_data(data: DataSpec, resolver: Resolver) -> DataSpec:
    return data.model_copy(update={"digest": resolver.data_digest(data), "label_names": resolver.label_names(data)})


def _upstream(jobs: Iterable[JobSpec]) -> list[JobSpec]:
    """The jobs that `jobs` start from, each before those that need it."""
    found: list[JobSpec] = []
    for job in jobs:
        if (upstream := job.upstream) is not None:
            found += [*_upstream([upstream]), upstream]
    return found
