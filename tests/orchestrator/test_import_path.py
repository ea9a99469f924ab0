"""No command imports a module from the folder that it was started in, nor from PYTHONPATH what is installed too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.import_path import HOME, ordered

LIBRARY, SITE = "/usr/lib/python3.11", "/venv/lib/python3.11/site-packages"


@pytest.mark.parametrize(
    ("entries", "python_path", "expected"),
    [
        (["/venv/bin", LIBRARY, SITE], "", [LIBRARY, HOME, SITE]),  # the installed script
        (["", LIBRARY, SITE], "", [LIBRARY, HOME, SITE]),
        (["/project", LIBRARY, SITE], "", [LIBRARY, HOME, SITE]),  # `python -m`
        ([HOME, LIBRARY, SITE], "", [LIBRARY, HOME, SITE]),  # `python -m` in a checkout
        (["/mine", "/project", LIBRARY, SITE], "/mine:", [LIBRARY, HOME, SITE, "/mine"]),
        ([HOME, LIBRARY, SITE], HOME, [LIBRARY, HOME, SITE]),
        ([SITE, LIBRARY], SITE, [HOME, SITE, LIBRARY]),
        ([LIBRARY], "", [LIBRARY, HOME]),
    ],
)
def test_the_standard_library_comes_first_and_the_users_folders_last(
    entries: list[str], python_path: str, expected: list[str]
) -> None:
    assert ordered(entries, {"PYTHONPATH": python_path}, {"/project", "/venv/bin"}) == expected


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("queue.py", "calendar.py", "torch.py", "schemas/__init__.py", "workers/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"raise SystemExit('{name} of the project was imported')")
    return tmp_path


@pytest.mark.parametrize("python_path", ["", "HERE", ":", "."])
def test_a_command_starts_among_files_that_are_called_like_modules(project: Path, python_path: str) -> None:
    paths = [HOME, str(project) if python_path == "HERE" else python_path]
    ran = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "grid", "list"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "ORCH_HOME": str(project / "home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "smoke" in ran.stdout


def test_a_command_in_a_folder_that_was_deleted_says_so(tmp_path: Path) -> None:
    gone, home = tmp_path / "gone", tmp_path / "home"
    code = "import os, sys; os.rmdir(os.getcwd()); from orchestrator.cli.main import main; main(sys.argv[1:])"

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        gone.mkdir()
        command = [sys.executable, "-c", code, "status"]
        known = {**os.environ, "PYTHONPATH": HOME, **environment}
        return subprocess.run(command, cwd=gone, env=known, capture_output=True, text=True, timeout=120, check=False)

    assert (run(ORCH_HOME=str(home)).returncode, home.exists()) == (0, False)
    refused = run(ORCH_HOME=".orch")
    assert refused.returncode == 4
    assert "working folder" in refused.stderr
    assert "Traceback" not in refused.stderr
