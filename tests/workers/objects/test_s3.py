"""How the S3 store behaves when it is away, refuses, or loses an answer."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from schemas.errors import ObjectConflict, ObjectDamaged, StoreError, StoreUnreachable
from tests.support.object_store import BUCKET, ObjectStore
from workers.objects import s3
from workers.objects.base import ABSENT, open_objects, partial_of
from workers.objects.s3 import PART_BYTES, S3Objects

CONTENT = bytes(range(251)) * (2 * PART_BYTES // 251 + 1000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def objects(object_server: ObjectStore) -> S3Objects:
    return S3Objects(BUCKET, uuid4().hex)  # moto's stores of one process share their content


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


class Client:
    """A client some of whose answers are replaced."""

    def __init__(self, real: Any, **replaced: Any) -> None:
        self._real, self._replaced = real, replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced.get(name) or getattr(self._real, name)


def with_answers(objects: S3Objects, **replaced: Any) -> Any:
    """Replace methods of a store's client; return the real one."""
    real = objects._client
    vars(objects)["_client"] = Client(real, **replaced)
    return real


def test_a_store_that_does_not_answer_is_an_outage(
    objects: S3Objects, object_server: ObjectStore, source: Path
) -> None:
    object_server.stop()
    for call in (
        lambda: objects.read("a"),
        lambda: objects.write("a", b""),
        lambda: objects.size("a"),
        lambda: list(objects.list("")),
        lambda: objects.delete(["a"]),
        lambda: objects.put("a", source, SHA256),
        lambda: objects.get("a", source.with_name("target")),
    ):
        with pytest.raises(StoreUnreachable, match=rf"{objects.where} does not answer"):
            call()
    object_server.start()
    assert objects.read("a") is None


def test_a_store_that_hangs_is_an_outage(objects: S3Objects, object_server: ObjectStore) -> None:
    objects = replace(objects, answer_seconds=0.1)
    object_server.stop(hangs=True)
    with pytest.raises(StoreUnreachable, match="does not answer"):
        objects.read("a")
    object_server.start()


@pytest.mark.parametrize("call", ["read", "size", "list"])
def test_a_bucket_that_does_not_exist_is_refused_in_one_line(object_server: ObjectStore, call: str) -> None:
    objects = S3Objects("no-such-bucket")
    with pytest.raises(StoreError, match=r"s3://no-such-bucket at http://127.*NoSuchBucket.*ORCH_OBJECT_STORE") as told:
        list(getattr(objects, call)("a") or ())
    assert not isinstance(told.value, StoreUnreachable)
    assert "\n" not in str(told.value)
    assert "orch-secret" not in str(told.value)


def test_wrong_credentials_are_refused_and_not_shown(objects: S3Objects) -> None:
    def refuse(**request: Any) -> None:
        error = {"Error": {"Code": "SignatureDoesNotMatch", "Message": "The signature does not match."}}
        raise ClientError({**error, "ResponseMetadata": {"HTTPStatusCode": 403}}, "GetObject")  # type: ignore[arg-type]

    with_answers(objects, get_object=refuse)
    with pytest.raises(StoreError, match=r"refuses a request .SignatureDoesNotMatch.*AWS_ACCESS_KEY_ID") as told:
        objects.read("a")
    assert "orch-secret" not in str(told.value)


def test_missing_credentials_are_refused(objects: S3Objects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="Unable to locate credentials"):
        objects.read("a")


def test_an_endpoint_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://not a host")
    with pytest.raises(StoreError, match=r"Invalid endpoint.*AWS_ENDPOINT_URL_S3"):
        S3Objects(BUCKET, "a").read("b")


def test_the_endpoint_is_shown_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://me:hidden@objects.example:9000")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://other")
    assert S3Objects("b", "p/q").where == "s3://b/p/q at https://objects.example:9000"


def test_a_download_that_broke_off_goes_on_where_it_was(objects: S3Objects, source: Path) -> None:
    objects.put("a", source, SHA256)
    target = source.with_name("target")
    asked: list[str] = []
    real = objects._client

    def get_object(**request: Any) -> Any:
        asked.append(request["Range"])
        if not request["Range"].startswith("bytes=0-") and len(asked) <= 4 * s3.TRIES:
            raise ReadTimeoutError(endpoint_url="http://objects")
        return real.get_object(**request)

    with_answers(objects, get_object=get_object)
    with pytest.raises(StoreUnreachable):
        objects.get("a", target)
    (partial,) = target.parent.glob(".target.*.partial")
    assert partial.stat().st_size == PART_BYTES
    asked[:] = ["again"] * 4 * s3.TRIES
    objects.get("a", target)
    assert sorted(asked)[4 * s3.TRIES - 1 :] != []
    assert not any(one.startswith("bytes=0-") for one in asked)
    assert target.read_bytes() == CONTENT
    assert not partial.exists()


@pytest.mark.parametrize("left", [b"something else", CONTENT + b"more"], ids=["other", "longer"])
def test_what_a_broken_download_left_is_not_trusted(objects: S3Objects, source: Path, left: bytes) -> None:
    objects.put("a", source, SHA256)
    target = source.with_name("target")
    partial_of(target, objects._client.head_object(Bucket=BUCKET, Key=f"{objects.prefix}/a")["ETag"]).write_bytes(left)
    objects.get("a", target, SHA256)
    assert target.read_bytes() == CONTENT


def test_a_changed_object_is_known_by_the_digest_that_was_stored_with_it(objects: S3Objects, source: Path) -> None:
    objects.put("a", source, SHA256)
    objects._client.put_object(
        Bucket=BUCKET, Key=f"{objects.prefix}/a", Body=CONTENT[:-1], Metadata={s3.DIGEST: SHA256}
    )
    with pytest.raises(ObjectDamaged, match=f"instead of {SHA256[:12]}"):
        objects.get("a", source.with_name("target"))
    assert list(source.parent.iterdir()) == [source]


def test_an_upload_that_the_store_has_not_kept_is_tried_again(objects: S3Objects, source: Path) -> None:
    real, asked = objects._client, 0

    def head_object(**request: Any) -> Any:
        nonlocal asked
        asked += 1
        answer = real.head_object(**request)
        return {**answer, "ContentLength": 1} if asked == 1 else answer

    with_answers(objects, head_object=head_object)
    objects.put("a", source, SHA256)
    assert asked == 2


@pytest.mark.parametrize("expected", [ABSENT, "present"])
def test_a_conditional_write_whose_answer_was_lost_counts_as_done(objects: S3Objects, expected: Any) -> None:
    version = expected if expected is ABSENT else objects.write("a", b"0")
    real, sent = objects._client, 0

    def put_object(**request: Any) -> Any:
        nonlocal sent
        sent += 1
        answer = real.put_object(**request)
        if sent == 1:
            raise ReadTimeoutError(endpoint_url="http://objects")
        return answer

    with_answers(objects, put_object=put_object)
    written = objects.write("a", b"1", version)
    assert sent == 2
    assert objects.read("a") == (b"1", written)


def test_without_conditional_writes_the_record_is_compared_first(objects: S3Objects) -> None:
    def put_object(**request: Any) -> Any:
        if {"IfMatch", "IfNoneMatch"} & set(request):
            error = {"Error": {"Code": "NotImplemented", "Message": ""}}
            raise ClientError({**error, "ResponseMetadata": {"HTTPStatusCode": 501}}, "PutObject")  # type: ignore[arg-type]
        return real.put_object(**request)

    real = with_answers(objects, put_object=put_object)
    first = objects.write("a", b"1", ABSENT)
    with pytest.raises(ObjectConflict):
        objects.write("a", b"2", ABSENT)
    assert objects.write("a", b"2", first) != first
    with pytest.raises(ObjectConflict):
        objects.write("a", b"3", first)


@pytest.mark.parametrize("uri", ["s3://", "folder", "http://bucket/x", "file://here"])
def test_another_uri_names_no_object_store(uri: str) -> None:
    with pytest.raises(StoreError, match="names no object store"):
        open_objects(uri)
