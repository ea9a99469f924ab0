"""Commands whose standard streams are closed, broken or full, or cannot encode a character."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ORCH = "from orchestrator.cli.main import main; main()"
TALE = """
import os, sys
from orchestrator.cli import streams
streams.endure()
{work}
print("end", file=sys.stderr)
raise SystemExit(3)
"""


def shell(redirections: str, code: str, *words: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" "${{@:2}}" {redirections}', sys.executable, code, *words],
        env={**os.environ, "ORCH_HOME": str(home), **variables}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "redirections", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", ">/dev/full", "2>/dev/full", "> >(exec true)"]
)
@pytest.mark.parametrize(("words", "code"), [(["grid", "list"], 0), (["plan", "--grid", "smok"], 2)])
def test_the_exit_code_is_that_of_the_work(redirections: str, words: list[str], code: int, tmp_path: Path) -> None:
    ended = shell(redirections, ORCH, *words, home=tmp_path)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_output_that_is_lost_on_a_full_disk_is_said(tmp_path: Path) -> None:
    assert "standard output is incomplete" in shell(">/dev/full", ORCH, "grid", "list", home=tmp_path).stderr
    assert shell("| head -1 >/dev/null", ORCH, "grid", "list", home=tmp_path).stderr == ""


def test_a_command_that_never_ends_stops_when_its_reader_does(tmp_path: Path) -> None:
    ended = shell("| head -1", ORCH, "status", "--watch", "--json", home=tmp_path)
    assert json.loads(ended.stdout) == []


def test_files_that_are_opened_later_do_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    work = "import subprocess; file = open(sys.argv[1], 'w'); subprocess.run(['echo', 'noise'])"
    ended = shell(">&- <&-", TALE.format(work=work), str(tmp_path / "store"), home=tmp_path)
    assert (ended.returncode, ended.stderr) == (3, "end\n")
    assert (tmp_path / "store").read_text() == ""


@pytest.mark.parametrize("mode", ["", "-u"])
def test_characters_without_an_encoding_are_escaped(mode: str, tmp_path: Path) -> None:
    code = TALE.format(work="print('caf\\u00e9 \\udcff')")
    ended = subprocess.run(
        [sys.executable, *([mode] if mode else []), "-c", code], capture_output=True, check=False,
        env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (3, b"caf\\xe9 \\udcff\n")


def test_a_dumb_terminal_without_unicode_gets_plain_text(tmp_path: Path) -> None:
    variables = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "100"}
    for words in (["grid", "list"], ["--help"], ["plan", "--grid", "smok"]):
        ended = shell("", ORCH, *words, home=tmp_path, **variables)
        assert (ended.stdout + ended.stderr).isascii()
        assert "\x1b" not in ended.stdout
        assert "\\u" not in ended.stdout
