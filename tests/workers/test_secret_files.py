"""Credentials from files, as containers get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import SpecError
from workers.secret_files import FROM_FILES, read_secret_files


@pytest.mark.parametrize("name", FROM_FILES)
def test_a_variable_gets_the_first_line_of_its_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n")
    environment = {f"{name}_FILE": str(tmp_path / "secret"), "OTHER_FILE": "/nowhere"}
    read_secret_files(environment)
    assert environment == {name: "hush", "OTHER_FILE": "/nowhere"}
    read_secret_files(environment)  # a child that inherits it
    assert environment[name] == "hush"


def test_a_file_that_cannot_be_used_is_named_without_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfehush")
    for path, why in (("none", "No such file"), ("empty", "first line is empty"), ("bytes", "not UTF-8")):
        with pytest.raises(SpecError, match=f"MLFLOW_TRACKING_PASSWORD_FILE names .*{path}.*{why}") as refused:
            read_secret_files({"MLFLOW_TRACKING_PASSWORD_FILE": str(tmp_path / path)})
        assert "hush" not in str(refused.value)


def test_a_value_and_a_file_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Both MLFLOW_TRACKING_TOKEN and MLFLOW_TRACKING_TOKEN_FILE are set"):
        read_secret_files({"MLFLOW_TRACKING_TOKEN": "a", "MLFLOW_TRACKING_TOKEN_FILE": str(tmp_path)})
