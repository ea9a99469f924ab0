"""Numbers, warnings and refusals as a person at a terminal meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.settings import Settings

SWEEP = """\
base: {category: cat, backbone: alexnet, variant: ordinary, weights: {source: random}}
axes: {seed: [0, 1]}
exclude: [{seed: 7}]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"ORCH_{field.upper()}", raising=False)
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(SWEEP)
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


@pytest.mark.parametrize("text", ["0", "-1", "1_0", "\uff11", "1.0", "1e1", "true", "yes", "1:30", "", "nan", "9" * 30])
def test_an_option_for_a_whole_number_takes_nothing_else(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert run("sweep", "s.yaml", "--workers", text) == 2
    assert "--workers" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["nan", ".nan", "inf", "1e999", "-1", "0", "2", "0_5", "true"])
def test_an_option_for_a_fraction_takes_nothing_else(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert run("weights", "verify", "x", "--width", text) == 2
    assert "--width" in capsys.readouterr().err


def test_a_row_that_matches_nothing_is_said_by_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "s.yaml") == 0
    assert "warning: `exclude` row 1 (seed: 7) matches no job of this sweep." in capsys.readouterr().out
    assert run("plan", "s.yaml", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["warnings"] == ["`exclude` row 1 (seed: 7) matches no job of this sweep."]
    assert answer["counts"] == {"new": 4}


def test_a_path_in_a_sweep_file_begins_at_the_file(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "s.yaml").write_text(SWEEP.replace("source: random", "source: file, path: w.pth"))
    (folder / "w.pth").write_bytes(b"weights")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert run("plan", "../s.yaml") == 0
    assert run("plan", "../s.yaml", "--set", "weights.path=../w.pth") == 0
    capsys.readouterr()
    assert run("plan", "../s.yaml", "--set", "weights.path=w.pth") == 3
    assert str(folder / "below" / "w.pth") in capsys.readouterr().err


def test_a_home_folder_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "s.yaml", "--data-root", "~nobody-here/x") == 2
    assert "`--data-root` is '~nobody-here/x': no such home folder" in capsys.readouterr().err


def test_a_variable_that_does_not_fit_or_is_misspelt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_HOEM", "/x")
    assert run("plan", "s.yaml", "--json") == 0
    ended = capsys.readouterr()
    assert ended.err == "warning: ORCH_HOEM is not a variable of orch and has no effect. Did you mean ORCH_HOME?\n"
    assert json.loads(ended.out)
    monkeypatch.setenv("ORCH_STORE_PATIENCE_MINUTES", "5min")
    assert run("status") == 2
    assert "error: ORCH_STORE_PATIENCE_MINUTES is '5min', but it takes" in capsys.readouterr().err
