"""Checkpoints in the object store: what counts, who may change it, and what an outage or damage costs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch

from schemas.errors import StoreError, StoreUnreachable, Superseded
from schemas.lifecycle import StopReason
from schemas.results import CheckpointPointer, JobResult
from tests.support.object_store import BUCKET, ObjectStore
from tests.support.waiting import wait_for
from workers.checkpoints import publisher
from workers.checkpoints.loading import Fetch, load_checkpoint
from workers.checkpoints.publisher import Publisher
from workers.checkpoints.shared import (
    SharedCheckpoints,
    begin_afresh,
    read_shared_end,
    read_shared_pointer,
    shared_objects,
    write_shared_end,
)
from workers.checkpoints.sharing import Sharing
from workers.checkpoints.store import CheckpointStore
from workers.objects.base import open_objects
from workers.objects.folder import FolderObjects

KEY = "0123456789ab"
PATIENCE = 30.0


@pytest.fixture
def folder(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


@pytest.fixture(params=["folder", "s3"])
def uri(request: pytest.FixtureRequest, folder: FolderObjects) -> str:
    if request.param == "folder":
        return folder.where
    request.getfixturevalue("object_server")
    return f"s3://{BUCKET}/{uuid4().hex}"


def state(value: float) -> dict[str, Any]:
    return {"network": {"weight": torch.full((3,), value)}}


class Node:
    """A machine with a disk of its own."""

    def __init__(self, uri: str, disk: Path) -> None:
        self.uri, self.disk = uri, disk
        self.paused: list[float] = []

    def store(self, attempt: int) -> CheckpointStore:
        return CheckpointStore(self.disk, KEY, attempt)

    def shared(self, attempt: int) -> SharedCheckpoints:
        return SharedCheckpoints(open_objects(self.uri), KEY, attempt)

    def begin(
        self, attempt: int, fetch: Fetch = lambda final, folder: None, patience: float = PATIENCE
    ) -> tuple[CheckpointPointer | None, tuple[str, ...], Sharing]:
        store = self.store(attempt)
        sharing = Sharing(self.uri, store, patience, self.paused.append)
        taken = sharing.take_over(store.take_over(), fetch)
        return taken.checkpoint, taken.problems, sharing

    def save(self, attempt: int, epoch: int) -> CheckpointPointer:
        return self.store(attempt).save(epoch, state(epoch))


@pytest.fixture
def one(uri: str, tmp_path: Path) -> Node:
    return Node(uri, tmp_path / "one")


@pytest.fixture
def two(uri: str, tmp_path: Path) -> Node:
    return Node(uri, tmp_path / "two")


def published(node: Node, attempt: int) -> list[int]:
    pointer = read_shared_pointer(open_objects(node.uri), KEY, attempt)
    return [row.epoch for row in pointer.checkpoints] if pointer else []


def ended(attempt: int, reason: StopReason, checkpoint: CheckpointPointer | None = None) -> JobResult:
    return JobResult(job_key=KEY, attempt=attempt, stop_reason=reason, checkpoint=checkpoint)


def test_another_machine_goes_on_from_what_was_published(one: Node, two: Node) -> None:
    _, _, sharing = one.begin(1)
    sharing.offer(one.save(1, 1))
    wait_for(lambda: published(one, 1) == [1])
    sharing.offer(one.save(1, 2))
    assert not sharing.conclude(ended(1, StopReason.INTERRUPTED), lambda end: True).left_on
    checkpoint, problems, _ = two.begin(2)
    assert checkpoint is not None
    assert (checkpoint.epoch, problems) == (2, ())
    assert Path(checkpoint.path).is_relative_to(two.disk / KEY / "attempt-2")
    assert torch.equal(load_checkpoint(checkpoint, KEY)["network"]["weight"], torch.full((3,), 2.0))
    assert two.store(2).newest() == checkpoint


def test_the_newer_of_this_machines_and_the_shared_checkpoint_is_used(one: Node, two: Node) -> None:
    one.begin(1)
    one.save(1, 3)  # and is killed before it is uploaded
    shared = two.shared(2)
    shared.take_over()
    shared.publish(two.save(2, 2))
    checkpoint, _, _ = one.begin(3)
    assert checkpoint is not None
    assert checkpoint.epoch == 3
    wait_for(lambda: published(one, 3)[:1] == [3])
    checkpoint, _, _ = Node(one.uri, two.disk).begin(4)
    assert checkpoint is not None
    assert checkpoint.epoch == 3


def test_only_the_newest_two_and_nothing_of_earlier_attempts_stay(one: Node, two: Node) -> None:
    first, second = one.shared(1), two.shared(2)
    first.take_over()
    for epoch in (1, 2, 3):
        first.publish(one.save(1, epoch))
    assert published(one, 1) == [3, 2]
    second.take_over()
    second.publish(two.save(2, 4))
    assert published(two, 2) == [4, 3]
    second.publish(two.save(2, 5))
    found = list(shared_objects(open_objects(one.uri)))
    assert {(part.attempt, part.name[:10]) for part in found} == {
        (2, "epoch-0004"), (2, "epoch-0005"), (2, "newest.jso"),
    }  # fmt: skip


def test_an_attempt_that_was_replaced_publishes_and_deletes_nothing(one: Node, two: Node) -> None:
    first, second = one.shared(1), two.shared(2)
    first.take_over()
    first.publish(one.save(1, 1))
    (row,) = second.take_over()
    for _ in range(2):
        with pytest.raises(Superseded, match="Attempt 1 has lost its job"):
            first.publish(one.save(1, 2))
    assert open_objects(one.uri).size(row.path) is not None
    assert published(two, 2) == [1]
    third = Node(two.uri, two.disk.parent / "three").begin(3)
    assert third[0] is not None
    assert third[0].epoch == 1


def test_an_attempt_that_wakes_up_after_its_objects_were_deleted_is_told(one: Node, two: Node) -> None:
    first, second = one.shared(1), two.shared(2)
    first.take_over()
    first.publish(one.save(1, 1))
    second.take_over()
    second.publish(two.save(2, 2))
    second.publish(two.save(2, 3))
    with pytest.raises(Superseded):
        first.publish(one.save(1, 2))
    with pytest.raises(Superseded):  # one that had published nothing, because the store was away
        one.shared(1).publish(one.save(1, 2))
    with pytest.raises(Superseded):
        one.shared(1).take_over()


def test_a_publishing_attempt_hears_in_the_background_that_it_was_replaced(one: Node, two: Node) -> None:
    _, _, sharing = one.begin(1)
    sharing.offer(one.save(1, 1))
    wait_for(lambda: published(one, 1) == [1])
    two.begin(2)

    def save_on() -> bool:
        try:
            sharing.offer(one.save(1, 2))
        except Superseded:
            return True
        return False

    wait_for(save_on)
    assert published(two, 2) == [1]


@pytest.mark.parametrize("damage", ["cut short", "other content", "gone"])
def test_a_damaged_object_gives_way_to_the_one_before_and_is_told(
    one: Node, two: Node, damage: str, tmp_path: Path
) -> None:
    shared, objects = one.shared(1), open_objects(one.uri)
    shared.take_over()
    for epoch in (1, 2):
        shared.publish(one.save(1, epoch))
    newest = shared._published[0]
    content = (one.disk / KEY / "attempt-1" / Path(newest.path).name).read_bytes()
    objects.delete([newest.path])
    if damage != "gone":
        objects.write(newest.path, content[:-100] if damage == "cut short" else b"x" + content[1:])
    checkpoint, problems, _ = two.begin(2)
    assert checkpoint is not None
    assert checkpoint.epoch == 1
    assert len(problems) == 1
    assert ("no object" if damage == "gone" else "is damaged") in problems[0]


def test_a_damaged_pointer_costs_the_shared_checkpoints_only(one: Node, two: Node) -> None:
    shared = one.shared(1)
    shared.take_over()
    shared.publish(one.save(1, 1))
    open_objects(one.uri).write(f"checkpoints/{KEY}/attempt-1/newest.json", b"{")
    checkpoint, _, _ = two.begin(2)
    assert checkpoint is None
    checkpoint, _, _ = one.begin(3)
    assert checkpoint is not None
    assert checkpoint.epoch == 1


def test_a_finished_job_leaves_how_it_ended_and_no_checkpoint(one: Node, two: Node) -> None:
    _, _, sharing = one.begin(1)
    final = one.save(1, 4)
    sharing.offer(final)
    end = ended(1, StopReason.FINISHED, final)
    sharing.conclude(end, lambda end: True)
    objects = open_objects(one.uri)
    assert [found.name for found in shared_objects(objects)] == ["result.json"]
    assert read_shared_end(objects, KEY, 1) == end

    def fetch(_: CheckpointPointer, folder: Path) -> Path:
        copy = folder / "final.pt"
        copy.write_bytes(Path(final.path).read_bytes())
        return copy

    checkpoint, _, _ = two.begin(2, fetch)  # nobody had heard of the end
    assert checkpoint is not None
    assert (checkpoint.epoch, checkpoint.sha256) == (4, final.sha256)
    assert two.store(2).newest() == checkpoint


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_a_finished_job_whose_results_are_gone_runs_again(one: Node, two: Node, content: bytes | None) -> None:
    write_shared_end(open_objects(one.uri), ended(1, StopReason.FINISHED, one.save(1, 4)))

    def fetch(_: CheckpointPointer, folder: Path) -> Path | None:
        if content is not None:
            (folder / "final.pt").write_bytes(content)
        return folder / "final.pt" if content is not None else None

    assert two.begin(2, fetch)[0] is None


def test_a_checkpoint_is_kept_where_neither_the_run_nor_the_store_has_the_end(
    one: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, sharing = one.begin(1)
    sharing.offer(one.save(1, 4))
    wait_for(lambda: published(one, 1) == [4])
    monkeypatch.setattr(Sharing, "_write_end", lambda self, result: False)
    sharing.conclude(ended(1, StopReason.FINISHED), lambda end: False)
    assert published(one, 1) == [4]


def test_a_job_that_is_to_begin_afresh_uses_no_checkpoint_of_any_machine(one: Node, two: Node) -> None:
    _, _, sharing = one.begin(1)
    sharing.offer(one.save(1, 3))
    sharing.conclude(ended(1, StopReason.CODE_RAISED), lambda end: True)
    assert two.begin(2)[0] is not None
    begin_afresh(open_objects(one.uri), KEY, 2)
    for node, attempt in ((one, 3), (two, 4)):
        later = Sharing(node.uri, node.store(attempt), PATIENCE, node.paused.append)
        later.delete_unused()
        assert later.take_over(node.store(attempt).take_over(), lambda folder: None).checkpoint is None
    shared = one.shared(5)
    shared.take_over()
    shared.publish(one.save(5, 1))
    assert shared.last_unused() == 2


def test_what_an_unused_attempt_has_published_since_is_not_taken_over(one: Node, two: Node) -> None:
    objects = open_objects(one.uri)
    begin_afresh(objects, KEY, 1)
    late = one.shared(1)  # cut off when the mark was written, and not sealed
    late.publish(one.save(1, 7))
    assert published(one, 1) == [7]
    assert two.begin(2)[0] is None
    with pytest.raises(Superseded):
        late.publish(one.save(1, 8))


class Recorder:
    """Stands for SharedCheckpoints: each publication waits until it is let go."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.done: list[int] = []
        self.go = threading.Semaphore(0)
        self.errors: list[Exception] = []

    def publish(self, checkpoint: CheckpointPointer, on_bytes: Callable[[int, int], None]) -> None:
        self.began.append(checkpoint.epoch)
        self.go.acquire()
        on_bytes(1, 1)
        if self.errors:
            raise self.errors.pop(0)
        self.done.append(checkpoint.epoch)


def row(epoch: int) -> CheckpointPointer:
    return CheckpointPointer(path=f"epoch-{epoch}.pt", epoch=epoch, sha256="")


def test_checkpoints_that_were_superseded_while_one_was_uploaded_are_skipped() -> None:
    recorder = Recorder()
    background = Publisher(recorder)  # type: ignore[arg-type]
    background.offer(row(1))
    wait_for(lambda: recorder.began == [1])
    for epoch in (2, 3, 4):
        background.offer(row(epoch))  # returns at once
    recorder.go.release(2)
    assert background.finish()
    assert recorder.done == [1, 4]


def test_a_store_that_is_away_is_tried_again_with_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "FIRST_WAIT", 0.01)
    recorder = Recorder()
    recorder.errors = [StoreUnreachable("away"), StoreError("refused")]
    background = Publisher(recorder)  # type: ignore[arg-type]
    background.offer(row(1))
    wait_for(lambda: recorder.began == [1])
    background.offer(row(2))
    recorder.go.release(3)
    wait_for(lambda: recorder.done == [2])
    assert recorder.began == [1, 2, 2]
    assert background.finish()


def test_the_end_does_not_wait_for_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "IDLE_SECONDS", 0.05)
    recorder = Recorder()
    background = Publisher(recorder)  # type: ignore[arg-type]
    background.offer(row(1))
    assert not background.finish()
    recorder.go.release(1)
    assert background.join()
    assert recorder.done == []  # given up


def test_the_end_does_not_wait_for_a_store_that_is_known_to_be_away() -> None:
    recorder = Recorder()
    recorder.errors = [StoreUnreachable("away")]
    recorder.go.release(1)
    background = Publisher(recorder)  # type: ignore[arg-type]
    background.offer(row(1))
    wait_for(lambda: background._is_away)
    assert not background.finish()
    assert background.join()


def test_a_store_that_is_away_stays_so_when_a_checkpoint_was_superseded() -> None:
    recorder = Recorder()
    recorder.errors = [StoreUnreachable("away"), FileNotFoundError("superseded")]
    background = Publisher(recorder)  # type: ignore[arg-type]
    background.offer(row(1))
    recorder.go.release(2)
    wait_for(lambda: background._is_away)
    with background._changed:  # the thread waits before its next try
        background._changed.notify_all()
    wait_for(lambda: len(recorder.began) == 2)
    background.offer(row(2))
    assert background._is_away
    assert not background.finish()
    recorder.go.release(1)
    assert background.join()


@pytest.mark.parametrize("uri", ["s3"], indirect=True)
def test_an_end_without_the_store_says_which_machine_has_the_checkpoint(one: Node, object_server: ObjectStore) -> None:
    _, _, sharing = one.begin(1)
    sharing.offer(one.save(1, 1))
    wait_for(lambda: published(one, 1) == [1])
    object_server.stop()
    sharing.offer(one.save(1, 2))
    told: list[JobResult] = []

    def upload_end(end: JobResult) -> bool:
        told.append(end)
        return True

    end = sharing.conclude(ended(1, StopReason.INTERRUPTED), upload_end)
    assert end.left_on == socket.gethostname()
    assert told == [end]


@pytest.mark.parametrize("uri", ["s3"], indirect=True)
def test_a_first_attempt_begins_without_the_store_and_publishes_when_it_is_back(
    one: Node, object_server: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "FIRST_WAIT", 0.1)
    object_server.stop()
    _, _, sharing = one.begin(1)
    sharing.offer(one.save(1, 1))
    wait_for(lambda: sharing._publisher._is_away)
    sharing.offer(one.save(1, 2))
    object_server.start()
    wait_for(lambda: published(one, 1) == [2])
    assert one.paused == []


@pytest.mark.parametrize("uri", ["s3"], indirect=True)
def test_a_later_attempt_waits_for_the_store(one: Node, two: Node, object_server: ObjectStore) -> None:
    shared = one.shared(1)
    shared.take_over()
    shared.publish(one.save(1, 1))
    object_server.stop()
    with pytest.raises(StoreUnreachable):
        two.begin(2, patience=0.0)

    def come_back(seconds: float) -> None:
        object_server.start()

    sharing = Sharing(two.uri, two.store(2), PATIENCE, come_back)
    taken = sharing.take_over(two.store(2).take_over(), lambda folder: None)
    assert taken.checkpoint is not None
    assert taken.checkpoint.epoch == 1


@pytest.mark.parametrize("uri", ["s3"], indirect=True)
def test_a_pointer_whose_answer_was_lost_does_not_end_the_attempt(
    one: Node, object_server: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = one.shared(1)
    shared.take_over()
    write = type(shared.objects).write

    def lose(self: Any, key: str, content: bytes, expected: Any = None) -> str:
        write(self, key, content, expected)
        raise StoreUnreachable("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(type(shared.objects), "write", lose)
        with pytest.raises(StoreUnreachable):
            shared.publish(one.save(1, 1))
    shared.publish(one.save(1, 2))
    assert published(one, 1)[0] == 2
