"""Loads the modules that answer commands at their first use, so that a command loads only what it needs.

A module is loaded late if it is imported as a module: `from orchestrator.services import sweeps`. Importing a name from
it, as in `from orchestrator.services.sweeps import plan_sweep`, loads it at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

LATE = (
    "orchestrator.cli.text.",
    "orchestrator.services.",
    "orchestrator.execution.control",
    "orchestrator.execution.early_start",
    "orchestrator.execution.job_matrix",
    "orchestrator.execution.open_pool",
    "orchestrator.execution.progress",
    "orchestrator.execution.selection",
    "orchestrator.execution.sweep_run",
    "orchestrator.ledger.sqlite_reader",
    "orchestrator.planning.planner",
    "orchestrator.planning.request",
    "orchestrator.planning.resolver",
    "orchestrator.planning.sweep_file",
    "orchestrator.planning.typed",
    "orchestrator.report.coverage",
    "orchestrator.report.summary",
    "orchestrator.settings",
    "orchestrator.yaml_text",
)
"""Starts of the names of modules that are loaded late. They are first used in a command's own thread."""


class _LateFinder:
    """Finds the modules of `LATE` where they are, and puts off their execution."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname.startswith(LATE) else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def load_late() -> None:
    """Load the modules of `LATE` late from now on."""
    if not any(isinstance(finder, _LateFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LateFinder())
