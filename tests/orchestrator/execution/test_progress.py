"""What a running sweep prints."""

from __future__ import annotations

import io
from collections.abc import Callable
from time import strptime

import pytest
from rich.console import Console

from orchestrator.execution.estimate import Estimate
from orchestrator.execution.job_matrix import Cell, Place
from orchestrator.execution.progress import Display, Lines, Live, Now, Unbreakable, picture
from schemas.order import Progress


def test_a_sweep_that_is_refused_leaves_the_terminal_as_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    Live()
    assert capsys.readouterr().err == ""
    live = Live()
    live.show(Now(0, 1, (), None))
    live.close()
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


def test_why_jobs_wait_is_not_repeated_in_a_log() -> None:
    time, stream = [0.0], io.StringIO()
    lines = Lines(stream, lambda: time[0])
    lines.say("2 jobs wait.")
    for time[0] in (100.0, 200.0):
        lines.show(Now(1, 3, (), None, "2 jobs wait."))
    time[0] = 300.0
    lines.show(Now(1, 3, (("a job", None),), None, "1 job waits."))
    lines_said = stream.getvalue().splitlines()
    assert [line[20:] for line in lines_said] == ["2 jobs wait.", "[1/3] a job: starting"]
    assert all(strptime(line[:19], "%Y-%m-%d %H:%M:%S") for line in lines_said)


def test_a_log_says_phase_epoch_and_rate_of_what_runs() -> None:
    time, stream = [0.0], io.StringIO()
    lines = Lines(stream, lambda: time[0])
    time[0] = 100.0
    jobs = (
        ("a", Progress(job_key="a", phase="training", epoch=2, epochs=5)),
        ("b", Progress(job_key="b", phase="measuring parts", epoch=5, epochs=5)),
    )
    lines.show(Now(0, 2, jobs, Estimate(60, 300), epoch_seconds={"a": 1.25, "b": 1.0}))
    assert stream.getvalue()[20:] == ("[0/2] a: training 2/5, 1.2 s an epoch; b: measuring parts, 60 s to 5 min left\n")


TITLE = "voc-cat alexnet interpretable (loss alone, weight 0.01)"


@pytest.mark.parametrize(("width", "height"), [(40, 8), (80, 23), (120, 39)])
def test_the_picture_fits_and_long_names_push_no_number_out(width: int, height: int) -> None:
    rows = [Cell(Place(f"category-{n}", "alexnet ordinary"), "done", accuracy=0.9) for n in range(60)]
    running = tuple(
        (f"{TITLE} seed {n}", Progress(job_key="k", phase="training", epoch=7, epochs=20)) for n in range(30)
    )
    now = Now(
        60,
        90,
        running,
        Estimate(60, 120),
        "2 jobs wait.",
        tuple(rows),
        {"out_of_memory": 2},
        {f"{TITLE} seed 0": 2.125},
    )
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    console.print(picture(now, width, height))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("[######")
    assert "] 60/90 jobs, " in lines[0]
    assert any(line.endswith("  training 7/20, 2.1 s an epoch") for line in lines)
    assert "failed: out of memory (2)" in lines


def test_lines_scroll_above_the_picture(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    live = Live()
    live.show(Now(0, 2, ((TITLE, None),), None))
    live.say("[1/2] a job has ended")
    live.close()
    live.say("after the end")
    shown = capsys.readouterr().err
    assert "[1/2] a job has ended\n" in shown.replace("\r", "")
    assert shown.rstrip().endswith("after the end")
