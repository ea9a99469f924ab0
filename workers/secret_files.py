"""Reads credentials from files that variables such as MLFLOW_TRACKING_PASSWORD_FILE name, as containers get them."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from schemas.errors import SpecError

FROM_FILES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Variables of MLflow that a file may hold. AWS, PostgreSQL and Ray have variables of their own for their files:
AWS_SHARED_CREDENTIALS_FILE, PGPASSFILE and RAY_AUTH_TOKEN_PATH."""
SUFFIX = "_FILE"


def read_secret_files(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set each variable of FROM_FILES to what the file that its `..._FILE` names holds, for this process and its
    children. Called once, at the start of a process.

    Args:
        environment: Variables to change. The `..._FILE` ones are removed, so that children need not read the file.

    Raises:
        SpecError: The file cannot be read or is empty, or the variable is set too.
    """
    for name in FROM_FILES:
        path = environment.get(f"{name}{SUFFIX}")
        if not path:
            continue
        if environment.get(name):
            raise SpecError(f"Both {name} and {name}{SUFFIX} are set. Unset one of them.")
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise SpecError(
                f"{name}{SUFFIX} names {path!r}, which cannot be read: {why}. Name a readable file."
            ) from error
        if not lines or not lines[0].strip():
            raise SpecError(f"{name}{SUFFIX} names {path!r}, whose first line is empty. Write the value there.")
        environment[name] = lines[0].strip()
        del environment[f"{name}{SUFFIX}"]
