"""What the wheel installs: five packages, whole, and nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
PACKAGES = ("orch", "schemas", "interp_model", "workers", "orchestrator")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
INSTALLED = set(find_packages(str(ROOT), include=SETUPTOOLS["packages"]["find"]["include"]))


def test_nothing_but_the_packages_gets_a_top_level_name() -> None:
    assert {name.partition(".")[0] for name in INSTALLED} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_installed(package: str) -> None:
    files = [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    data = {file for name, patterns in SETUPTOOLS["package-data"].items() for pattern in patterns
            for file in ROOT.joinpath(*name.split(".")).glob(pattern)}  # fmt: skip
    for path in files:
        assert ".".join(path.parent.relative_to(ROOT).parts) in INSTALLED, path
        assert path.suffix == ".py" or path in data, path


def test_the_image_has_every_package() -> None:
    copied = [line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    assert set(PACKAGES) <= set(copied)


def test_the_classifiers_name_the_versions_of_python_that_are_allowed() -> None:
    named = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
    low, high = named[0], named[-1].replace("3.", "")
    assert PROJECT["project"]["requires-python"] == f">={low},<3.{int(high) + 1}"
