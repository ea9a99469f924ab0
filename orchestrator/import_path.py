"""From which folders this process imports: never from the one that it was started in. Needs only the standard library.

Python itself puts the folder of the script, or with `-m` the working folder, before everything else, and the folders of
PYTHONPATH before its own library. A `queue.py`, `torch.py` or `schemas/` of the user there would be imported instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HOME = str(Path(__file__).resolve().parents[1])
"""The folder that holds the running orch: a checkout, or the `site-packages` that it was installed to."""


def clean_import_path() -> None:
    """Order `sys.path` by `ordered`. Called before the first import of a module that a user's folder may hide."""
    here = _real(os.curdir)
    script = os.path.dirname(_real(sys.argv[0])) if sys.argv and sys.argv[0] else here
    sys.path[:] = ordered(sys.path, os.environ, {here, script})


def ordered(entries: Sequence[str], environment: Mapping[str, str], unwanted: set[str]) -> list[str]:
    """Return the folders to import from: the standard library, orch's, installed packages, and then PYTHONPATH.

    Args:
        entries: Those of `sys.path`.
        environment: May have PYTHONPATH.
        unwanted: The real paths of the working folder and of the script's folder, which are left out.
    """
    of_user = {_real(entry) for entry in environment.get("PYTHONPATH", "").split(os.pathsep)}
    first: list[str] = []
    last: list[str] = []
    for entry in entries:
        real = _real(entry)
        if entry and real != HOME and (real not in unwanted or _is_installed(entry)):
            (last if real in of_user and not _is_installed(entry) else first).append(os.path.abspath(entry))
    place = next((n for n, entry in enumerate(first) if _is_installed(entry)), len(first))
    return [*first[:place], HOME, *first[place:], *last]


def _real(path: str) -> str:
    """Return the real path; a relative one stays as it is if the working folder was deleted."""
    try:
        return os.path.realpath(path)
    except FileNotFoundError:
        return path


def _is_installed(entry: str) -> bool:
    return os.path.basename(entry.rstrip("/")) in ("site-packages", "dist-packages")
