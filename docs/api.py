"""Builds the API pages: `python docs/api.py build/api` writes HTML for the packages, or those named after it."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import pdoc
import pdoc.render

PACKAGES = ("orch", "schemas", "interp_model", "workers", "orchestrator")


def build(folder: Path, packages: tuple[str, ...] = PACKAGES) -> None:
    """Write one HTML page per module, and an index with a search box.

    Args:
        folder: created if missing; pages of the same name are overwritten.
        packages: names of importable packages.
    """
    for package in packages:
        _prepare(package)
    pdoc.render.configure(docformat="google", footer_text="orch")
    pdoc.pdoc(*packages, output_directory=folder)


def _prepare(package: str) -> None:
    """Let pdoc find all modules, and evaluate the annotations of named tuples.

    pdoc leaves out modules that `__all__` of their package, if it has one, does not name. Constructors of named tuples
    claim a module that does not exist.
    """
    modules = [importlib.import_module(package)]
    modules += [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(modules[0].__path__, f"{package}.")
    ]
    for module in modules:
        if hasattr(module, "__path__") and (names := list(getattr(module, "__all__", ()))):
            vars(module).update({name: getattr(module, name) for name in names})  # some are imported on first use
            vars(module)["__all__"] = [*names, *(found.name for found in pkgutil.iter_modules(module.__path__))]
        for value in list(vars(module).values()):
            if isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
                value.__new__.__module__ = value.__module__


if __name__ == "__main__":
    build(Path(sys.argv[1]), tuple(sys.argv[2:]) or PACKAGES)
