"""A store that refuses credentials is told from one that is away, and no message shows a password."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, NoCredentialsError
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE, UNAUTHENTICATED
from sqlalchemy.exc import OperationalError

from orchestrator.ledger import store
from orchestrator.settings import Settings
from schemas.errors import AccessDenied
from workers.tracking.access import denial, is_denied, without_password
from workers.tracking.outages import is_outage
from workers.tracking.run_log import RunLog


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:s3cret@host:5000/a",
        "postgresql://me:p@ss/s3cret@host/db",
        "postgresql://:s3cret@host/db",
        "https://host/x?user=me&password=s3cret&n=1",
        "http://me:s3cret@[bad",
        "mysql+pymysql://me:s3cret%40@host",
    ],
)
def test_a_password_is_in_no_message(uri: str) -> None:
    message = without_password(f"The store {uri} cannot be used: failed for url {uri} (again). Start it.")
    assert "s3cret" not in message
    assert message.count("***") == 2
    assert message.endswith("(again). Start it.")


def test_a_uri_without_a_password_is_left_as_it_is() -> None:
    for uri in ("http://127.0.0.1:5000", "sqlite:////x/a@b:c/mlflow.db", "postgresql://me@host:5432/db", "s3://b/k"):
        assert without_password(f"The store {uri} is gone.") == f"The store {uri} is gone."


def s3_error(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


REFUSALS = [
    MlflowException("401", error_code=UNAUTHENTICATED),
    MlflowException("403", error_code=PERMISSION_DENIED),
    s3_error("SignatureDoesNotMatch", 403),
    s3_error("ExpiredToken", 400),
    NoCredentialsError(),
    OperationalError("connect", {}, Exception('FATAL: password authentication failed for user "me"')),
]
OUTAGES = [
    MlflowException("503", error_code=TEMPORARILY_UNAVAILABLE),
    MlflowException("failed with error code 400. Response body: 'Invalid HTTP request received.'", BAD_REQUEST),
    s3_error("SlowDown", 503),
    OperationalError("connect", {}, Exception("Connection refused")),
    OSError("unreachable"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_a_refusal_is_no_outage(error: Exception) -> None:
    assert is_denied(error)
    assert not is_outage(error)
    wrapped = RuntimeError("upload failed")
    wrapped.__cause__ = error
    assert is_denied(wrapped)


@pytest.mark.parametrize("error", OUTAGES, ids=str)
def test_an_outage_is_no_refusal(error: Exception) -> None:
    assert is_outage(error)
    assert not is_denied(error)


def test_a_wrong_request_is_no_outage() -> None:
    assert not is_outage(MlflowException("Invalid metric name", BAD_REQUEST))


class Refusing(BaseHTTPRequestHandler):
    """Answers 401 to whatever but the question for its health, like MLflow with its own authentication."""

    def answer(self) -> None:
        healthy = self.path == "/health"
        self.send_response(200 if healthy else 401)
        self.end_headers()
        self.wfile.write(b"OK" if healthy else b"You are not authenticated.")

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A server that refuses everybody, and a home folder without credentials."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_wants_credentials_says_where_they_belong(refusing: str, tmp_path: Path) -> None:
    with pytest.raises(AccessDenied, match=r"it needs credentials, and none are set.*MLFLOW_TRACKING_PASSWORD") as told:
        store.open_client(Settings(home=tmp_path, tracking_uri=refusing))
    assert "\n" not in str(told.value)


def test_a_worker_with_a_wrong_password_names_its_machine_and_no_password(
    refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    monkeypatch.setattr("socket.gethostname", lambda: "node-7")
    with pytest.raises(AccessDenied, match=r"refused access from node-7: it does not accept user 'me'") as told:
        RunLog(refusing, "run", 1)
    assert "s3cret" not in str(told.value)


def test_what_a_user_may_not_do_is_told_with_the_servers_own_words() -> None:
    error = MlflowException("Permission denied: no EDIT on experiment 5\nmore", error_code=PERMISSION_DENIED)
    assert "Permission denied: no EDIT on experiment 5)" in str(denial("http://host", error))
