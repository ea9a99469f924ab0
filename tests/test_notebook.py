"""The notebook of examples/ runs from top to bottom, and what it shows is what is stored in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = "first_look.ipynb"


def cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells of code that show something."""
    return [cell for cell in json.loads(path.read_text())["cells"] if cell.get("outputs")]


def kinds(path: Path) -> list[list[str]]:
    """Return what kinds of things each cell shows."""
    return [sorted(kind for shown in cell["outputs"] for kind in shown.get("data", ["text"])) for cell in cells(path)]


def test_the_stored_outputs_have_pictures_and_no_errors() -> None:
    shown = [kind for of_cell in kinds(EXAMPLES / NOTEBOOK) for kind in of_cell]
    assert {"image/png", "image/jpeg", "text/html"} <= set(shown)
    assert "error" not in {output["output_type"] for cell in cells(EXAMPLES / NOTEBOOK) for output in cell["outputs"]}


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_is_stored(tmp_path: Path) -> None:
    for name in (NOTEBOOK, "draw_cats.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", NOTEBOOK]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert kinds(tmp_path / NOTEBOOK) == kinds(EXAMPLES / NOTEBOOK)
    (frame,) = (cell for cell in cells(tmp_path / NOTEBOOK) if "to_frame()" in "".join(cell["source"]))
    shown = "".join(frame["outputs"][0]["data"]["text/plain"])
    first = re.findall(r"^(?:ordinary|interpretable) +(0\.\d+) ", shown, re.MULTILINE)[:2]  # the table may go on below
    assert min(float(accuracy) for accuracy in first) > 0.65  # chance is 0.5
