"""Who does not look is told that a sweep has ended, was paused or waits; a hook that fails never harms the sweep."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.notifications import WAITS_SECONDS, Notification, ended, send
from orchestrator.execution.sweep_outcome import SweepOutcome
from orchestrator.execution.waiting_notice import WaitingNotice
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.planning.request import SweepRequest
from orchestrator.report.summary import result_table
from orchestrator.services import sweeps
from orchestrator.settings import Settings
from schemas.errors import ResourceError, SpecError
from schemas.lifecycle import StopReason
from schemas.sweep import SweepSpec
from tests.support.doubles import Listener, ScriptedPool

DONE = Notification(text="Sweep s is done.", event="done", sweep="s", counts={"done": 1}, seconds=2.0)


class Hook(HTTPServer):
    """A web hook that keeps what was posted."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), _Answer)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/SECRET"


class _Answer(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    yield server
    server.shutdown()
    server.server_close()


def test_a_hook_gets_the_json_and_its_failure_is_told_without_its_address(hook: Hook) -> None:
    assert send(hook.address, DONE) == ""
    assert hook.posted == [DONE.model_dump()]
    hook.status = 500
    assert send(hook.address, DONE) == "the hook of ORCH_NOTIFY on 127.0.0.1 answered with status 500"
    hook.shutdown()
    hook.server_close()
    assert send(hook.address, DONE) == "the hook of ORCH_NOTIFY on 127.0.0.1: ConnectionError"


def test_a_command_gets_the_text_and_the_json(tmp_path: Path) -> None:
    script = tmp_path / "tell"
    script.write_text(f'#!/bin/sh\nprintf "%s|%s|" "$1" "$2" > {tmp_path}/told\ncat >> {tmp_path}/told\n')
    script.chmod(0o755)
    assert send(f"{script} --urgent", DONE) == ""
    assert (tmp_path / "told").read_text() == f"--urgent|{DONE.text}|{DONE.model_dump_json()}"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("false", "the command of ORCH_NOTIFY returned exit code 1"),
        ("no-such-program-here", "the command of ORCH_NOTIFY: No such file or directory"),
        ("http://[::1", "the hook of ORCH_NOTIFY on an address that cannot be read: InvalidURL"),
        ("HTTP://127.0.0.1:9/x", "the hook of ORCH_NOTIFY on 127.0.0.1: ConnectionError"),
        ("'unclosed", "the command of ORCH_NOTIFY: No closing quotation"),
    ],
)
def test_who_cannot_be_told_is_named(command: str, problem: str) -> None:
    assert send(command, DONE) == problem


@pytest.mark.parametrize(
    ("counts", "interrupted", "paused_by", "event", "text"),
    [
        ({"done": 3}, False, "", "done", "Sweep s is done after 61 s: 3 done."),
        ({"done": 2, "failed": 1}, False, "", "failed", "Sweep s has ended with failed jobs after 61 s: 2 done, "
                                                         "1 failed."),
        ({"new": 2, "failed": 3}, False, "E: bad", "paused", "Sweep s was paused, because its first jobs fail alike, "
                                                             "after 61 s: 2 new, 3 failed. E: bad."),
        ({"done": 2, "cancelled": 1}, False, "", "stopped", "Sweep s was stopped after 61 s: 2 done, 1 cancelled."),
        ({"failed": 1, "blocked": 2}, False, "", "failed", "Sweep s has ended with failed jobs after 61 s: 1 failed, "
                                                            "2 blocked."),
        ({"done": 1, "new": 2}, True, "", "stopped", "Sweep s was stopped after 61 s: 1 done, 2 new."),
        ({"done": 1, "interrupted": 2}, False, "", "stopped", "Sweep s was stopped after 61 s: 1 done, 2 interrupted."),
    ],
)  # fmt: skip
def test_what_has_happened(counts: dict[str, int], interrupted: bool, paused_by: str, event: str, text: str) -> None:
    outcome = SweepOutcome("s", result_table([]), counts, 3, interrupted, 61.0, paused_by)
    assert (ended(outcome).event, ended(outcome).text) == (event, text)


def test_who_waits_long_is_told_once_for_each_reason() -> None:
    told: list[str] = []
    ledger = InMemoryLedger()
    notice = WaitingNotice("s", ledger, lambda line: None, told.append)
    ledger.set_waiting = lambda sweep, waiting: None  # type: ignore[method-assign]
    for reason, now in (("full", 0.0), ("full", WAITS_SECONDS - 1), ("", 700.0), ("full", 701.0)):
        notice.set(reason, now)
    assert told == []
    for now in (701.0 + WAITS_SECONDS, 702.0 + WAITS_SECONDS, 2000.0):
        notice.set("full", now)
    assert told == ["full"]
    notice.set("gone", 2001.0)
    notice.set("gone", 2001.0 + WAITS_SECONDS)
    assert told == ["full", "gone"]


def test_the_end_of_a_sweep_is_posted(hook: Hook, tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": tmp_path / "home", "notify": hook.address})
    request = SweepRequest(sweep=SweepSpec(grid="smoke"), name="s", categories=("cat",), backbones=("alexnet",))
    pool = ScriptedPool(script={"voc-cat alexnet ordinary": [StopReason.CODE_RAISED] * 9})
    display = Listener()
    sweeps.run_sweep(settings, request, display, workers=1, open_pool=lambda *_: pool)
    (posted,) = hook.posted
    assert (posted["event"], posted["sweep"], posted["counts"]) == ("failed", "s", {"done": 2, "failed": 1})
    hook.status = 404
    sweeps.resume_sweep(settings, "s", display, failed=True, open_pool=lambda *_: ScriptedPool())
    assert hook.posted[1]["event"] == "done"
    assert (
        "warning: nobody was notified: the hook of ORCH_NOTIFY on 127.0.0.1 answered with status 404" in display.lines
    )


def test_a_sweep_that_an_error_stops_is_told_and_one_that_is_refused_is_not(hook: Hook, tmp_path: Path) -> None:
    class Broken(ScriptedPool):
        def wait(self, seconds: float) -> list[Any]:
            raise ResourceError("No worker can start.")

    settings = Settings.model_validate({"home": tmp_path / "home", "notify": hook.address})
    request = SweepRequest(sweep=SweepSpec(grid="smoke"), name="s", categories=("cat",), backbones=("alexnet",))
    with pytest.raises(ResourceError):
        sweeps.run_sweep(settings, request, Listener(), workers=1, open_pool=lambda *_: Broken())
    (posted,) = hook.posted
    assert posted["event"] == "stopped"
    assert posted["text"].startswith("Sweep s was stopped. No worker can start.")
    with pytest.raises(SpecError):
        sweeps.run_sweep(settings, replace(request, variants=("ordinary",)), Listener(), open_pool=lambda *_: Broken())
    assert len(hook.posted) == 1


def test_the_address_of_a_hook_is_shown_nowhere() -> None:
    settings = Settings.model_validate({"notify": "http://hooks/SECRET"})
    assert "SECRET" not in f"{settings!r}{settings.notify}"
