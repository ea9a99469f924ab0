"""The fuzz tests borrow a fixture of the orchestrator's tests."""

from __future__ import annotations

from tests.orchestrator.conftest import new_home

__all__ = ["new_home"]
