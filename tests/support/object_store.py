"""An S3-compatible object store that can be stopped and restarted."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

BUCKET = "orch"


class ObjectStore:
    """An S3-compatible object store in this process; its content survives `stop`."""

    def __init__(self) -> None:
        import boto3

        self.port = free_port()
        self.environment = {
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "orch",
            "AWS_SECRET_ACCESS_KEY": "orch-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._server: BaseWSGIServer
        self._thread: threading.Thread
        self._deaf: socket.socket | None = None
        self.start()
        client = boto3.client(
            "s3", endpoint_url=self.environment["MLFLOW_S3_ENDPOINT_URL"], region_name="us-east-1",
            aws_access_key_id="orch", aws_secret_access_key="orch-secret",
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        client.close()

    def start(self) -> None:
        """Start to serve requests."""
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            def log(self, type: str, message: str, *args: object) -> None: ...

        if self._deaf is not None:
            self._deaf.close()
        application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", self.port, application, threaded=True, request_handler=Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self, *, hangs: bool = False) -> None:
        """Stop to serve requests.

        Args:
            hangs: accept connections without ever answering, rather than refuse them.
        """
        self._server.shutdown()
        self._thread.join()
        self._deaf = socket.create_server(("127.0.0.1", self.port)) if hangs else None


def free_port() -> int:
    """Return a TCP port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
