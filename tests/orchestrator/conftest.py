"""Fixtures of the orchestrator's tests."""

from __future__ import annotations

import pytest
from doubles import Plan, plan_of


@pytest.fixture
def plan_grid() -> Plan:
    return plan_of
