"""What a running sweep leaves on the terminal."""

from __future__ import annotations

import pytest

from orchestrator.display import Bars, Now


def test_a_sweep_that_is_refused_leaves_the_terminal_as_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    Bars()
    assert capsys.readouterr().err == ""
    bars = Bars()
    bars.show(Now(0, 1, (), None))
    bars.close()
    shown = capsys.readouterr().err
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")
