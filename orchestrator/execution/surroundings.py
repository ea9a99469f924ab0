"""What workers inherit from the terminal of their driver: its packages and environment, but no code that lies about."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DIVERTING = (
    "RAY_ADDRESS", "RAY_NAMESPACE", "RAY_RUNTIME_ENV_HOOK", "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV", "RAY_CLIENT_MODE", "RAY_JOB_ID", "RAY_RAYLET_PID", "RAY_REDIS_ADDRESS",
    "RAY_TRACING_STARTUP_HOOK", "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR",
)  # fmt: skip
"""Variables that would make a private Ray join another one, or its workers run other code."""


@contextmanager
def own_environment() -> Iterator[None]:
    """Within the context, processes that are started import exactly what this process imports."""
    before = dict(os.environ)
    for name in DIVERTING:
        os.environ.pop(name, None)
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path and os.pathsep not in path)
    try:
        yield
    finally:
        for name in (*DIVERTING, "PYTHONPATH"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


@contextmanager
def working_in(folder: str) -> Iterator[None]:
    """Change the working folder within the context; the former one may have been deleted.

    Ray adds the working folder of its driver to the folders that workers import from, before all others.

    Args:
        folder: A folder without Python modules, or the one that holds orch.
    """
    before = os.open(os.curdir, os.O_RDONLY)
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(before)
        os.close(before)
