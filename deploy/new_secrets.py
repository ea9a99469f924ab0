"""Writes `.env` with new secrets for docker-compose.yml. Needs nothing but Python.

`.env` is readable by its owner only and never overwritten, and no secret is printed.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

NAMES = (
    "POSTGRES_PASSWORD", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "S3_ADMIN_KEY", "S3_ADMIN_SECRET", "S3_ACCESS_KEY", "S3_SECRET_KEY", "RAY_AUTH_TOKEN",
)  # fmt: skip
"""Variables of docker-compose.yml that hold a secret."""


def write_secrets(path: Path) -> str:
    """Write a file with a new secret for each of NAMES, or those of them that it lacks.

    Args:
        path: The file. What it has already stays as it is.

    Returns:
        What was done, as a sentence without any secret.
    """
    path.touch(mode=0o600)
    path.chmod(0o600)
    text = path.read_text(encoding="utf-8")
    known = {line.partition("=")[0].strip() for line in text.splitlines() if line.partition("=")[2].strip()}
    missing = [name for name in NAMES if name not in known]
    if not missing:
        return f"{path} has all secrets already; nothing was changed."
    lines = [f"{name}={secrets.token_urlsafe(32)}" for name in missing]
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in ([""] if text and not text.endswith("\n") else []) + lines))
    return f"{path} has new values of {', '.join(missing)}. Only its owner can read it; do not commit it."


if __name__ == "__main__":
    os.umask(0o077)
    print(write_secrets(Path(sys.argv[1] if len(sys.argv) > 1 else ".env")))
