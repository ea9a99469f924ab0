"""Views in MLflow's UI."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

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
    monkeypatch.setattr(mlflow_ui, "EXPERIMENT", "of-nobody")
    with pytest.raises(StoreError, match="Run a sweep first"):
        mlflow_ui.share_views(store.client, store.uri)


def test_the_views_are_left_where_the_page_looks_for_them(new_home: Callable[[], Settings]) -> None:
    settings = new_home()
    client = open_client(settings)
    made = mlflow_ui.share_views(client, settings.store_uri)
    tags = client.get_experiment(made).tags
    state = json.loads(tags["mlflow.sharedViewState.orch-jobs"])
    assert "metrics.`location_instability`" in state["selectedColumns"]
    assert mlflow_ui.page("http://127.0.0.1:5000/", made, mlflow_ui.JOBS).endswith(
        f"/#/experiments/{made}/runs?viewStateShareKey=orch-jobs"
    )
