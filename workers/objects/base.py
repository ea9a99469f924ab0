"""What an object store must do; the S3 store and the folder pass one contract test suite."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from schemas.errors import ObjectDamaged, StoreError
from workers.files import flush_folder, sha256_of

OnBytes = Callable[[int, int], None]
"""Callback that receives the number of transferred bytes and their total. It may raise to end the transfer."""


class Absent(Enum):
    """Type of `ABSENT`."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT
"""As the expected version of `ObjectStore.write`: there is no such object yet."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object of a listing."""

    key: str
    size: int
    """Size in bytes."""
    modified: float
    """Time of the last write, Unix seconds by the store's clock."""


class ObjectStore(Protocol):
    """Objects under keys such as `checkpoints/1a2b/newest.json`; an object is whole or absent.

    All methods raise StoreUnreachable if the store does not answer, after some tries of their own, and StoreError if it
    refuses. Instances may be used by several threads. One process at a time may `get` to a target.
    """

    @property
    def where(self) -> str:
        """The store's address for messages, without credentials."""
        ...

    def put(self, key: str, source: Path, sha256: str, on_bytes: OnBytes | None = None) -> None:
        """Store a file's content with its digest, in place of what is there.

        Args:
            sha256: digest that the file must have.

        Raises:
            ObjectDamaged: the file has another digest; nothing is stored.
            OSError: the file cannot be read.
        """
        ...

    def get(self, key: str, target: Path, sha256: str | None = None, on_bytes: OnBytes | None = None) -> None:
        """Download an object to a file, which takes its place only when whole. A later call continues an unfinished
        download.

        Args:
            sha256: digest that the content must have. Default: the one that S3 stores with it.

        Raises:
            ObjectMissing: there is no such object.
            ObjectDamaged: its content has another digest.
            OSError: the file cannot be written.
        """
        ...

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return the content of a small object and its version; None if there is none."""
        ...

    def write(self, key: str, content: bytes, expected: str | Absent | None = None) -> str:
        """Store a small object, and return its version.

        Args:
            expected: version that the present object must have, or ABSENT; None replaces whatever is there.

        Raises:
            ObjectConflict: another version is there, or none.
        """
        ...

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes; None if there is none."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with `prefix`, in the order of their keys."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects. Those that do not exist are skipped."""
        ...


def check_key(key: str) -> str:
    """Return a key, which must be a relative path without dots.

    Raises:
        ValueError: it is not.
    """
    if not key or key.startswith("/") or "\\" in key or {"", ".", ".."} & set(key.split("/")):
        raise ValueError(f"{key!r} is no key of an object; keys are relative paths such as 'checkpoints/1a2b/final.pt'")
    return key


def check_source(source: Path, sha256: str) -> None:
    """Check the digest of a file that is about to be stored.

    Raises:
        ObjectDamaged: the file has another one.
        OSError: the file cannot be read.
    """
    if (found := sha256_of(source)) != sha256:
        raise ObjectDamaged(
            f"{source} is damaged (SHA-256 {found[:12]}... instead of {sha256[:12]}...), so it was not uploaded."
        )


def partial_of(target: Path, version: str) -> Path:
    """Return the file in which an unfinished download of one version of an object waits to be continued."""
    return target.with_name(f".{target.name}.{hashlib.sha256(version.encode()).hexdigest()[:12]}.partial")


def finish_download(partial: Path, target: Path) -> None:
    """Give a complete download its name. A crash at any moment leaves the old file or the new one."""
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, target)
    flush_folder(target.parent)


def damaged(where: str, key: str, found: str, sha256: str) -> ObjectDamaged:
    """Return the error for an object whose content has another digest."""
    return ObjectDamaged(
        f"The object {key} of {where} is damaged (SHA-256 {found[:12]}... instead of {sha256[:12]}...). "
        "Delete it, so that it is uploaded again."
    )


def open_objects(uri: str, *, hurried: bool = False) -> ObjectStore:
    """Open an object store. Nothing is sent before the first call.

    Args:
        uri: `s3://BUCKET/PREFIX`, with the endpoint from AWS_ENDPOINT_URL_S3 or else MLFLOW_S3_ENDPOINT_URL, and
            credentials from the AWS_* variables; or `file:///FOLDER`, a folder that all machines mount.
        hurried: try each request once and for a few seconds, for a caller that others wait for.

    Raises:
        StoreError: the URI names no object store.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "s3" and rest.strip("/"):
        from workers.objects.s3 import HURRIED_SECONDS, S3Objects

        limits: dict[str, Any] = {"tries": 1, "answer_seconds": HURRIED_SECONDS} if hurried else {}
        bucket, _, prefix = rest.partition("/")
        return S3Objects(bucket, str(PurePosixPath(prefix)) if prefix.strip("/") else "", **limits)
    if scheme == "file" and rest.startswith("/"):
        from workers.objects.folder import FolderObjects

        return FolderObjects(Path(rest))
    raise StoreError(f"{uri} names no object store. Set ORCH_OBJECT_STORE to s3://BUCKET/PREFIX or file:///FOLDER.")
