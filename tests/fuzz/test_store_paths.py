"""Whatever ORCH_HOME is called, orch works inside it or refuses it, and writes nothing outside."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.ledger import store
from orchestrator.settings import Settings
from schemas.errors import SpecError, StoreError
from tests.support.fuzzing import bounded, run

PIECES = [
    "?", "%", "%41", "%2e%2e", "#", "&", "=", ":", "~", " ", "..", ".", "\\", "'", '"', "$HOME", "{}", "mode=memory",
    "file:", "\u00e9", "e\u0301", "\U0001f408", "\n", "\udce9", "-", "a", "|", "*",
]  # fmt: skip
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
NAMES = (
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join) | st.text(LETTERS, min_size=1, max_size=20)
).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) < 200)


def entries(folder: Path, home: Path) -> set[str]:
    """Return every entry below a folder, except those of the home."""
    found = set()
    for at, folders, files in os.walk(folder):
        if Path(at) == home:
            folders.clear()
            continue
        found.update(os.path.join(at, name) for name in [*folders, *files])
    return found - {str(home)}


@pytest.mark.slow
@given(name=NAMES)
@example("a?b")
@example("a%41b")
@example("a#b")
@example("caf\udce9")
@example("~")
@bounded(60)
def test_nothing_is_written_outside_the_home(
    new_home: Callable[[], Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    world = tmp_path / "world"
    home = world / name
    world.mkdir(exist_ok=True)
    monkeypatch.chdir(world)
    monkeypatch.setenv("ORCH_HOME", str(home))
    new_home().root.rename(home)
    before = entries(tmp_path, home)
    with suppress(StoreError):  # a name may be refused
        settings = Settings()
        with closing(sqlite3.connect(os.fsencode(home) + b"/mlflow.db")) as database:
            database.execute("UPDATE experiments SET artifact_location = ?", (settings.artifact_uri,))
            database.commit()
        client = store.open_client(settings)
        (experiment,) = [one for one in client.search_experiments() if one.name == "orch"]
        made = client.create_run(experiment.experiment_id)
        client.log_text(made.info.run_id, "text", "note.txt")
    for words in (["plan", "--grid", "smoke"], ["status"], ["fsck"], ["gc"]):
        ended = run(*words)
        assert ended.code in (0, SpecError.exit_code, StoreError.exit_code), ended
    assert entries(tmp_path, home) == before
    monkeypatch.chdir(tmp_path)
    home.rename(tmp_path / f"done{len(os.listdir(tmp_path))}")
