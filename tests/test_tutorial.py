"""The tutorial's commands run one after another, with a smaller network than the page's."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/tutorial.md"
SMALL = (
    "model.input_size=64", "model.width=0.125", "model.fc_width=64", "train.epochs=3", "weights.source=random",
)  # fmt: skip
"""Fields of `orch plan` and `orch sweep` that make them take a minute instead of many."""
SERVES = "orch ui"
"""The command that does not end by itself."""


def commands() -> list[str]:
    """Return the lines of the page's blocks of commands, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def words_of(command: str) -> list[str]:
    program, *words = shlex.split(command)
    if program == "python":
        return [sys.executable, str(ROOT / words[0]), *words[1:]]
    small = [word for field in SMALL for word in ("--set", field)] if words[0] in ("plan", "sweep") else []
    return [sys.executable, "-m", "orchestrator.cli.main", *words, *small]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_leads_from_a_folder_of_pictures_to_an_explanation(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCH_")}
    environment |= {"ORCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    said: dict[str, str] = {}
    for command in commands():
        if command != SERVES:
            ran = subprocess.run(
                words_of(command), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
            said[command] = ran.stdout
    assert (tmp_path / "cats/cats.csv").read_text().startswith("image,x,y,width,height,head_x,head_y,torso_x,torso_y\n")
    assert "Imported data set mittens: location instability" in said["orch report cats"]
    assert "Table" not in said["orch report cats"]
    for name in ("cats.png", "report.html", "filters.png", "why.png"):
        assert (tmp_path / name).stat().st_size > 0
