"""Signals that ask a sweep to stop."""

from __future__ import annotations

import os
import signal

import pytest

from orchestrator.execution import stop_request
from orchestrator.execution.stop_request import StopRequest
from orchestrator.ledger.lease import pid_exists


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_system_without_a_signal_for_closed_terminals_still_hears_the_others(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(stop_request, "SIGHUP", None)
    monkeypatch.delattr(signal, "SIGHUP")
    stop = StopRequest()
    with stop.listening():
        signal.raise_signal(number)
    assert stop.asked


def test_a_process_is_found_by_its_number() -> None:
    assert pid_exists(os.getpid())
    assert not pid_exists(2**22 + 1)
