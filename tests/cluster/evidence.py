"""Reads what a scenario left behind without orch: from PostgreSQL, the object store and the attempts' logs."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2

from tests.chaos.evidence import Store, digest_of

EPOCH_DONE = re.compile(r" INFO epoch \d+/\d+: ")


class PostgresStore(Store):
    """The database of the tracking server, read directly."""

    def __init__(self, address: str, port: int, password: str) -> None:
        self._where = {"host": address, "port": port, "password": password}

    def ask(self, query: str, *values: str) -> list[tuple[object, ...]]:
        """See `Store.ask`. Returns no rows while the server is down."""
        try:
            connection = psycopg2.connect(**self._where, user="mlflow", dbname="mlflow", connect_timeout=5)
        except psycopg2.OperationalError:
            return []
        try:
            with connection.cursor() as cursor:
                cursor.execute(query.replace("?", "%s"), values)
                return list(cursor.fetchall())
        except (psycopg2.errors.UndefinedTable, psycopg2.OperationalError):  # being created, or being stopped
            return []
        finally:
            connection.close()

    def clear(self) -> None:
        """Remove all runs and experiments but MLflow's own, so that the server need not be started again."""
        connection = psycopg2.connect(**self._where, user="mlflow", dbname="mlflow")
        with connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE runs, experiment_tags CASCADE")
            cursor.execute("DELETE FROM experiments WHERE experiment_id <> 0")
        connection.close()

    def artifacts(self) -> dict[str, str]:
        """Return the URI of the artifacts of each job's run by job key."""
        query = (
            "SELECT t.value, r.artifact_uri FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
            "WHERE t.key = 'orch.job_key'"
        )
        return {str(key): str(uri) for key, uri in self.ask(query)}


def final_weights(client: Any, bucket: str, uri: str) -> str:
    """Return the digest of a job's final weights in the object store.

    Args:
        client: of boto3.
        bucket: of the artifacts.
        uri: of the artifacts of the job's run, `mlflow-artifacts:/1/...`.
    """
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"artifacts{urlsplit(uri).path}/checkpoint/")["Contents"]
    bodies = (client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in found)
    (digest,) = {digest_of(io.BytesIO(body)) for body in bodies}  # a worker that slept may have left a second file
    return digest


def epochs_trained(logs: Iterable[Path]) -> int:
    """Return the number of epochs that all attempts together have trained."""
    return sum(len(EPOCH_DONE.findall(log.read_text(errors="replace"))) for log in logs)
