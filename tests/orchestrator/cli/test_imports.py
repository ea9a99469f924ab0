"""`orch data import` and what other commands make of an imported data set: text, JSON and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from tests.support.photograph_files import write_photograph

COUNT = 51


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    for name in ("ORCH_DATA_ROOT", "ORCH_OBJECT_STORE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of cats and dogs in folders of these names, and one file that is none."""
    folder = tmp_path_factory.mktemp("pets") / "pets"
    for kind in ("cat", "dog"):
        for n in range(COUNT):
            write_photograph(folder / f"{kind}/{n}.png", 60, 60, n + 100 * (kind == "dog"))
    (folder / "notes.txt").write_text("x")
    return folder


def run(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(str(end.value.code or 0))


def answer(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Any:
    capsys.readouterr()
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_an_imported_data_set_is_listed_shown_and_planned(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    assert run("data", "import", pets, "--name", "mittens", "--data-root", root) == 0
    said = capsys.readouterr().out
    assert "mittens/cat" in said
    assert "none: no location instability" in said
    assert "notes.txt" in said
    listed = answer(capsys, "data", "list", "--data-root", root)["datasets"][-1]
    assert [(one["category"], one["objects"]) for one in listed["categories"]] == [
        ("mittens/cat", COUNT),
        ("mittens/dog", COUNT),
    ]
    sheet = tmp_path / "sheet.png"
    assert run("data", "show", "--category", "cat", "--out", sheet, "--data-root", root) == 0
    assert sheet.is_file()
    plan = ("plan", "--grid", "smoke", "--backbone", "alexnet", "--set", "weights.source=random", "--data-root", root)
    for words, titles in (
        (("--dataset", "mittens"), ["mittens-cat", "mittens-dog"]),
        (("--category", "mittens/dog"), ["mittens-dog"]),
        (("--dataset", "mittens", "--category", "cat"), ["mittens-cat"]),
    ):
        planned = answer(capsys, *plan, *words)
        assert list(dict.fromkeys(job["title"].split()[0] for job in planned["jobs"])) == titles
        assert set(planned["unmeasurable"]) == {"part_interpretability", "location_instability"}


def test_an_unknown_data_set_is_refused_with_those_that_are_there(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    assert run("data", "import", pets, "--name", "mittens", "--data-root", root, "--json") == 0
    assert run("plan", "--grid", "smoke", "--dataset", "mitens", "--data-root", root) == 2
    assert "Did you mean 'mittens'?" in capsys.readouterr().err
    assert run("plan", "--grid", "smoke", "--category", "mitens/cat", "--data-root", root) == 3
    assert "Imported are: mittens" in " ".join(capsys.readouterr().err.split())


def test_an_imported_category_needs_photographs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--grid", "smoke", "--category", "mittens/cat") == 2
    assert "pass the `--data-root`" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("--name", "mittens"), 2, "The data set needs a place"),
        (("--name", "voc", "--data-root", "x"), 2, "cannot be the name of a data set"),
        (("--name", "mittens", "--csv", "gone.csv", "--data-root", "x"), 3, "gone.csv, which is not a file"),
    ],
)
def test_what_cannot_be_imported_is_said(
    pets: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, why: str
) -> None:
    assert run("data", "import", pets, *words) == code
    assert why in " ".join(capsys.readouterr().err.split())


def test_a_data_root_with_nothing_known_is_refused_and_its_entries_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data/truth").mkdir(parents=True)
    (tmp_path / "data/truth/giraffe.csv").write_text("x")
    (tmp_path / "data/holiday").mkdir()
    assert run("data", "list", "--data-root", tmp_path / "data") == 3
    said = capsys.readouterr()
    error = " ".join(said.err.split())
    assert "truth/giraffe.csv" in error
    assert "of no data set: holiday" in error
    assert "orch data import FOLDER --name NAME" in error
