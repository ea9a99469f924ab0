"""Looks for secrets where none may be: in files, in a database's dump, in object stores and in lists of processes."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

SAMPLE_SECONDS = 0.2
"""Pause between two looks at what changes while a sweep runs."""


class Found(NamedTuple):
    """A secret where none may be."""

    name: str
    where: str


def forms(secret: str) -> set[bytes]:
    """Return how a secret may be written: plainly, in a URL, or anywhere within text in base64."""
    raw = secret.encode()
    found = {raw, quote(secret, safe="").encode()}
    for before in range(3):  # the bytes before it in the text shift the code
        code = base64.b64encode(bytes(before) + raw)
        found.add(code[(0, 2, 3)[before] : -4])  # without what also holds bits of other bytes
    return found


def in_bytes(content: bytes, secrets: Mapping[str, str], where: str) -> list[Found]:
    """Return which secrets some bytes hold.

    Args:
        content: the bytes.
        secrets: secret by name.
        where: what the bytes are, for the answer.
    """
    return [Found(name, where) for name, secret in secrets.items() if any(form in content for form in forms(secret))]


def in_files(folders: Iterable[Path], secrets: Mapping[str, str]) -> list[Found]:
    """Return which secrets the files below some folders hold, in their content or path. Sockets and pipes are left out.

    Args:
        folders: folders, or single files.
        secrets: secret by name.
    """
    found: list[Found] = []
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            found += in_bytes(str(path).encode(), secrets, f"the path {path}")
            with suppress(OSError):  # it was deleted meanwhile
                if path.is_file():
                    found += in_bytes(path.read_bytes(), secrets, str(path))
    return found


def in_postgres(uri: str, secrets: Mapping[str, str], environment: Mapping[str, str], program: Path) -> list[Found]:
    """Return which secrets a PostgreSQL database holds, by its dump as text.

    Args:
        uri: libpq's URI of the database.
        secrets: secret by name.
        environment: of the dump, with PGPASSWORD.
        program: pg_dump.
    """
    dump = subprocess.run([str(program), "--inserts", uri], env=dict(environment), capture_output=True, check=True)
    assert b"INSERT INTO" in dump.stdout
    return in_bytes(dump.stdout, secrets, f"the dump of {uri}")


def in_bucket(client: object, bucket: str, secrets: Mapping[str, str]) -> list[Found]:
    """Return which secrets the objects of a bucket hold, in their content or key.

    Args:
        client: boto3's S3 client.
        bucket: the bucket.
        secrets: secret by name.
    """
    found: list[Found] = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):  # type: ignore[attr-defined]
        for entry in page.get("Contents", []):
            key = entry["Key"]
            body = client.get_object(Bucket=bucket, Key=key)["Body"].read()  # type: ignore[attr-defined]
            found += in_bytes(key.encode() + b"\n" + body, secrets, f"s3://{bucket}/{key}")
    return found


def in_command_lines(secrets: Mapping[str, str]) -> list[Found]:
    """Return which secrets stand in the command line of a running process, which every user of a machine can read."""
    found: list[Found] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            line = path.read_bytes()
            found += in_bytes(line, secrets, f"the command line {line.split(bytes(1))[0].decode(errors='replace')}")
    return found


@contextmanager
def watching(secrets: Mapping[str, str], folders: Callable[[], Iterable[Path]] = lambda: ()) -> Iterator[set[Found]]:
    """Within the context, look at command lines, and at files that are deleted at the end, again and again.

    Args:
        secrets: secret by name.
        folders: returns the folders to look at, which may come and go.

    Yields:
        What was found, complete after the context.
    """
    found: set[Found] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            found.update(in_command_lines(secrets))
            found.update(in_files(folders(), secrets))
            over.wait(SAMPLE_SECONDS)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
