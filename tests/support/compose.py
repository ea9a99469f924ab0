"""Reads docker-compose.yml as Docker Compose would: variables from an environment, commands as arguments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<text>[^}]*))?\})")


class Refused(Exception):
    """A variable that the file requires is not set."""


def load(*names: str) -> dict[str, Any]:
    """Return the first file with the services of the others laid over it, before variables are filled in."""
    yaml = YAML(typ="safe", pure=True)
    merged, *others = (yaml.load((ROOT / name).read_text()) for name in names or ("docker-compose.yml",))
    for other in others:
        for service, changes in other["services"].items():
            merged["services"][service] = _laid_over(merged["services"][service], changes)
    return dict(merged)


def _laid_over(base: Any, changes: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {name: _laid_over(base.get(name), value) for name, value in changes.items()}


def fill(value: Any, environment: Mapping[str, str]) -> Any:
    """Return a value of the file with its variables filled in.

    Raises:
        Refused: one that is required is not set.
    """
    if isinstance(value, dict):
        return {name: fill(item, environment) for name, item in value.items()}
    if isinstance(value, list):
        return [fill(item, environment) for item in value]
    return VARIABLE.sub(lambda found: _value(found, environment), value) if isinstance(value, str) else value


def _value(found: re.Match[str], environment: Mapping[str, str]) -> str:
    if found["name"] is None:
        return "$"
    given = environment.get(found["name"], "")
    if not given and found["how"] == ":?":
        raise Refused(f"{found['name']}: {found['text']}")
    return given or (found["text"] if found["how"] == ":-" else "")


def command(service: Mapping[str, Any]) -> list[str]:
    """Return the arguments of a service's process."""
    parts = [service.get("entrypoint", []), service.get("command", [])]
    return [word for part in parts for word in (shlex.split(part) if isinstance(part, str) else part)]
