"""What `orch doctor` says of stores that are wrong, each in one line and in bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.checkup import result, stores
from orchestrator.checkup.result import Checked, Level, bounded, compare_clocks
from orchestrator.checkup.stores import check_stores
from orchestrator.settings import Settings
from tests.support.object_store import BUCKET, ObjectStore, free_port


class Server:
    """An HTTP server whose answers are given by path; all other paths get `rest`."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str]] = {"/health": (200, "OK"), "/version": (200, "3.17.2")}
        self.rest, self.ahead = (404, "not here"), 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, text = outer.answers.get(self.path.partition("?")[0], outer.rest)
                self.send_response_only(status)
                self.send_header("Date", formatdate(time.time() + outer.ahead, usegmt=True))
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


def checked(tmp_path: Path, **values: Any) -> dict[str, Checked]:
    """The worst result of each subject."""
    order = [Level.OK, Level.WARNING, Level.BAD]
    found = sorted(check_stores(Settings(home=tmp_path, **values)), key=lambda one: order.index(one.level))
    assert all("\n" not in one.text and "Traceback" not in one.text for one in found)
    return {one.subject: one for one in found}


def test_where_nothing_is_set_up_nothing_is_wrong_and_nothing_is_made(tmp_path: Path) -> None:
    found = checked(tmp_path)
    assert {one.level for one in found.values()} == {Level.OK}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        (
            "http://no-such-host.invalid:5000",
            "No host is called 'no-such-host.invalid' here. Correct ORCH_TRACKING_URI",
        ),
        (f"http://127.0.0.1:{free_port()}", "Connection refused). Start it, open that port, or correct ORCH_TRACKING"),
    ],
    ids=["host", "port"],
)
def test_a_wrong_host_and_a_wrong_port_are_named(tmp_path: Path, uri: str, says: str) -> None:
    found = checked(tmp_path, tracking_uri=uri)
    assert found["tracking store"].exit_code == 4
    assert says in found["tracking store"].text
    assert "not checked" in found["artifacts"].text


def test_a_server_that_is_not_mlflow_is_named(tmp_path: Path, server: Server) -> None:
    server.answers["/health"] = (200, "<html>")
    found = checked(tmp_path, tracking_uri=server.uri)["tracking store"]
    assert (found.level, "is no MLflow server" in found.text) == (Level.BAD, True)


def test_a_wrong_password_is_named(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-secret")
    server.rest = server.answers["/version"] = (401, "who are you")
    found = checked(tmp_path, tracking_uri=server.uri)
    assert found["tracking server"].level is Level.OK
    assert "does not accept user 'me' with this password" in found["tracking store"].text
    assert "wrong-secret" not in found["tracking store"].text


def test_another_version_of_mlflow_and_a_clock_that_is_off_are_warned_of(tmp_path: Path, server: Server) -> None:
    server.answers["/version"], server.ahead = (200, "2.9.0"), 3600.0
    found = checked(tmp_path, tracking_uri=server.uri)
    assert found["tracking server"].level is Level.WARNING
    assert "MLflow 2.9.0" in found["tracking server"].text
    assert found["clock of the tracking server"].level is Level.BAD
    assert "ahead of this machine" in found["clock of the tracking server"].text


@pytest.mark.parametrize(
    ("apart", "level"), [(0, Level.OK), (-9, Level.OK), (11, Level.WARNING), (-299, Level.WARNING), (-301, Level.BAD)]
)
def test_from_which_difference_on_clocks_matter(apart: float, level: Level) -> None:
    assert compare_clocks("a node", 1000.0 + apart, 1000.0).level is level


def test_a_check_that_hangs_ends_in_time_with_what_to_do() -> None:
    never = threading.Event()

    def hang() -> list[Checked]:
        never.wait()
        return []

    (found,) = bounded("disk", hang, "See `dmesg`.", seconds=0.01)
    never.set()
    assert (found.level, found.text) == (Level.BAD, "no answer within 0 s. See `dmesg`.")
    assert result.CHECK_SECONDS <= 15


def test_the_object_store_is_written_read_and_left_as_it_was(tmp_path: Path, object_server: ObjectStore) -> None:
    found = checked(tmp_path, object_store=f"s3://{BUCKET}/sweeps")
    assert found["object store"].level is Level.OK
    assert "MB/s up" in found["object store"].text
    assert found["clock of the object store"].level is Level.OK
    assert list(stores.open_objects(f"s3://{BUCKET}/sweeps").list("")) == []


def test_a_wrong_bucket_is_named(tmp_path: Path, object_server: ObjectStore) -> None:
    found = checked(tmp_path, object_store="s3://no-such-bucket/sweeps")["object store"]
    assert found.exit_code == 4
    assert "NoSuchBucket" in found.text
    assert "ORCH_OBJECT_STORE" in found.text


def test_an_object_store_that_is_away_is_named(tmp_path: Path, object_server: ObjectStore) -> None:
    object_server.stop()
    found = checked(tmp_path, object_store=f"s3://{BUCKET}/sweeps")["object store"]
    assert "Connection refused" in found.text
    assert "AWS_ENDPOINT_URL_S3" in found.text
