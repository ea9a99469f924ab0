"""What every object store does: the folder, moto's S3 and SeaweedFS pass the same tests."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import ObjectConflict, ObjectDamaged, ObjectMissing
from tests.support.object_store import BUCKET
from tests.support.object_store import ObjectStore as Moto
from tests.support.seaweed import SeaweedFS, weed
from workers.objects.base import ABSENT, ObjectStore, check_key, open_objects
from workers.objects.s3 import PART_BYTES

LARGE = bytes(range(251)) * (2 * PART_BYTES // 251 + 1000)
"""Three parts of an upload, of which no two are alike."""


class GivenUp(Exception):
    """Raised by a callback."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    if weed() is None:
        pytest.skip("SeaweedFS is not installed")
    server = SeaweedFS(tmp_path_factory.mktemp("seaweed"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    server = Moto()
    yield server
    server.stop()


@pytest.fixture(params=["folder", "moto", "seaweed"])
def objects(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    if request.param == "folder":
        return open_objects((tmp_path / "objects").as_uri())
    server: Moto | SeaweedFS = request.getfixturevalue(request.param)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_objects(f"s3://{BUCKET}/{tmp_path.name}")


def file_with(folder: Path, content: bytes) -> Path:
    path = folder / "source"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [b"", b"weights", LARGE], ids=["empty", "small", "large"])
def test_a_file_comes_back_as_it_was_stored(objects: ObjectStore, tmp_path: Path, content: bytes) -> None:
    sent: list[tuple[int, int]] = []
    got: list[tuple[int, int]] = []
    objects.put("a/b.pt", file_with(tmp_path, content), sha256(content), lambda *now: sent.append(now))
    objects.get("a/b.pt", tmp_path / "deep" / "target", sha256(content), lambda *now: got.append(now))
    assert (tmp_path / "deep" / "target").read_bytes() == content
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["target"]
    assert objects.size("a/b.pt") == len(content)
    if content:
        assert sent[-1] == got[-1] == (len(content), len(content))


def test_a_file_replaces_the_one_before(objects: ObjectStore, tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        objects.put("a", file_with(tmp_path, content), sha256(content))
    objects.get("a", tmp_path / "target", sha256(b"second"))
    assert (tmp_path / "target").read_bytes() == b"second"


def test_a_file_with_another_digest_is_not_stored(objects: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectDamaged, match=r"is damaged .* was not uploaded"):
        objects.put("a", file_with(tmp_path, b"torn"), sha256(b"whole"))
    assert objects.size("a") is None


def test_an_object_with_another_digest_is_not_used(objects: ObjectStore, tmp_path: Path) -> None:
    objects.put("a", file_with(tmp_path, b"torn"), sha256(b"torn"))
    (tmp_path / "target").write_bytes(b"former")
    with pytest.raises(ObjectDamaged, match=r"The object a of .* is damaged"):
        objects.get("a", tmp_path / "target", sha256(b"whole"))
    assert (tmp_path / "target").read_bytes() == b"former"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")) == []


def test_an_upload_that_is_given_up_leaves_nothing(objects: ObjectStore, tmp_path: Path) -> None:
    def give_up(sent: int, total: int) -> None:
        raise GivenUp

    with pytest.raises(GivenUp):
        objects.put("a", file_with(tmp_path, LARGE), sha256(LARGE), give_up)
    assert objects.size("a") is None


def test_what_is_not_there_is_named(objects: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match=r"There is no object no/such in (s3|file)://"):
        objects.get("no/such", tmp_path / "target")
    assert objects.read("no/such") is None
    assert objects.size("no/such") is None
    assert list(objects.list("no/")) == []
    objects.delete(["no/such"])


def test_a_record_is_replaced_only_if_it_is_the_expected_one(objects: ObjectStore) -> None:
    first = objects.write("a/newest.json", b"1", ABSENT)
    assert objects.read("a/newest.json") == (b"1", first)
    with pytest.raises(ObjectConflict, match="changed by another process"):
        objects.write("a/newest.json", b"2", ABSENT)
    second = objects.write("a/newest.json", b"2", first)
    assert second != first
    with pytest.raises(ObjectConflict, match="changed by another process"):
        objects.write("a/newest.json", b"3", first)
    assert objects.read("a/newest.json") == (b"2", second)
    objects.write("a/newest.json", b"4")
    objects.delete(["a/newest.json"])
    with pytest.raises(ObjectConflict, match="changed by another process"):
        objects.write("a/newest.json", b"5", second)


def test_of_several_writers_at_once_one_wins(objects: ObjectStore) -> None:
    outcomes: list[str] = []

    def claim(who: int) -> None:
        try:
            objects.write("claim", str(who).encode(), ABSENT)
            outcomes.append("won")
        except ObjectConflict:
            outcomes.append("lost")

    threads = [threading.Thread(target=claim, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost", "lost", "lost", "won"]


def test_listing_and_deleting_know_only_what_is_below_the_prefix(objects: ObjectStore, tmp_path: Path) -> None:
    for key in ("a/2", "a/1", "ab/1", "b"):
        objects.put(key, file_with(tmp_path, key.encode()), sha256(key.encode()))
    assert [(found.key, found.size) for found in objects.list("a/")] == [("a/1", 3), ("a/2", 3)]
    assert [found.key for found in objects.list("")] == ["a/1", "a/2", "ab/1", "b"]
    assert all(found.modified > 1.5e9 for found in objects.list(""))
    objects.delete(found.key for found in objects.list("a/"))
    assert [found.key for found in objects.list("")] == ["ab/1", "b"]


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/./b", "a/"])
def test_a_key_is_a_plain_relative_path(key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        check_key(key)
