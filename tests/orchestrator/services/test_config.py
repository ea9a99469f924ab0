"""Where each setting comes from; and no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.services import config
from orchestrator.settings import PREFIX, Settings


def test_each_setting_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{field.upper()}", raising=False)
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    monkeypatch.setenv("ORCH_PROFILE", "")
    found = config.show(data_root=Path("photographs"))
    by_name = {one.variable: (one.value, one.origin) for one in found.settings}
    assert by_name["ORCH_HOME"] == (str(tmp_path), config.ENVIRONMENT)
    assert by_name["ORCH_DATA_ROOT"] == ("photographs", config.OPTION)
    assert by_name["ORCH_PROFILE"] == ("laptop", config.DEFAULT)
    assert by_name["ORCH_OBJECT_STORE"] == (None, config.DEFAULT)
    assert len(by_name) == len(Settings.model_fields)
    assert found.places["home"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_secret_is_shown(tmp_path: Path) -> None:
    environment = {
        "AWS_SECRET_ACCESS_KEY": "planted", "AWS_ACCESS_KEY_ID": "planted", "AWS_SOMETHING_NEW": "planted",
        "MLFLOW_TRACKING_PASSWORD": "planted", "RAY_AUTH_TOKEN": "planted",
        "MLFLOW_S3_ENDPOINT_URL": "http://me:planted@host:9000", "AWS_REGION": "eu-west-1",
    }  # fmt: skip
    found = config.show(environment=environment)
    assert "planted" not in repr(found)
    by_name = {one.variable: (one.is_set, one.value) for one in found.foreign}
    assert by_name["AWS_SECRET_ACCESS_KEY"] == (True, None)
    assert by_name["MLFLOW_TRACKING_TOKEN"] == (False, None)
    assert by_name["AWS_REGION"] == (True, "eu-west-1")
    assert by_name["MLFLOW_S3_ENDPOINT_URL"] == (True, "http://me:***@host:9000")
