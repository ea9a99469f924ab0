"""Views in MLflow's UI."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.execution.work_orders import absolute_uri
from orchestrator.ledger.store import open_client
from orchestrator.services import mlflow_ui
from orchestrator.settings import Settings
from schemas.errors import StoreError

if TYPE_CHECKING:
    from tests.conftest import Store


def test_a_busy_port_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind((mlflow_ui.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert mlflow_ui.free_port(port) != port
    assert mlflow_ui.free_port(port) == port


def test_a_store_without_our_experiment_has_no_views(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.ledger.store.candidates_in", lambda client: [])
    with pytest.raises(StoreError, match="Run a sweep first"):
        mlflow_ui.share_views(store.client, store.uri)


def test_the_views_are_left_where_the_page_looks_for_them(new_home: Callable[[], Settings]) -> None:
    settings = new_home()
    client = open_client(settings)
    made = mlflow_ui.share_views(client, settings.store_uri)
    tags = client.get_experiment(made).tags
    state = json.loads(tags["mlflow.sharedViewState.orch-jobs"])
    assert "metrics.`location_instability`" in state["selectedColumns"]
    assert not state["groupBy"]
    grouped = json.loads(tags["mlflow.sharedViewState.orch-variants"])["groupBy"]
    assert grouped["groupByKeys"] == [{"mode": "tag", "groupByData": "variant"}]
    assert mlflow_ui.page("http://127.0.0.1:5000/", made, mlflow_ui.JOBS).endswith(
        f"/#/experiments/{made}/runs?viewStateShareKey=orch-jobs&workflowType=machine_learning"
    )


@pytest.mark.slow
def test_the_ui_starts_behind_a_dead_proxy_and_beside_files_named_like_modules(
    new_home: Callable[[], Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = new_home()
    open_client(settings)
    for name in ("queue", "calendar", "torch", "mlflow"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(mlflow_ui, "START_SECONDS", 60.0)

    def stop() -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert mlflow_ui.serve(settings, mlflow_ui.free_port(0), stop) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///a/b.db", "sqlite:///{cwd}/a/b.db"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("postgresql://user@host/base", "postgresql://user@host/base"),
    ],
)
def test_a_relative_database_is_found_from_the_servers_own_folder(
    uri: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri(uri) == expected.format(cwd=tmp_path)


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({}, ""),
        ({"SSH_CONNECTION": "10.0.0.2 51000 10.0.0.9 22", "USER": "ada"}, "ssh -N -L 5001:127.0.0.1:5001 ada@10.0.0.9"),
        ({"SSH_CONNECTION": "10.0.0.2 51000 10.0.0.9 2222"}, "ssh -N -p 2222 -L 5001:127.0.0.1:5001 10.0.0.9"),
    ],
)
def test_who_came_by_ssh_is_told_how_to_reach_the_page(environment: dict[str, str], command: str) -> None:
    assert mlflow_ui.tunnel(5001, environment) == command
