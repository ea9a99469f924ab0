"""What `orch config` prints: tables for people, and the shapes of its `--json`.

orch config show --json     ConfigurationJson
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.services.config import Configuration, Foreign


def config_text(found: Configuration) -> RenderableType:
    """Return tables of the settings, the variables of others, and the places that result."""
    settings = PlainTable("setting", "value", "from")
    for one in found.settings:
        settings.add_row(one.variable, one.value if one.value is not None else "none", one.origin)
    foreign = PlainTable("variable of others", "value")
    for other in found.foreign:
        foreign.add_row(other.variable, _value(other))
    places = PlainTable("place", "where")
    for name, where in found.places.items():
        places.add_row(name, where)
    return Group(settings, Text(""), foreign, Text(""), places)


def _value(variable: Foreign) -> str:
    if variable.value is not None:
        return variable.value
    return "set, not shown" if variable.is_set else "not set"


class SettingJson(JsonModel):
    """One setting of orch."""

    variable: str
    value: str | None
    origin: str
    """`default`, `environment variable` or `option`."""


class ForeignJson(JsonModel):
    """An environment variable of another program that changes what orch does."""

    variable: str
    is_set: bool
    value: str | None
    """Null if it is not set, or may be a secret."""


class ConfigurationJson(JsonModel):
    """The answer of `orch config show --json`."""

    settings: tuple[SettingJson, ...]
    foreign: tuple[ForeignJson, ...]
    places: dict[str, str]
    """Resolved folders and addresses by what they hold."""
