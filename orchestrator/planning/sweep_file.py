"""Reads what a person wrote: sweep files and `--set` options."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from schemas.base import explain
from schemas.errors import SpecError
from schemas.sweep import SweepSpec


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-3` is a number, and a key given twice is an error."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:  # before `<<` brings in the keys of other mappings
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.composer.ComposerError(None, None, f"`{key.value}` is given twice", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return node


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(  # YAML 1.1 reads 1e-3 as text; everybody means the number
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_sweep_file(path: Path) -> SweepSpec:
    """The sweep that a YAML file describes.

    Raises:
        SpecError: no such file, malformed YAML (with its line), or a field that does not fit.
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
    """`["train.epochs=5"]` as fields with YAML-typed values.

    Raises:
        SpecError: an option without `=`, or a value that is not YAML.
    """
    fields: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.strip():
            raise SpecError(f"`--set {option}` names no value. Write it as `--set train.epochs=5`.")
        fields[name.strip()] = _parse(value, f"--set {option}")
    return fields


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SpecError(f"{where}{_position(error)}: {_problem(error)}. Repair the YAML there.") from error


def _position(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    parts = (getattr(error, "context", None), getattr(error, "problem", None))
    return ", ".join(part for part in parts if part) or str(error).splitlines()[0]


def _kind(content: Any) -> str:
    return "nothing" if content is None else f"a {type(content).__name__}"
