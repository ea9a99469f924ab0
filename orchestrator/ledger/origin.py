"""Where a run comes from, in the tags that MLflow's own tools write and its page shows: user, program and commit."""

from __future__ import annotations

import getpass
from functools import cache

from workers.code_home import git_commit

PROGRAM = "orch"


@cache
def origin_tags() -> dict[str, str]:
    """Return the tags of a run that this process creates; a fact that is unknown has none."""
    known = {"mlflow.user": _user(), "mlflow.source.git.commit": git_commit()}
    return {
        "mlflow.source.name": PROGRAM,
        "mlflow.source.type": "LOCAL",
        **{name: value for name, value in known.items() if value},
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user has no name, or Windows
        return ""
