"""An object store in an S3 bucket: how long it is tried, what counts as an outage, and how digests are checked."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from functools import partial as partial_call
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from schemas.errors import AccessDenied, ObjectConflict, ObjectMissing, StoreError, StoreUnreachable
from workers.loopback import bypass_proxies_for_loopback
from workers.objects.base import (
    ABSENT,
    Absent,
    ObjectInfo,
    OnBytes,
    check_key,
    check_source,
    damaged,
    finish_download,
    partial_of,
)

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL")
"""Variables that name the endpoint, the first one first; without either it is AWS."""
CONNECT_SECONDS, ANSWER_SECONDS, HURRIED_SECONDS = 5.0, 20.0, 5.0
"""Longest time until a connection stands; until the next bytes of an answer arrive; and for whoever cannot wait."""
TRIES = 3
PART_BYTES = 8 * 2**20
"""Larger files are uploaded in parts of this size, and all are downloaded in such."""
PARTS_AT_ONCE = 4
DIGEST = "orch-sha256"
"""Name of the metadata field that holds an object's digest."""
KEYS_AT_ONCE = 1000
"""Most keys that S3 deletes with one request."""

_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_CONFLICT = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
_AGAIN = frozenset({"SlowDown", "RequestTimeout", "Throttling", "TooManyRequests", "NoSuchUpload", "InvalidPart"})
_NOT_CONDITIONAL = frozenset({"NotImplemented", "501"})


def endpoint_from(environment: os._Environ[str] | dict[str, str] = os.environ) -> str | None:
    """Return the URL of the S3 endpoint that the environment names; None for AWS."""
    return next((environment[name] for name in ENDPOINTS if environment.get(name)), None)


@dataclass(frozen=True)
class S3Objects:
    """Objects of a bucket below a prefix; see `ObjectStore`."""

    bucket: str
    prefix: str = ""
    tries: int = TRIES
    """Tries of each request before the store counts as unreachable."""
    answer_seconds: float = ANSWER_SECONDS
    """Longest time until the next bytes of an answer arrive."""

    @property
    def where(self) -> str:
        """Bucket, prefix and endpoint."""
        place = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        endpoint = endpoint_from()
        if endpoint is None:
            return place
        parts = urlsplit(endpoint)
        port = f":{parts.port}" if parts.port else ""
        return f"{place} at {parts.scheme}://{parts.hostname}{port}"

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        bypass_proxies_for_loopback()
        try:
            with _CLIENT_LOCK:
                return boto3.session.Session().client(
                    "s3",
                    endpoint_url=endpoint_from(),
                    region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
                    config=Config(
                        connect_timeout=CONNECT_SECONDS,
                        read_timeout=self.answer_seconds,
                        retries={"total_max_attempts": 1},  # `_call` retries
                        max_pool_connections=2 * PARTS_AT_ONCE,
                    ),
                )
        except ValueError as error:
            raise self._refused(str(error).rstrip(".")) from error

    def put(self, key: str, source: Path, sha256: str, on_bytes: OnBytes | None = None) -> None:
        """Upload a file; see `ObjectStore.put`. S3 shows no part of it before the last one has arrived."""
        from boto3.s3.transfer import TransferConfig

        name = self._name(key)
        check_source(source, sha256)
        config = TransferConfig(PART_BYTES, PARTS_AT_ONCE, PART_BYTES, num_download_attempts=1)
        total = source.stat().st_size

        def upload() -> None:
            sent, lock = 0, threading.Lock()

            def count(fresh: int) -> None:
                nonlocal sent
                with lock:
                    sent += fresh
                    if on_bytes is not None:
                        on_bytes(sent, total)

            extra = {"Metadata": {DIGEST: sha256}}
            with open(source, "rb") as file:
                self._client.upload_fileobj(file, self.bucket, name, ExtraArgs=extra, Callback=count, Config=config)
            head = self._client.head_object(Bucket=self.bucket, Key=name)
            if (head["ContentLength"], head["Metadata"].get(DIGEST)) != (total, sha256):
                raise StoreUnreachable(f"{self.where} has not kept {key} as it was uploaded. Check the object store.")

        self._call(upload)

    def get(self, key: str, target: Path, sha256: str | None = None, on_bytes: OnBytes | None = None) -> None:
        """Download an object; see `ObjectStore.get`."""
        name = self._name(key)
        head = self._head(name)
        if head is None:
            raise ObjectMissing(f"There is no object {key} in {self.where}.")
        wanted = sha256 or head["Metadata"].get(DIGEST)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_of(target, head["ETag"])
        for is_resumed in (partial.is_file(), False):
            try:
                with open(partial, "ab") as file:
                    found = self._download(key, name, head, file, on_bytes)
            except OSError:
                partial.unlink(missing_ok=True)  # a full disk needs the room
                raise
            except ObjectConflict as error:
                partial.unlink(missing_ok=True)
                raise StoreUnreachable(f"{key} of {self.where} was replaced during its download.") from error
            if wanted in (None, found):
                finish_download(partial, target)
                return
            partial.unlink()
            if not is_resumed:  # else what an earlier process left may be damaged, and the object whole
                raise damaged(self.where, key, found, wanted)

    def _download(self, key: str, name: str, head: Any, file: BinaryIO, on_bytes: OnBytes | None) -> str:
        """Append what a file lacks of an object, some parts at a time; return the SHA-256 of the whole."""
        total = head["ContentLength"]
        digest, done = _digest_so_far(Path(file.name), total)
        if done == 0:
            file.truncate(0)

        def part(start: int) -> bytes:
            end = min(start + PART_BYTES, total) - 1
            range_ = {"Range": f"bytes={start}-{end}"}

            def fetch() -> bytes:
                answer = self._client.get_object(Bucket=self.bucket, Key=name, IfMatch=head["ETag"], **range_)
                content: bytes = answer["Body"].read()
                if len(content) != end - start + 1:
                    raise StoreUnreachable(f"{self.where} has sent less of {key} than there is. Check the network.")
                return content

            content: bytes = self._call(fetch)
            return content

        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="orch-download") as threads:
            starts = iter(range(done, total, PART_BYTES))
            coming: deque[Future[bytes]] = deque(threads.submit(part, start) for start in islice(starts, PARTS_AT_ONCE))
            try:
                while coming:
                    content: bytes = coming.popleft().result()
                    coming.extend(threads.submit(part, start) for start in islice(starts, 1))
                    file.write(content)
                    digest.update(content)
                    done += len(content)
                    if on_bytes is not None:
                        on_bytes(done, total)
            finally:
                for one in coming:
                    one.cancel()
        return str(digest.hexdigest())

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return a record and its version; see `ObjectStore.read`."""
        name = self._name(key)

        def fetch() -> tuple[bytes, str]:
            answer = self._client.get_object(Bucket=self.bucket, Key=name)
            return answer["Body"].read(), answer["ETag"]

        found: tuple[bytes, str] | None = self._call(fetch, missing_is_none=True)
        return found

    def write(self, key: str, content: bytes, expected: str | Absent | None = None) -> str:
        """Store a record; see `ObjectStore.write`.

        A store without conditional writes answers NotImplemented. The record is then compared before it is written,
        which leaves a moment in which another process can write too.
        """
        name = self._name(key)
        condition: dict[str, str] = {}
        if expected is ABSENT:
            condition = {"IfNoneMatch": "*"}
        elif isinstance(expected, str):
            condition = {"IfMatch": expected}

        def send(**condition: str) -> str:
            return str(self._client.put_object(Bucket=self.bucket, Key=name, Body=content, **condition)["ETag"])

        try:
            return str(self._call(lambda: send(**condition)))
        except _Unconditional:
            found = self.read(key)
            if (found[1] if found else ABSENT) != expected:
                raise self._conflict(key) from None
            return str(self._call(send))
        except (ObjectConflict, ObjectMissing):
            found = self.read(key)  # the answer to an earlier try may have been lost
            if found is not None and found[0] == content and expected is not None:
                return found[1]
            raise self._conflict(key) from None

    def size(self, key: str) -> int | None:
        """Return the size of an object; see `ObjectStore.size`."""
        head = self._head(self._name(key))
        return None if head is None else int(head["ContentLength"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects of a prefix; see `ObjectStore.list`."""
        start = f"{self.prefix}/" if self.prefix else ""
        page: dict[str, str] = {}
        while True:
            request = partial_call(self._client.list_objects_v2, Bucket=self.bucket, Prefix=start + prefix, **page)
            answer = self._call(request)
            for found in answer.get("Contents", ()):
                yield ObjectInfo(found["Key"].removeprefix(start), found["Size"], found["LastModified"].timestamp())
            if not answer.get("IsTruncated"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; see `ObjectStore.delete`."""
        left = iter([{"Key": self._name(key)} for key in keys])
        while some := list(islice(left, KEYS_AT_ONCE)):
            chosen = {"Objects": some, "Quiet": True}
            answer = self._call(partial_call(self._client.delete_objects, Bucket=self.bucket, Delete=chosen))
            for error in answer.get("Errors", ()):
                if error.get("Code") not in _MISSING:
                    raise self._refused(f"{error.get('Code')}: {error.get('Message')}")

    def _head(self, name: str) -> Any:
        """Return the answer to a HEAD request; None if there is no such object."""
        head = self._call(lambda: self._client.head_object(Bucket=self.bucket, Key=name), missing_is_none=True)
        if head is None:  # or no such bucket: the answer does not say which
            self._call(lambda: self._client.list_objects_v2(Bucket=self.bucket, Prefix=name, MaxKeys=1))
        return head

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    def _call(self, request: Callable[[], Any], *, missing_is_none: bool = False) -> Any:
        """Return what a request returns, retried while the store does not answer."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        tries = Retrying(
            retry=retry_if_exception_type(StoreUnreachable), stop=stop_after_attempt(self.tries),
            wait=wait_random_exponential(0.2, max=2.0), reraise=True,
        )  # fmt: skip
        try:
            return tries(self._translated, request)
        except ObjectMissing:
            if missing_is_none:
                return None
            raise

    def _translated(self, request: Callable[[], Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return request()
        except (BotoCoreError, ClientError) as error:
            raise self._as_ours(error) from error

    def _as_ours(self, error: Exception) -> Exception:
        from botocore.exceptions import (
            ClientError,
            ConnectionError,
            HTTPClientError,
            IncompleteReadError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        if isinstance(error, ClientError):
            code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in _NOT_CONDITIONAL:
                return _Unconditional(code)
            if code in _CONFLICT:
                return ObjectConflict(f"An object of {self.where} was changed by another process.")
            if code in _MISSING:
                return ObjectMissing(f"There is no such object in {self.where}.")
            if status >= 500 or status == 429 or code in _AGAIN:
                return self._away(f"{code}: {message}")
            return self._refused(f"{code}: {message}", AccessDenied if status in (401, 403) else StoreError)
        if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
            return self._refused(str(error).rstrip("."), AccessDenied)
        if isinstance(error, (ConnectionError, HTTPClientError, IncompleteReadError)):
            return self._away(type(error).__name__)
        return self._refused(f"{type(error).__name__}: {error}")

    def _away(self, why: str) -> StoreUnreachable:
        return StoreUnreachable(
            f"The object store {self.where} does not answer ({why}). Check that it runs and can be reached from here."
        )

    def _refused(self, why: str, kind: type[StoreError] = StoreError) -> StoreError:
        return kind(
            f"The object store {self.where} refuses a request ({why}). Check ORCH_OBJECT_STORE, the endpoint in "
            f"{' or '.join(ENDPOINTS)}, and the credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )

    def _conflict(self, key: str) -> ObjectConflict:
        return ObjectConflict(f"The object {key} of {self.where} was changed by another process.")


class _Unconditional(Exception):
    """The store has no conditional writes."""


_CLIENT_LOCK = threading.Lock()
"""Creating clients is not safe in several threads."""


def _digest_so_far(partial: Path, total: int) -> tuple[Any, int]:
    """Return the running SHA-256 of an unfinished download and its length; of nothing if it is too long."""
    digest, done = hashlib.sha256(), partial.stat().st_size
    if done > total:
        return digest, 0
    with open(partial, "rb") as file:
        while some := file.read(PART_BYTES):
            digest.update(some)
    return digest, done
