"""Each recipe of CONTRIBUTING.md works: its code is applied to a copy of the repository, and its check passes there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("orch", "schemas", "interp_model", "workers", "orchestrator", "benchmarks", "tests", "pyproject.toml")
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"python file=(\S+)(?: (?:(before|after|replace)=(['\"])(.*)\3|(append)))?$")
PROGRAMS = {
    "pytest": [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
    "orch": [sys.executable, "-m", "orchestrator.cli.main"],
}


class Block(NamedTuple):
    """One fenced block of code, and what its info string says."""

    path: str
    how: str
    """`new`, `append`, or where the code goes relative to the anchor's line: `before`, `after` or `replace`."""
    anchor: str
    """How that line starts, without its indentation."""
    code: str


class Recipe(NamedTuple):
    """One section of CONTRIBUTING.md."""

    blocks: list[Block]
    checks: list[list[str]]
    """Commands, as lists of words."""


def read_recipes() -> dict[str, Recipe]:
    """Return the recipes by title."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    return {section.splitlines()[0]: read_recipe(section) for section in sections}


def read_recipe(section: str) -> Recipe:
    """Return the blocks and the checks of one section."""
    recipe = Recipe([], [])
    for info, code in FENCE.findall(section):
        if info == "bash check":
            recipe.checks.extend(shlex.split(line) for line in code.splitlines())
        else:
            target = TARGET.match(info)
            assert target, f"cannot read ```{info}"
            path, how, _, anchor, append = target.groups()
            recipe.blocks.append(Block(path, how or append or "new", anchor or "", code))
    return recipe


def apply(block: Block, folder: Path) -> None:
    """Write a block's code to where its info string says, under `folder`."""
    path = folder / block.path
    if block.how == "new":
        assert not path.exists(), f"{block.path} exists already"
        path.write_text(block.code)
        return
    assert path.is_file(), f"{block.path} is gone"
    lines = path.read_text().splitlines(keepends=True)
    if block.how == "append":
        path.write_text("".join([*lines, "\n\n", block.code]))
        return
    places = [number for number, line in enumerate(lines) if line.strip().startswith(block.anchor)]
    assert len(places) == 1, f"{block.path} has {len(places)} lines that start with {block.anchor!r}"
    start = places[0] + (block.how == "after")
    lines[start : start + (block.how == "replace")] = [block.code]
    path.write_text("".join(lines))


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, with the packages that are there."""
    env = os.environ | {"PYTHONPATH": str(folder), "ORCH_HOME": str(folder / ".orch"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


RECIPES = read_recipes()


def test_there_is_a_recipe_for_each_kind_of_change() -> None:
    kinds = ("backbone", "metric", "data set", "retry rule", "command")
    assert list(RECIPES) == [f"Add a {kind}" for kind in kinds]
    assert all(recipe.blocks and recipe.checks for recipe in RECIPES.values())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the packages and their tests."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_fits_the_code_and_passes_its_check(title: str, copy: Path) -> None:
    recipe = RECIPES[title]
    for block in recipe.blocks:
        apply(block, copy)
    ruff, files = [sys.executable, "-m", "ruff"], sorted({block.path for block in recipe.blocks})
    style = [[*ruff, "check", "--no-cache", *files], [*ruff, "format", "--no-cache", "--check", *files]]
    for command in [*style, *([*PROGRAMS[name], *words] for name, *words in recipe.checks)]:
        ran = run(command, copy)
        assert ran.returncode == 0, f"{shlex.join(command)}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"


@pytest.mark.parametrize("how", ["before", "after", "replace"])
def test_a_recipe_whose_anchor_is_gone_fails(how: str, tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("a = 1\nb = 2\nb = 2\n")
    for anchor in ("c = 3", "b = 2"):
        with pytest.raises(AssertionError, match=r"file\.py has \d lines"):
            apply(Block("file.py", how, anchor, "d = 4\n"), tmp_path)


@pytest.mark.parametrize(
    ("how", "text"),
    [("before", "d = 4\na = 1\nb = 2\n"), ("after", "a = 1\nd = 4\nb = 2\n"), ("replace", "d = 4\nb = 2\n"),
     ("append", "a = 1\nb = 2\n\n\nd = 4\n")],
)  # fmt: skip
def test_a_block_goes_where_its_first_line_says(how: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("a = 1\nb = 2\n")
    apply(Block("file.py", how, "a = 1", "d = 4\n"), tmp_path)
    assert (tmp_path / "file.py").read_text() == text
