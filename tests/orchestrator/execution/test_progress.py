"""What a running sweep prints."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from orchestrator.execution.progress import Bars, Display, Lines, Now, Unbreakable


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


class Gone(io.StringIO):
    """A pipe without a reader, or a file on a full disk."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Gone, closed])
def test_nothing_that_is_shown_ends_what_runs(stream: Callable[[], io.StringIO]) -> None:
    time = [0.0]
    lines = Lines(stream(), lambda: time[0])
    time[0] = 100.0
    display: Display = Unbreakable(lines)
    display.say("a line")
    display.show(Now(0, 1, (), None))
    display.close()
