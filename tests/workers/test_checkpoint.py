"""A kill, a torn file or another job's folder never costs more than the epochs since the last whole checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import CheckpointError, StoreError
from workers import checkpoint
from workers.checkpoint import CheckpointStore, load_checkpoint


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, "0123456789ab")


def load_newest(store: CheckpointStore) -> dict[str, Any]:
    pointer = store.newest()
    assert pointer is not None
    return load_checkpoint(pointer, store.job_key)


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


@pytest.mark.parametrize("renames_before_the_kill", [0, 1])
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

    monkeypatch.setattr(checkpoint.os, "replace", rename)
    with pytest.raises(KeyboardInterrupt):
        store.save(2, state(2))
    monkeypatch.undo()
    loaded = load_newest(store)
    assert loaded["epoch"] == 1
    store.save(2, state(2))
    assert len(list(store.folder.iterdir())) == 3  # the newest, the one before, the pointer: nothing left over


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_attempt_clears_away_what_earlier_ones_left(store: CheckpointStore, attempt: int) -> None:
    for epoch in (1, 2):
        store.save(epoch, state(epoch))
    (store.folder / "epoch-0003-attempt-1.partial").write_bytes(b"half of it")
    CheckpointStore(store.root, store.job_key, attempt).save(3, state(3))
    assert sorted(path.name.split("-")[1] for path in store.folder.glob("epoch-*")) == ["0002", "0003"]


def test_an_attempt_taken_for_dead_does_not_touch_the_files_of_the_next(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = CheckpointStore(store.root, store.job_key, 2)
    write = torch.save

    def write_while_the_other_does(content: Any, file: Any) -> None:
        write(content, file)
        monkeypatch.setattr(torch, "save", write)
        store.save(3, state(1))

    monkeypatch.setattr(torch, "save", write_while_the_other_does)
    pointer = late.save(3, state(2))
    for epoch in (4, 5, 6):
        store.save(epoch, state(1))
    store.keep_newest_only()
    assert load_checkpoint(pointer, store.job_key)["network"]["weight"][0] == 2


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
    store.folder.rename(moved.folder)
    loaded = load_newest(moved)
    assert loaded["epoch"] == 1


def test_another_jobs_checkpoint_is_refused(store: CheckpointStore) -> None:
    pointer = store.save(1, state(1))
    with pytest.raises(CheckpointError, match="belongs to job 0123456789ab, not ba9876543210"):
        load_checkpoint(pointer, "ba9876543210")
    store.folder.rename(store.root / "ba9876543210")
    with pytest.raises(CheckpointError, match="belongs to job 0123456789ab"):
        load_newest(CheckpointStore(store.root, "ba9876543210"))


def test_a_missing_checkpoint_is_named(store: CheckpointStore) -> None:
    pointer = store.save(1, state(1))
    Path(pointer.path).unlink()
    with pytest.raises(CheckpointError, match="is missing, or its content"):
        load_checkpoint(pointer, store.job_key)


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be written in"):
        CheckpointStore(tmp_path / "root", "0123456789ab").save(1, state(1))


def test_a_broken_list_of_checkpoints_is_not_taken_for_none(store: CheckpointStore) -> None:
    store.save(1, state(1))
    (store.folder / checkpoint.POINTER).write_text("[{")
    with pytest.raises(StoreError, match=r"newest\.json, which names the job's checkpoints, cannot be read"):
        store.newest()
