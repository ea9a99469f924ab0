"""Parses YAML text into plain values: the scalars of YAML 1.2's core schema, one document, bounded in size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    NodeEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.resolver import BaseResolver

from schemas.errors import SpecError

MAX_DEPTH = 32
"""Largest number of collections within each other."""
MAX_NODES = 100_000
"""Largest number of values after every alias is replaced by what it stands for."""

_TAG = "tag:yaml.org,2002:"
_CORE_SCHEMA: Final = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", tuple("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        tuple("-+.0123456789"),
    ),
    ("merge", r"<<", ("<",)),
)
"""Type, pattern and first characters of plain scalars (YAML 1.2, section 10.3.2), and the merge key. Any other plain
scalar is text: `yes`, `1:30`, `1_000`, `0b1` and `2026-03-01` too, which ruamel.yaml reads as numbers or dates."""


class _Resolver(BaseResolver):
    """Resolves plain scalars by the core schema, whatever version a `%YAML` directive names."""

    def __init__(self, version: Any = None, loader: Any = None) -> None:
        super().__init__(loader)

    @property
    def processing_version(self) -> tuple[int, int]:
        """Version that the constructor reads numbers by."""
        return (1, 2)


for _name, _pattern, _first in _CORE_SCHEMA:
    _Resolver.add_implicit_resolver_base(f"{_TAG}{_name}", re.compile(rf"(?:{_pattern})\Z"), _first)


class _Constructor(SafeConstructor):
    """Constructs plain values only: explicit tags such as `!!set` or `!!timestamp` are refused."""


_Constructor.bool_values = {"true": True, "false": False}
_Constructor.yaml_constructors = {
    None: SafeConstructor.construct_undefined,
    **{
        f"{_TAG}{name}": SafeConstructor.yaml_constructors[f"{_TAG}{name}"]
        for name in ("null", "bool", "int", "float", "str", "seq", "map")
    },
}


def parse(text: str, where: str) -> Any:
    """Parse one YAML document.

    Args:
        text: YAML 1.2.
        where: origin of the text, such as a file's name; messages begin with it.

    Returns:
        Plain values: None, bool, int, float, str, list and dict.

    Raises:
        SpecError: invalid YAML (with line and column), a key that is a collection or occurs twice, several documents,
            or a document that is nested or expanded beyond the limits.
    """
    try:
        _check_size(text)
        node = _loader().compose(text)
        _check_keys(node)
        return _without_negative_zero(_loader().constructor.construct_document(node)) if node else None
    except (YAMLError, ValueError, LookupError) as error:  # the latter two: an explicit tag, such as `!!int x`
        raise SpecError(f"{where}{_position(error, text)}: {_problem(error)}. Correct the YAML there.") from error


def scalar(value: Any) -> Any:
    """Return the value that a text stands for, or the text itself where it is not YAML. Other values stay.

    For options and environment variables, which report what they do not take themselves.
    """
    try:
        return parse(value, "") if isinstance(value, str) else value
    except SpecError:
        return value


def _loader() -> YAML:
    loader = YAML(typ="safe", pure=True)
    loader.Resolver, loader.Constructor = _Resolver, _Constructor
    return loader


def _check_size(text: str) -> None:
    """Bound depth, expansion and number of documents before anything is built, so that building cannot run away."""
    sizes: dict[str, int] = {}
    """Anchor -> number of values that it stands for."""
    open_anchors: list[tuple[str | None, int]] = []
    count, documents = 0, 0
    for event in _loader().parse(text):
        mark = event.start_mark
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise ComposerError(None, None, "a second document begins; only one is read", mark)
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_anchors.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        elif isinstance(event, AliasEvent):
            if any(event.anchor == anchor for anchor, _ in open_anchors):
                raise ComposerError(None, None, f"alias `*{event.anchor}` contains itself", mark)
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, NodeEvent):
            count += 1
            if isinstance(event, CollectionStartEvent):
                open_anchors.append((event.anchor, count - 1))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        if len(open_anchors) > MAX_DEPTH:
            raise ComposerError(None, None, f"more than {MAX_DEPTH} collections within each other", mark)
        if count > MAX_NODES:
            raise ComposerError(None, None, f"more than {MAX_NODES} values, aliases expanded", mark)


def _check_keys(root: Node | None) -> None:
    """Require plain keys without duplicates. The library accepts lists as keys, and duplicates beside `<<`."""
    for node in _nodes(root):
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, MappingNode) else ():
            if not isinstance(key, ScalarNode):
                raise ComposerError(None, None, "a key must be plain text, not a list or mapping", key.start_mark)
            tagged = (str(key.tag), str(key.value))  # `1` and `"1"` are two keys
            if tagged in seen:
                raise ComposerError(None, None, f"duplicate key `{key.value}`", key.start_mark)
            seen.add(tagged)


def _nodes(root: Node | None) -> Iterator[Node]:
    """Every node of a document, each once: aliases share nodes."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, SequenceNode):
            waiting += node.value


def _without_negative_zero(value: Any) -> Any:
    """Replace -0.0 by 0.0, which equals it but is written differently, in a key for example."""
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, list):
        return [_without_negative_zero(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_negative_zero(item) for key, item in value.items()}
    return value


def _position(error: Exception, text: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        return f", line {mark.line + 1}, column {mark.column + 1}"
    if isinstance(error, ReaderError):
        return f", line {text.count(chr(10), 0, error.position) + 1}"
    return ""


def _problem(error: Exception) -> str:
    if isinstance(error, MarkedYAMLError):
        return ", ".join(part for part in (error.context, error.problem) if part)
    if isinstance(error, ReaderError):
        return f"character U+{error.character:04X} cannot be in YAML"
    if isinstance(error, LookupError):
        return "a value does not fit its tag"
    return "a number has too many digits" if "(4300 digits)" in str(error) else str(error)
