"""A kill, a damaged file or another job's folder costs at most the epochs since the last whole checkpoint."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import CheckpointError, StoreError, Superseded
from schemas.results import CheckpointPointer
from workers.checkpoints import published
from workers.checkpoints.loading import load_checkpoint
from workers.checkpoints.store import CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, "0123456789ab")


def load_newest(store: CheckpointStore) -> dict[str, Any]:
    pointer = store.newest()
    assert pointer is not None
    return load_checkpoint(pointer, store.job_key)


def files_of(store: CheckpointStore) -> list[str]:
    """Return the files of all attempts, without the steps and digests in their names."""
    files = (path.relative_to(store.job_folder) for path in store.job_folder.rglob("*") if path.is_file())
    return [str(path).partition("-step")[0] for path in files]


def state(value: float) -> dict[str, Any]:
    return {"network": {"weight": torch.full((3,), value)}, "records": [{"epoch": 1, "task_loss": 0.25}]}


def test_what_was_saved_comes_back(store: CheckpointStore) -> None:
    pointer = store.save(3, state(1.5))
    loaded = load_newest(store)
    assert (loaded["epoch"], loaded["job_key"], loaded["records"]) == (
        3,
        store.job_key,
        [{"epoch": 1, "task_loss": 0.25}],
    )
    assert torch.equal(loaded["network"]["weight"], torch.full((3,), 1.5))
    assert store.newest() == pointer


def test_a_job_without_checkpoints_starts_afresh(store: CheckpointStore) -> None:
    assert store.newest() is None


def test_only_the_newest_and_the_one_before_it_are_kept(store: CheckpointStore) -> None:
    for epoch in (1, 2, 3):
        store.save(epoch, state(epoch))
    assert sorted(path.name.split("-")[1] for path in store.folder.glob("*.pt")) == ["0002", "0003"]
    store.keep_newest_only()
    assert [path.name.split("-")[1] for path in store.folder.glob("*.pt")] == ["0003"]


@pytest.mark.parametrize("damage", ["cut short", "flipped", "deleted"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(store: CheckpointStore, damage: str) -> None:
    store.save(1, state(1))
    newest = Path(store.save(2, state(2)).path)
    content = bytearray(newest.read_bytes())
    if damage == "cut short":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    else:
        newest.unlink()
    loaded = load_newest(store)
    assert loaded["epoch"] == 1


@pytest.mark.parametrize("pointer", ["whole", "damaged"])
def test_a_checkpoint_that_the_disk_cannot_read_gives_way_to_the_one_before(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, pointer: str
) -> None:
    store.save(1, state(1))
    newest = store.save(2, state(2))
    sha256_of = published.sha256_of

    def bad_sector(path: Path) -> str:
        if path.name.startswith("epoch-0002"):
            raise OSError(errno.EIO, "Input/output error")
        return sha256_of(path)

    monkeypatch.setattr(published, "sha256_of", bad_sector)
    if pointer == "damaged":
        store.pointer.write_text("{")
    taken = CheckpointStore(store.root, store.job_key, attempt=2).take_over()
    assert taken.checkpoint is not None
    assert taken.checkpoint.epoch == 1
    said = f"The checkpoint {newest.path} cannot be read: its disk is damaged"
    assert any(said in problem or pointer == "damaged" for problem in taken.problems)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.ESTALE])
def test_a_checkpoint_that_cannot_be_read_for_a_while_is_not_given_up(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store.save(1, state(1))
    kept = store.save(2, state(2))

    def refused(path: Path) -> str:
        raise OSError(code, os.strerror(code))

    after = CheckpointStore(store.root, store.job_key, attempt=2)
    with monkeypatch.context() as patch:
        patch.setattr(published, "sha256_of", refused)
        with pytest.raises(StoreError):
            after.take_over()
    taken = after.take_over().checkpoint
    assert taken is not None
    assert (taken.epoch, taken.sha256) == (2, kept.sha256)


def test_a_checkpoint_that_must_be_copied_is_on_the_disk_before_the_original_goes(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For file systems without hard links."""
    store.save(1, state(1))
    flushed: list[str] = []
    fsync = os.fsync

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def flush(number: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{number}"))
        fsync(number)

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "fsync", flush)
    late = CheckpointStore(store.root, store.job_key, attempt=2)
    taken = late.take_over()
    assert taken.checkpoint is not None
    copied, pointer = (
        next(i for i, path in enumerate(flushed) if Path(path).name.startswith(f".{name}."))
        for name in (Path(taken.checkpoint.path).name, late.pointer.name)
    )
    assert copied < pointer
    assert not store.folder.exists()
    assert load_checkpoint(taken.checkpoint, store.job_key)["epoch"] == 1


@pytest.mark.parametrize("does", ["save", "take over"])
def test_what_replaces_a_checkpoint_outlives_a_power_cut_before_the_older_one_goes(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    for epoch in (1, 2):
        store.save(epoch, state(epoch))
    done: list[Path] = []
    fsync, unlink = os.fsync, Path.unlink

    def flush(number: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{number}")))
        fsync(number)

    def delete(path: Path, missing_ok: bool = False) -> None:
        if path.exists():
            done.append(Path("deleted"))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "unlink", delete)
    after = store if does == "save" else CheckpointStore(store.root, store.job_key, attempt=2)
    if does == "save":
        after.save(3, state(3))
    else:
        after.take_over()
    flushed = [path.name.partition("-step")[0].partition(".json")[0] for path in done[: done.index(Path("deleted"))]]
    assert flushed == {
        "save": [".epoch-0003", ".newest", "attempt-1"], "take over": [".newest", "attempt-2", store.job_key],
    }[does]  # fmt: skip


@pytest.mark.parametrize("renames_before_the_kill", [0, 1, 2])
def test_a_kill_at_any_rename_leaves_the_checkpoint_before(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, renames_before_the_kill: int
) -> None:
    store.save(1, state(1))
    done = 0

    def rename(source: Path, target: Path) -> None:
        nonlocal done
        if done == renames_before_the_kill:
            raise KeyboardInterrupt
        done += 1
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(KeyboardInterrupt):
        store.save(2, state(2))
    monkeypatch.undo()
    loaded = load_newest(store)
    assert loaded["epoch"] == 1
    store.save(2, state(2))
    assert len(list(store.folder.iterdir())) == 3  # the newest, the one before, the pointer: nothing else


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_attempt_clears_away_what_earlier_ones_left(store: CheckpointStore, attempt: int) -> None:
    for epoch in (1, 2):
        store.save(epoch, state(epoch))
    for name in (".epoch-0003-step-0000-.pt.17.partial", "epoch-0003-step-0000-.pt"):
        (store.folder / name).write_bytes(b"half of it")
    late = CheckpointStore(store.root, store.job_key, attempt)
    late.take_over()
    late.save(3, state(3))
    assert sorted(files_of(store)) == [
        *(f"attempt-{attempt}/epoch-000{epoch}" for epoch in (2, 3)),
        *(f"attempt-{attempt}/{name}" for name in ("holder.json", "newest.json")),
    ]


def test_an_attempt_goes_on_from_what_the_one_before_it_published(store: CheckpointStore) -> None:
    for epoch in (1, 2):
        store.save(epoch, state(epoch))
    late = CheckpointStore(store.root, store.job_key, 2)
    taken = late.take_over()
    assert (taken.checkpoint, taken.problems) == (late.newest(), ())
    assert load_newest(late)["epoch"] == 2
    assert list(store.job_folder.iterdir()) == [late.folder]
    Path(taken.checkpoint.path).unlink()  # type: ignore[union-attr]
    assert load_newest(late)["epoch"] == 1


@pytest.mark.parametrize("linked", [True, False])
def test_an_attempt_that_was_replaced_can_neither_save_nor_delete(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    def no_links(*_: Any) -> None:
        raise PermissionError("this disk has no links")

    for epoch in (1, 2):
        store.save(epoch, state(1))
    if not linked:
        monkeypatch.setattr(os, "link", no_links)
    late = CheckpointStore(store.root, store.job_key, 2)
    late.take_over()
    with pytest.raises(Superseded, match=r"Attempt 1 has lost its job \(attempt 2 has taken over"):
        store.save(3, state(1))
    with pytest.raises(Superseded):
        store.keep_newest_only()
    assert load_newest(late)["epoch"] == 2
    pointer = late.save(3, state(2))
    assert late.newest() == pointer


@pytest.mark.parametrize("asleep_in", ["save", "_publish"])
def test_an_attempt_that_is_replaced_in_the_middle_of_saving_changes_nothing(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, asleep_in: str
) -> None:
    """It is replaced after its check: what it still writes goes to its own folder, which no longer counts."""
    store.save(1, state(1))
    late = CheckpointStore(store.root, store.job_key, 2)
    owner: Any = torch if asleep_in == "save" else CheckpointStore
    real = getattr(owner, asleep_in)

    def asleep(*arguments: Any) -> None:
        monkeypatch.undo()
        late.take_over()
        late.save(2, state(2))
        late.save(3, state(2))
        real(*arguments)

    monkeypatch.setattr(owner, asleep_in, asleep)
    with suppress(Superseded):
        store.save(2, state(1))
    assert load_newest(late)["epoch"] == 3
    assert [row.epoch for row in late._published().checkpoints] == [3, 2]
    assert all(load_checkpoint(row, late.job_key)["network"]["weight"][0] == 2 for row in late._published().checkpoints)
    late.save(4, state(2))
    assert list(store.job_folder.iterdir()) == [late.folder]


def test_a_file_that_its_attempt_replaces_while_it_is_taken_over_is_looked_for_again(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(1, state(1))
    link = os.link

    def replaced(source: Any, target: Any) -> None:
        monkeypatch.undo()
        for epoch in (2, 3):
            store.save(epoch, state(1))
        link(source, target)

    monkeypatch.setattr(os, "link", replaced)
    taken = CheckpointStore(store.root, store.job_key, 2).take_over()
    assert taken.checkpoint is not None
    assert taken.checkpoint.epoch == 3


def test_a_checkpoint_within_an_epoch_is_newer_than_the_one_at_its_start(store: CheckpointStore) -> None:
    store.save(1, state(1))
    pointer = store.save(1, state(1.5), step=12)
    assert "epoch-0001-step-0012" in pointer.path
    assert store.newest() == pointer


def test_saving_an_epoch_again_replaces_it(store: CheckpointStore) -> None:
    store.save(1, state(1))
    store.save(2, state(2))
    store.save(2, state(2.5))
    loaded = load_newest(store)
    assert loaded["network"]["weight"][0] == 2.5


def test_the_root_may_move(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(1, state(1))
    moved = CheckpointStore(tmp_path / "elsewhere", store.job_key)
    moved.root.mkdir()
    store.job_folder.rename(moved.job_folder)
    loaded = load_newest(moved)
    assert loaded["epoch"] == 1


def test_another_jobs_checkpoint_is_refused(store: CheckpointStore) -> None:
    pointer = store.save(1, state(1))
    with pytest.raises(CheckpointError, match="belongs to job 0123456789ab, not ba9876543210"):
        load_checkpoint(pointer, "ba9876543210")
    store.job_folder.rename(store.root / "ba9876543210")
    with pytest.raises(CheckpointError, match="belongs to job 0123456789ab"):
        load_newest(CheckpointStore(store.root, "ba9876543210"))


def test_a_file_that_torch_cannot_read_is_a_checkpoint_error(store: CheckpointStore) -> None:
    path = Path(store.save(1, state(1)).path)
    path.write_bytes(b"whole, and nonsense")
    pointer = CheckpointPointer(path=str(path), epoch=1, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(CheckpointError, match="torch cannot read it"):
        load_checkpoint(pointer, store.job_key)


def test_a_missing_checkpoint_is_named(store: CheckpointStore) -> None:
    pointer = store.save(1, state(1))
    Path(pointer.path).unlink()
    with pytest.raises(CheckpointError, match="is missing, or its content"):
        load_checkpoint(pointer, store.job_key)


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be written in"):
        CheckpointStore(tmp_path / "root", "0123456789ab").save(1, state(1))


def test_a_disk_that_fails_after_the_last_epoch_is_a_store_error(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in (1, 2):
        store.save(epoch, state(1))

    def fail(*_: Any) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(CheckpointStore, "_publish", fail)
    with pytest.raises(StoreError, match="Stale file handle"):
        store.keep_newest_only()


@pytest.mark.parametrize("text", ["[{", "", "{}", '[{"epoch": 1}]'])
def test_a_damaged_pointer_is_reported_and_made_up_for_by_the_digests_in_names(
    store: CheckpointStore, text: str
) -> None:
    for epoch in (1, 2, 3):
        store.save(epoch, state(epoch))
    (store.folder / "epoch-0004-step-0000-00000000.pt").write_bytes(b"not what its name says")
    store.pointer.write_text(text)
    taken = CheckpointStore(store.root, store.job_key, 2).take_over()
    assert taken.checkpoint is not None
    assert taken.checkpoint.epoch == 3
    (problem,) = taken.problems
    assert "attempt-1/newest.json is damaged" in problem


def test_a_pointer_that_may_not_be_read_is_a_store_error(store: CheckpointStore) -> None:
    store.save(1, state(1))
    store.pointer.unlink()
    store.pointer.mkdir()
    with pytest.raises(StoreError, match=r"attempt-1/newest\.json, which names the job's checkpoints, cannot be read"):
        store.newest()
