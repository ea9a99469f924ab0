"""When a dead driver is started again, and when it is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.execution import supervisor
from orchestrator.execution.supervisor import LASTING_SECONDS, RESTARTS, Deaths, Supervisor


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 130])
def test_a_driver_that_ended_in_order_is_left_alone(code: int) -> None:
    assert Deaths().after(code, 10.0) is None


@pytest.mark.parametrize("code", [-signal.SIGKILL, -signal.SIGSEGV, 70, 137, 127])
def test_a_driver_that_died_is_started_again_a_bounded_number_of_times(code: int) -> None:
    deaths: Deaths | None = Deaths()
    waits = []
    while deaths is not None and (deaths := deaths.after(code, 10.0)):
        waits.append(deaths.wait)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert len(waits) == RESTARTS


def test_a_driver_that_had_lasted_has_its_starts_anew() -> None:
    assert Deaths(RESTARTS).after(-9, LASTING_SECONDS - 1) is None
    assert Deaths(RESTARTS).after(-9, LASTING_SECONDS) == Deaths(1)


def supervised(tmp_path: Path, script: str, said: list[str]) -> Supervisor:
    """A supervisor of a program that knows in `n` how often it was started before."""
    count = tmp_path / "count"
    head = (
        "import os, pathlib, signal, time\n"
        f"c = pathlib.Path({str(count)!r}); n = len(c.read_text()) if c.exists() else 0\n"
    )
    return Supervisor(
        [sys.executable, "-c", f"{head}c.write_text('x' * (n + 1))\n{script}"], os.environ, "mine", said.append
    )


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_WAIT", 0.0)


@pytest.mark.usefixtures("no_waits")
def test_a_killed_driver_goes_on_and_its_end_is_the_end(tmp_path: Path) -> None:
    said: list[str] = []
    script = "os.kill(os.getpid(), signal.SIGKILL) if n < 2 else exit(1)"
    assert supervised(tmp_path, script, said).run() == 1
    assert [line.partition(".")[0] for line in said] == ["The driver was ended by SIGKILL"] * 2


@pytest.mark.usefixtures("no_waits")
def test_a_driver_that_cannot_live_is_given_up_with_what_to_type(tmp_path: Path) -> None:
    said: list[str] = []
    assert supervised(tmp_path, "exit(70)", said).run() == 70
    assert len((tmp_path / "count").read_text()) == RESTARTS + 1
    assert "orch resume mine --detach" in said[-1]


def test_a_request_to_stop_reaches_the_driver_which_is_not_started_again(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"signal.signal(15, lambda *_: exit(77)); pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"

    def stop() -> None:
        until = time.monotonic() + 30
        while not ready.exists() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert supervised(tmp_path, script, []).run() == 77
    assert len((tmp_path / "count").read_text()) == 1


def test_the_signal_of_who_stops_a_job_and_its_echo_are_one_request() -> None:
    program = (
        "import os, signal\n"
        "from orchestrator.execution.stop_request import StopRequest\n"
        "stop = StopRequest()\n"
        "with stop.listening():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM)\n"
        "    assert stop.asked\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        exit(3)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 3
