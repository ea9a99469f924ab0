"""Parses sweep files and `--set` options: YAML 1.2 in, checked fields out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from schemas.base import explain
from schemas.errors import SpecError
from schemas.sweep import SweepSpec


def read_sweep_file(path: Path) -> SweepSpec:
    """Read a sweep from a YAML file.

    Args:
        path: the file; YAML 1.2 in UTF-8.

    Returns:
        The validated sweep.

    Raises:
        SpecError: the file does not exist, is not valid YAML (with line and column), or has an invalid field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"No sweep file at {path}. Give the path of a YAML file, or a grid: `--grid smoke`.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read as text: {error}. A sweep file is YAML in UTF-8.") from error
    content = _parse(text, str(path))
    if not isinstance(content, dict):
        raise SpecError(f"{path} holds {_kind(content)}, not fields. Start with lines such as `grid: smoke`.")
    try:
        return SweepSpec.model_validate(content)
    except ValidationError as error:
        raise explain(error, str(path), SweepSpec) from error


def parse_sets(options: Iterable[str]) -> dict[str, Any]:
    """Parse `--set` options: `["train.epochs=5"]` gives `{"train.epochs": 5}`.

    Args:
        options: texts of the form `field=value`; the value is YAML.

    Returns:
        Values by field name, typed as in a sweep file.

    Raises:
        SpecError: an option has no `=`, or its value is not valid YAML.
    """
    fields: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.strip():
            raise SpecError(f"`--set {option}` has no field or no value. Write it as `--set train.epochs=5`.")
        fields[name.strip()] = _parse(value, f"--set {option}")
    return fields


def _parse(text: str, where: str) -> Any:
    try:
        _check_keys(YAML(typ="safe", pure=True).compose(text))
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:  # ValueError: an explicit tag such as `!!int x`
        raise SpecError(f"{where}{_position(error)}: {_problem(error)}. Correct the YAML there.") from error


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
    """Every node of a document, each once: aliases share nodes and may form a cycle."""
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


def _position(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _problem(error: Exception) -> str:
    parts = (getattr(error, "context", None), getattr(error, "problem", None))
    return ", ".join(part for part in parts if part) or str(error).splitlines()[0]


def _kind(content: Any) -> str:
    return "nothing" if content is None else f"a {type(content).__name__}"
