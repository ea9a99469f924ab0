"""Decides how layers of settings are merged: nests dotted names, overlays trees, compares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from schemas.job import NAMING
from schemas.sweep import AXIS_ALIASES

Tree = dict[str, Any]


def field_of(name: str) -> str:
    """Return the full name of a field: `model.backbone` for the alias `backbone`."""
    return AXIS_ALIASES.get(name, name)


def nest(fields: Mapping[str, Any]) -> Tree:
    """Convert dotted names and aliases to a tree.

    `{"train.epochs": 5, "backbone": "vgg16"}` gives `{"train": {"epochs": 5}, "model": {"backbone": "vgg16"}}`. Aliases
    are replaced at the top level only.
    """
    return _nest({field_of(str(name)): value for name, value in fields.items()})


def _nest(fields: Mapping[str, Any]) -> Tree:
    tree: Tree = {}
    for name, value in fields.items():
        *parents, leaf = str(name).split(".")
        inner = _nest(value) if isinstance(value, Mapping) else value
        for parent in reversed([*parents, leaf]):
            inner = {parent: inner}
        tree = overlay(tree, inner)
    return tree


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Return `below` with the values of `above`, merged section by section.

    A section with another `source` replaces the whole section, because other kinds of weights have other fields.
    """
    merged: Tree = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not _other_kind(old, value):
            merged[name] = overlay(old, value)
        else:
            merged[name] = value
    return merged


def _other_kind(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    kinds = old.get("source"), new.get("source")
    return all(isinstance(kind, str) for kind in kinds) and kinds[0] != kinds[1]


def lookup(tree: Mapping[str, Any], field: str) -> Any:
    """Return the value at a dotted name, or None if the tree does not have it."""
    node: Any = tree
    for part in field.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def has(tree: Mapping[str, Any], field: str) -> bool:
    """Return whether the tree has a dotted name, even with the value None."""
    *parents, leaf = field.split(".")
    section = lookup(tree, ".".join(parents)) if parents else tree
    return isinstance(section, Mapping) and leaf in section


def without(tree: Mapping[str, Any], field: str) -> Tree:
    """Return the tree without the value at a dotted name."""
    head, _, rest = field.partition(".")
    if head not in tree:
        return dict(tree)
    if not rest:
        return {name: value for name, value in tree.items() if name != head}
    inner = tree[head]
    return {**tree, head: without(inner, rest)} if isinstance(inner, Mapping) else dict(tree)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of every leaf. An empty mapping counts as a leaf."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (field, old value, new value) for every leaf in which two trees differ. A missing value is None.

    Fields that only a job's title depends on are left out.
    """
    before, after = dict(flatten(old)), dict(flatten(new))
    names = [name for name in dict.fromkeys([*before, *after]) if name not in NAMING]
    return [(n, before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)]


def describe_difference(field: str, old: Any, new: Any) -> str:
    """Format a difference, such as `train.epochs 3 -> 5`, with long values cut."""
    return f"{field} {short(old)} -> {short(new)}"


def short(value: Any) -> str:
    """Format a value in at most 40 characters."""
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
