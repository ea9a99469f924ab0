"""A SeaweedFS server with an S3 gateway, as another implementation of the protocol than moto's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.support.object_store import BUCKET, free_port

START_SECONDS = 60.0
KEY, SECRET = "orch", "orch-secret"


def weed() -> str | None:
    """Return the path of the `weed` program; None if it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class SeaweedFS:
    """A server whose data are in a folder; its content survives `stop`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.environment = {
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._ports = [free_port() for _ in range(7)]
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        identity = {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self.start()

    def start(self) -> None:
        """Start the server, wait until it keeps an object, and make the bucket."""
        program = weed()
        assert program is not None
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_grpc = self._ports
        command = [
            program, "server", f"-dir={self._folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3",
            f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.volumeSizeLimitMB=64",
            f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=20", "-volume.preStopSeconds=0",
            f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}",
            f"-filer.localSocket={self._folder / 'filer.sock'}",
            f"-s3.port={self.port}", f"-s3.port.grpc={s3_grpc}", f"-s3.config={self._folder / 's3.json'}",
            "-s3.port.iceberg=0",
        ]  # fmt: skip
        with open(self._folder / "weed.log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            assert time.monotonic() < until, (self._folder / "weed.log").read_text()[-3000:]
            assert self._process.poll() is None, (self._folder / "weed.log").read_text()[-3000:]
            time.sleep(0.2)

    def _answers(self) -> bool:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        client = boto3.client(
            "s3", endpoint_url=self.environment["MLFLOW_S3_ENDPOINT_URL"], region_name="us-east-1",
            aws_access_key_id=KEY, aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
        )  # fmt: skip
        try:
            with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"yes")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def stop(self) -> None:
        """Kill the server and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
