"""Which code a process runs: the folder of its packages, a digest of them, and how another process runs the same."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from schemas.base import Frozen

PACKAGES = ("schemas", "interp_model", "workers", "orchestrator")
GIT_SECONDS = 5.0
"""Longest time to wait for git."""


class CodeHome(Frozen):
    """The code of one process."""

    folders: tuple[str, ...]
    """The folders that hold the packages; one, unless packages of different orchs are mixed."""
    sha256: str
    """Digest of the names and contents of all Python files of the packages."""
    may_differ: bool = False
    """Of a driver: whether a worker with other code runs jobs all the same, with a warning."""


def code_home() -> CodeHome:
    """Return the code that this process imports."""
    packages = _packages()
    digest = hashlib.sha256()
    for package in packages:
        for file in sorted(path for path in package.rglob("*.py") if path.name[0] != "."):
            digest.update(f"{file.relative_to(package.parent)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return CodeHome(folders=_folders(packages), sha256=digest.hexdigest())


def _packages() -> list[Path]:
    return [Path(spec.origin).parent for name in PACKAGES if (spec := find_spec(name)) and spec.origin]


def _folders(packages: Iterable[Path]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(package.resolve().parent) for package in packages))


def difference(driver: CodeHome, worker: CodeHome) -> str:
    """Return how a worker's code differs from its driver's, in a sentence that names the folders; empty if it does not.

    Another folder with the same files, as on another machine of a cluster, is no difference.
    """
    if driver.sha256 == worker.sha256:
        return ""
    return (
        f"This worker on {socket.gethostname()} would run the code of orch in {', '.join(worker.folders)}, and its "
        f"driver runs that in {', '.join(driver.folders)}, whose files differ."
    )


@cache
def version_of(library: str) -> str:
    """Return the version of an installed library, which is read once; empty if it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def git_commit() -> str:
    """Return the commit that is checked out where the code of this process lies; empty for an installed copy."""
    (folder, *others) = _folders(_packages())
    if others or not (Path(folder) / ".git").exists():
        return ""
    command = ["git", "-C", folder, "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def command_of(statement: str, *arguments: str) -> list[str]:
    """Return the command of a Python process that imports from where this one does, whatever its working folder.

    Args:
        statement: what it runs.
        arguments: `sys.argv[1:]` of the process.
    """
    end = 1 + len(arguments)
    start = f"import sys; sys.path[:] = sys.argv[{end}:]; del sys.argv[{end}:]; {statement}"
    return [sys.executable, "-P", "-c", start, *arguments, *(path or os.getcwd() for path in sys.path)]
