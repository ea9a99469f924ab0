"""The log of a running job reaches its run while it is written, without ever disturbing the job."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import pytest

from schemas.errors import StoreUnreachable, Superseded
from schemas.order import WorkOrder
from tests.support.toy import toy_spec
from workers.tracking import live_log as module
from workers.tracking.job_log import LOGGER, UPLOADING_THREAD, job_log, log_path
from workers.tracking.live_log import LiveLog, live_log
from workers.tracking.run_log import RunLog

SPEC = toy_spec("ordinary")


class Run:
    """A run that keeps what it is sent, and first raises the errors that it is given."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.copies, self.opened = list(errors), list[str](), 0
        self.has_copy = threading.Event()

    def open(self) -> RunLog:
        self.opened += 1
        return cast("RunLog", self)

    def log_log(self, path: Path) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.copies.append(path.read_text())
        self.has_copy.set()


def order(tmp_path: Path, uri: str = "http://127.0.0.1:9") -> WorkOrder:
    return WorkOrder(
        spec=SPEC, run_id="r", attempt=1, tracking_uri=uri, cache_dir="", checkpoint_dir="", log_dir=str(tmp_path)
    )


def test_only_a_log_that_has_grown_is_uploaded(tmp_path: Path) -> None:
    run, path = Run(), tmp_path / "log"
    log = LiveLog(path, run.open)
    for text in ("one\n", "one\n", "one\ntwo\n"):
        path.write_text(text)
        log.upload()
    assert (run.copies, run.opened) == (["one\n", "one\ntwo\n"], 1)


@pytest.mark.parametrize("error", [StoreUnreachable("away"), OSError("broken pipe"), KeyError("an odd answer")])
def test_an_outage_delays_the_copy(tmp_path: Path, error: Exception) -> None:
    run, path = Run(error), tmp_path / "log"
    path.write_text("one\n")
    log = LiveLog(path, run.open)
    log.upload()
    assert run.copies == []
    log.upload()
    assert (run.copies, run.opened) == (["one\n"], 2)


def test_an_attempt_that_was_replaced_uploads_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(*[Superseded("replaced")] * 2)
    monkeypatch.setattr(module, "RunLog", lambda *_: run.open())
    monkeypatch.setattr(module, "FIRST_SECONDS", 0.0)
    with job_log(order(tmp_path)), live_log(order(tmp_path)):
        for thread in [one for one in threading.enumerate() if one.name == UPLOADING_THREAD]:
            thread.join(10)
            assert not thread.is_alive()
    assert (run.copies, len(run.errors)) == ([], 1)


def test_a_line_is_in_the_run_while_the_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    monkeypatch.setattr(module, "RunLog", lambda *_: run.open())
    monkeypatch.setattr(module, "FIRST_SECONDS", 0.0)
    with job_log(order(tmp_path)), live_log(order(tmp_path)):
        assert run.has_copy.wait(10)
        assert f"attempt 1 of {SPEC.title}" in run.copies[0]
    assert not [one for one in threading.enumerate() if one.name == UPLOADING_THREAD]


def test_a_database_of_this_machine_gets_no_copies(tmp_path: Path) -> None:
    with job_log(order(tmp_path)), live_log(order(tmp_path, "sqlite:///mlflow.db")):
        assert not [one for one in threading.enumerate() if one.name == UPLOADING_THREAD]


def test_what_libraries_say_while_uploading_is_no_part_of_the_log(tmp_path: Path) -> None:
    with job_log(order(tmp_path)):
        thread = threading.Thread(target=LOGGER.warning, args=("retrying",), name=UPLOADING_THREAD)
        thread.start()
        thread.join()
        LOGGER.info("an epoch")
    text = log_path(tmp_path, SPEC.key, 1).read_text()
    assert "an epoch" in text
    assert "retrying" not in text
