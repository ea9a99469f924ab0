"""Which folders can be a home, and the URI of its database."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from orchestrator.settings import Settings, sqlite_uri
from schemas.errors import StoreError

ODD = [
    "50%", "half%zz", "plus+plus", "semi;colon", "am&p", "eq=", "quote's", 'dq"x', "sp ace", "new\nline", "back\\slash",
    ":memory:", "~tilde", "[br]", "a@b:c", "$HOME", "ü ß", "#h", "file:x",
]  # fmt: skip


def home(path: Path | str) -> Settings:
    return Settings.model_validate({"home": str(path)})


@pytest.mark.parametrize("name", ODD)
def test_the_database_lies_in_the_home(tmp_path: Path, name: str) -> None:
    settings = home(tmp_path / name)
    assert make_url(settings.store_uri).database == str(tmp_path / name / "mlflow.db")
    assert Path(make_url(settings.store_uri).database or "").parent == settings.root


@pytest.mark.parametrize(("name", "what"), [("a?b=c", r"'\?'"), ("a%20b", "'%20'"), ("100%25done", "'%25'")])
def test_a_character_that_would_open_another_file_is_refused_by_name(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(StoreError, match=f"has {what} in its path.*set ORCH_HOME"):
        _ = home(tmp_path / name).store_uri
    with pytest.raises(StoreError, match=f"has {what} in its path"):
        sqlite_uri(tmp_path / name / "x.db")


def test_a_path_that_is_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="bytes that are not UTF-8"):
        _ = home(f"{tmp_path}/\udcff").root


def test_no_home_is_where_none_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "outer" / "checkpoints").mkdir(parents=True)
    (tmp_path / "outer" / "mlflow.db").write_text("")
    for path, why in [
        ("/", "root of the file system"),
        (tmp_path / "file", "it is a file"),
        (tmp_path / "file" / "home", "file is a file"),
        (tmp_path / "loop", "[Ll]oop"),
        (tmp_path / ("x" * 300), "too long"),
        (tmp_path / "outer" / "checkpoints" / "x", "in the folder 'checkpoints' of the home"),
        ("~no-such-user/home", "no user 'no-such-user'"),
    ]:
        with pytest.raises(StoreError, match=f"ORCH_HOME .* cannot be used: .*{why}"):
            _ = home(path).root


def test_two_ways_to_one_folder_are_one_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    roots = {home(path).root for path in ("real", "./link", tmp_path / "link", "real/../link/.")}
    assert roots == {tmp_path / "real"}


def test_a_folder_that_is_called_like_the_users_home_is_not_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert home("./~").root == tmp_path / "~"
    assert home("~/x").root == Path.home().resolve() / "x"
