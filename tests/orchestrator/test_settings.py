"""Environment variables: what each takes, and what is said about one that does not fit or is misspelt."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.settings import PARCEL, Settings, misspelt
from schemas.errors import SpecError


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"ORCH_{field.upper()}", raising=False)


def test_a_sweep_is_resumed_where_its_driver_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().resume_command("mine") == "orch resume mine"
    monkeypatch.setenv(PARCEL, "x")  # in the cluster
    assert Settings().resume_command("mine") == "orch resume mine --detach"
    monkeypatch.delenv(PARCEL)
    monkeypatch.setenv("ORCH_RAY_ADDRESS", "http://head:8265")
    assert Settings().resume_command("mine") == "orch resume mine --detach"


@pytest.mark.parametrize(
    ("name", "text", "takes"),
    [
        *(("STORE_PATIENCE_MINUTES", text, "a number of minutes from 0 to 10000000") for text in (
            "5min", "-1", "nan", ".nan", "inf", ".inf", "1e999", "1_0", "\uff11", "true", "yes", "1:30", "[", "[5]",
            "1e8")),
        *(("WORKER_START_SECONDS", text, "a number of seconds from 1 to 10000000, such as 120") for text in (
            "abc", "0", "-1", "5min", "nan")),
        ("SYSTEM_METRICS_SECONDS", "often", "a number of seconds from 0 to 10000000, such as 10"),
        *(("PROFILE", text, "one of laptop, paper. Did you mean 'laptop'?") for text in ("laptp", "labtop")),
        ("PROFILE", "  ", "one of laptop, paper"),
        ("CODE_CHECK", "ignore", "`refuse` or `warn`"),
        *(("TRACKING_URI", text, "the URI of an MLflow server") for text in (
            "foo", "localhost:5000", "http://", "ftp://host", "postgres://host/db", "/tmp/mlruns", "http:// host")),
        *(("RAY_ADDRESS", text, "`local`, `auto`, or a cluster") for text in (
            "locla", "host", "host:", "ray://host", " ")),
        *(("RAY_JOBS_ADDRESS", text, "the address of a Ray dashboard") for text in (
            "head:8265", "ray://head:10001", " ")),
        *(("DATA_ROOT", text, "the path of a folder") for text in ("~nobody-here/x", "  ")),
    ],
)  # fmt: skip
def test_a_variable_that_does_not_fit_is_named_with_its_value_and_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, takes: str
) -> None:
    monkeypatch.setenv(f"ORCH_{name}", text)
    with pytest.raises(SpecError) as refused:
        Settings()
    assert str(refused.value).startswith(f"ORCH_{name} is {text!r}, but it takes {takes}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("STORE_PATIENCE_MINUTES", "5", 5.0), ("STORE_PATIENCE_MINUTES", "0", 0.0),
        ("STORE_PATIENCE_MINUTES", "1e-1", 0.1), ("STORE_PATIENCE_MINUTES", "010", 10.0),
        ("STORE_PATIENCE_MINUTES", "", 10.0),
        ("WORKER_START_SECONDS", "90", 90.0), ("WORKER_START_SECONDS", "", 120.0),
        ("CODE_CHECK", "Warn", "warn"), ("CODE_CHECK", "", "refuse"),
        ("PROFILE", "paper", "paper"), ("PROFILE", "Paper", "paper"), ("PROFILE", "", "laptop"),
        ("TRACKING_URI", "http://host:5000", "http://host:5000"),
        ("TRACKING_URI", "sqlite:////tmp/a b.db", None),
        ("TRACKING_URI", "postgresql+psycopg2://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("RAY_ADDRESS", "http://head:8265", "http://head:8265"), ("RAY_ADDRESS", "https://ray.org/a", "https://ray.org/a"),
        ("RAY_JOBS_ADDRESS", "http://head:8265", "http://head:8265"),
        ("RAY_ADDRESS", "auto", "auto"), ("RAY_ADDRESS", "ray://head:10001", "ray://head:10001"),
        ("RAY_ADDRESS", "10.0.0.1:6379", "10.0.0.1:6379"), ("RAY_ADDRESS", "[::1]:6379", "[::1]:6379"),
        ("DATA_ROOT", "photos", Path("photos")),
    ],
)  # fmt: skip
def test_a_variable_that_fits_is_read(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    monkeypatch.setenv(f"ORCH_{name}", text)
    assert getattr(Settings(), name.lower()) == (text if value is None else value)


def test_a_password_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_TRACKING_URI", "postgres://me:secret@host/db")
    with pytest.raises(SpecError, match=r"'postgres://me:\*\*\*@host/db'"):
        Settings()


@pytest.mark.parametrize(
    ("uri", "where"),
    [
        ("http://me:hush@host:5000", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("https://hush@host", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("http://host:5000/?token=hush", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("postgresql+psycopg2://me:hush@host/db", "set PGPASSWORD, or write ~/.pgpass"),
        ("postgresql://host/db?user=me&password=hush", "set PGPASSWORD, or write ~/.pgpass"),
        ("mysql+pymysql://me:hush@host/db", "put them where the driver of that database reads them"),
    ],
)
def test_credentials_in_the_uri_of_the_store_are_refused_with_where_they_belong(
    monkeypatch: pytest.MonkeyPatch, uri: str, where: str
) -> None:
    """The URI is sent to workers and stands in messages, logs and lists of processes."""
    monkeypatch.setenv("ORCH_RAY_ADDRESS", "http://me:hush@head:8265")
    with pytest.raises(SpecError, match=r"ORCH_RAY_ADDRESS must not hold .* set RAY_AUTH_TOKEN") as refused:
        Settings()
    assert "hush" not in str(refused.value)
    monkeypatch.delenv("ORCH_RAY_ADDRESS")
    monkeypatch.setenv("ORCH_TRACKING_URI", uri)
    with pytest.raises(SpecError, match="ORCH_TRACKING_URI must not hold credentials") as refused:
        Settings()
    assert where in str(refused.value)
    assert "hush" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_python_interface_is_checked_too() -> None:
    assert Settings(store_patience_minutes=2).store_patience_minutes == 2.0
    for value in (float("nan"), float("inf"), -1, True):
        with pytest.raises(SpecError, match="ORCH_STORE_PATIENCE_MINUTES"):
            Settings(store_patience_minutes=value)


def test_misspelt_variables_are_named_and_others_left_alone() -> None:
    names = ["ORCH_HOME", "orch_home", "ORCH_HOEM", "ORCH_TRACKING_URL", "ORCH_DATAROOT", "ORCH_PATIENCE_MINUTES",
             "ORCH_TEST_DATA", "ORCH_TEST_HED", "ORCH_FOO", "HOEM", "ORCHESTRA_HOME"]  # fmt: skip
    found = [sentence.split(" is not a variable of orch") for sentence in misspelt(names)]
    assert [(name, rest.rsplit(" ", 1)[1]) for name, rest in found] == [
        ("ORCH_HOEM", "ORCH_HOME?"),
        ("ORCH_TRACKING_URL", "ORCH_TRACKING_URI?"),
        ("ORCH_DATAROOT", "ORCH_DATA_ROOT?"),
        ("ORCH_PATIENCE_MINUTES", "ORCH_STORE_PATIENCE_MINUTES?"),
    ]


def test_every_setting_says_what_it_takes() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({}, None),
        ({"ray_address": "head:6379"}, "http://head:8265"),
        ({"ray_address": "ray://head:10001"}, "http://head:8265"),
        ({"ray_address": "[fd00::1]:6379"}, "http://[fd00::1]:8265"),
        ({"ray_address": "auto"}, "http://127.0.0.1:8265"),
        ({"ray_address": "https://ray.org/a"}, "https://ray.org/a"),
        ({"ray_address": "head:6379", "ray_jobs_address": "http://door:80"}, "http://door:80"),
    ],
)
def test_where_sweeps_are_submitted_to(fields: dict[str, str], address: str | None) -> None:
    settings = Settings.model_validate(fields)
    assert settings.jobs_address == address
    assert settings.is_outside == fields.get("ray_address", "").startswith("http")
