"""A worker that would run other code than its driver says which folders differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ResourceError
from workers.actor import JobWorker
from workers.code_home import CodeHome, code_home, difference

ROOT = Path(__file__).parents[2]


def test_all_packages_of_this_process_are_in_one_folder() -> None:
    assert code_home().folders == (str(ROOT),)


def test_the_same_files_in_another_folder_are_the_same_code() -> None:
    assert difference(CodeHome(folders=("/a",), sha256="0"), CodeHome(folders=("/b",), sha256="0")) == ""


def test_a_worker_of_other_code_does_not_start_and_names_both_folders() -> None:
    with pytest.raises(ResourceError, match=rf"in {ROOT}, and its driver runs that in /elsewhere"):
        JobWorker(CodeHome(folders=("/elsewhere",), sha256="0").model_dump_json())


def test_a_worker_of_the_same_code_starts() -> None:
    assert JobWorker(code_home().model_dump_json()).progress() is None


def test_lock_files_of_editors_are_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("workers.code_home.PACKAGES", ("package",))
    before = code_home()
    (tmp_path / "package" / ".#module.py").symlink_to("someone@host.123")
    assert code_home() == before
