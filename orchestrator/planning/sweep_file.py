"""Parses sweep files and `--set` options: YAML 1.2 in, checked fields out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator import yaml_text
from schemas.base import brief, explain
from schemas.errors import SpecError
from schemas.sweep import SweepSpec

MAX_BYTES = 1 << 20
"""Largest size of a sweep file."""
STDIN = Path("-")
"""Stands for standard input in place of a file."""


def read_sweep_file(path: Path) -> SweepSpec:
    """Read a sweep from a YAML file.

    Args:
        path: the file, or `STDIN`; YAML 1.2 in UTF-8.

    Returns:
        The validated sweep.

    Raises:
        SpecError: the file does not exist, is not valid YAML (with line and column), or has an invalid field.
    """
    name = "standard input" if path == STDIN else str(path)
    content = yaml_text.parse(_text_of(_read(path), name), name)
    if not isinstance(content, dict):
        raise SpecError(f"{name} holds {_kind(content)}, not fields. Start with lines such as `grid: smoke`.")
    try:
        return SweepSpec.model_validate(content)
    except ValidationError as error:
        raise explain(error, name, SweepSpec) from error


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
        field = name.strip()
        if not equals or not field:
            raise SpecError(f"`--set` {brief(option)} has no field or no value. Write it as `--set train.epochs=5`.")
        if field in fields:
            raise SpecError(f"`--set {field}` is given twice. Keep one; several values make an axis of a sweep file.")
        fields[field] = yaml_text.parse(value, f"`--set {brief(field)[1:-1]}`")
    return fields


def _read(path: Path) -> bytes:
    if path == STDIN:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        if path.exists() and not path.is_file():
            raise SpecError(f"{path} is not a regular file. Give the path of a YAML file.")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(f"No sweep file at {path}. Give the path of a YAML file, or a grid: `--grid smoke`.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise SpecError(f"{path} cannot be read: {error}. Give the path of a YAML file.") from error


def _text_of(content: bytes, name: str) -> str:
    if len(content) > MAX_BYTES:
        raise SpecError(f"{name} is larger than {MAX_BYTES >> 20} MiB. Is it a sweep file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"{name}, line {line}, cannot be read as text: byte 0x{content[error.start]:02x} is not UTF-8. "
            "Save the file as UTF-8."
        ) from error


def _kind(content: Any) -> str:
    return "nothing" if content is None else "a list" if isinstance(content, list) else "a single value"
