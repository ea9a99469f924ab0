"""A worker that would run other code than its driver says which folders differ."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.order import WorkerFacts
from workers.actor import JobWorker
from workers.code_home import CodeHome, code_home, difference, git_commit

ROOT = Path(__file__).parents[2]


def test_all_packages_of_this_process_are_in_one_folder() -> None:
    assert code_home().folders == (str(ROOT),)


def test_the_commit_is_that_of_a_checkout_and_an_installed_copy_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "ada")
    monkeypatch.setattr("workers.code_home._folders", lambda packages: (str(tmp_path),))
    assert git_commit() == ""
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert git_commit() == head.stdout.strip() != ""


def test_the_same_files_in_another_folder_are_the_same_code() -> None:
    assert difference(CodeHome(folders=("/a",), sha256="0"), CodeHome(folders=("/b",), sha256="0")) == ""


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """A worker handles SIGTERM from its start."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def facts(driver: CodeHome) -> WorkerFacts:
    return WorkerFacts.model_validate_json(JobWorker(driver.model_dump_json()).hello())


def test_a_worker_of_other_code_takes_no_job_and_names_both_folders() -> None:
    found = facts(CodeHome(folders=("/elsewhere",), sha256="0"))
    assert f"in {ROOT}, and its driver runs that in /elsewhere" in found.problem


def test_a_driver_may_have_its_workers_warn_of_other_code_instead() -> None:
    found = facts(CodeHome(folders=("/elsewhere",), sha256="0", may_differ=True))
    assert found.problem == ""
    assert "and its driver runs that in /elsewhere, whose files differ" in found.warning
    assert socket.gethostname() in found.warning


def test_a_worker_of_the_same_code_takes_jobs() -> None:
    found = facts(code_home())
    assert (found.problem, found.warning) == ("", "")


def test_lock_files_of_editors_are_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("workers.code_home.PACKAGES", ("package",))
    before = code_home()
    (tmp_path / "package" / ".#module.py").symlink_to("someone@host.123")
    assert code_home() == before
