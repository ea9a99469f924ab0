"""Fixtures of the orchestrator's tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from orchestrator.ledger import store
from orchestrator.settings import Settings
from tests.support.doubles import Plan, plan_of


@pytest.fixture
def plan_grid() -> Plan:
    """See `doubles.plan_of`."""
    return plan_of


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Settings]:
    """Create homes with a real, empty store, as copies of one store, because MLflow takes seconds to create one."""
    first = Settings.model_validate({"home": tmp_path_factory.mktemp("first-home")})
    store.make_client(first)

    def make() -> Settings:
        settings = Settings.model_validate({"home": tmp_path_factory.mktemp("home")})
        assert first.database is not None
        assert settings.database is not None
        with closing(sqlite3.connect(first.database)) as old, closing(sqlite3.connect(settings.database)) as new:
            old.backup(new)
            new.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'orch'", (settings.artifact_uri,))
            new.execute("DELETE FROM experiment_tags WHERE key = 'orch.home_id'")
            new.commit()
            new.execute("PRAGMA journal_mode=WAL")
        return settings

    return make
