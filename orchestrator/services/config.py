"""The `orch config` commands: which settings apply, and where each comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.import_path import HOME
from orchestrator.settings import PREFIX, Settings
from workers.secret_files import FROM_FILES, SUFFIX
from workers.tracking.access import without_password

DEFAULT, ENVIRONMENT, OPTION = "default", "environment variable", "option"
"""Where the value of a setting comes from."""
VISIBLE = frozenset({
    "AWS_CA_BUNDLE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_REGION",
    "AWS_SHARED_CREDENTIALS_FILE", "MLFLOW_S3_ENDPOINT_URL", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME",
    "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR",
})  # fmt: skip
"""Variables of others whose values are no secrets and are shown; of all others only that they are set."""
LISTED = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN",
)  # fmt: skip
"""Variables of others that are listed also where they are not set."""
FAMILIES = ("AWS_", "MLFLOW_", "RAY_")
"""Prefixes of variables of others that are listed if they are set."""


@dataclass(frozen=True)
class Setting:
    """One setting of orch."""

    variable: str
    value: str | None
    """As text, without passwords; None if it is not set and has no default."""
    origin: str
    """DEFAULT, ENVIRONMENT or OPTION."""


@dataclass(frozen=True)
class Foreign:
    """An environment variable of another program that changes what orch does."""

    variable: str
    is_set: bool
    value: str | None
    """Its value if that is no secret."""


@dataclass(frozen=True)
class Configuration:
    """Everything that decides where orch reads and writes."""

    settings: tuple[Setting, ...]
    foreign: tuple[Foreign, ...]
    places: Mapping[str, str]
    """Resolved folders and addresses by what they hold."""


def show(
    data_root: Path | None = None, profile: str | None = None, environment: Mapping[str, str] = os.environ
) -> Configuration:
    """Return the settings that a command with these options would use.

    Args:
        data_root: value of `--data-root`; None if the option is not given.
        profile: value of `--profile`.
        environment: the environment variables.

    Raises:
        SpecError: a variable has a value that it does not take.
        StoreError: ORCH_HOME cannot be a home.
    """
    given = {name: value for name, value in (("data_root", data_root), ("profile", profile)) if value is not None}
    settings = Settings(**given)
    return Configuration(_settings(settings, given, environment), _foreign(environment), _places(settings))


def _settings(settings: Settings, given: Mapping[str, object], environment: Mapping[str, str]) -> tuple[Setting, ...]:
    is_set = {name.upper() for name, value in environment.items() if value}
    found = []
    for field in Settings.model_fields:
        variable, value = f"{PREFIX}{field.upper()}", getattr(settings, field)
        origin = OPTION if field in given else ENVIRONMENT if variable in is_set else DEFAULT
        text = f"{value:g}" if isinstance(value, float) else str(value)
        found.append(Setting(variable, None if value is None else without_password(text), origin))
    return tuple(found)


def _foreign(environment: Mapping[str, str]) -> tuple[Foreign, ...]:
    names = {*LISTED, *(name for name, value in environment.items() if name.startswith(FAMILIES) and value)}
    shown = VISIBLE | {f"{name}{SUFFIX}" for name in FROM_FILES}
    return tuple(
        Foreign(name, bool(value), without_password(value) if value and name in shown else None)
        for name, value in ((name, environment.get(name, "")) for name in sorted(names))
    )


def _places(settings: Settings) -> dict[str, str]:
    root = settings.root
    return {
        "code": HOME,
        "home": str(root),
        "tracking store": without_password(settings.store_uri),
        "artifacts": settings.artifact_uri or "as the tracking server says",
        "checkpoints": str(settings.checkpoint_dir),
        "shared objects": settings.object_store or "none",
        "logs": str(settings.log_dir),
        "prepared images": str(settings.cache_dir),
        "imported weights": str(settings.weights_dir),
        "locks": str(settings.lock_dir),
        "photographs": str(settings.data_root.expanduser().absolute()) if settings.data_root else "none",
    }
