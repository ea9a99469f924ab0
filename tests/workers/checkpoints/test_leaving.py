"""A final checkpoint is stored once, in its job's run, and never nowhere."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import torch

from schemas.job import JobSpec
from schemas.lifecycle import StopReason
from schemas.order import Progress
from schemas.results import CheckpointPointer, JobResult
from tests.support.desk import Desk
from tests.support.lives import live
from tests.support.toy import toy_spec
from workers.checkpoints import published
from workers.checkpoints import store as store_module
from workers.checkpoints.ending import write_end
from workers.checkpoints.layout import POINTER, RESULT
from workers.checkpoints.leaving import leave_to_run
from workers.checkpoints.loading import load_checkpoint
from workers.checkpoints.store import CheckpointStore
from workers.job import run_job

if TYPE_CHECKING:
    from tests.conftest import Store

KEY = "0123456789ab"
MOMENTS = [
    "keeping the final checkpoint",
    "writing the end",
    "leaving the checkpoint to the run",
    "deleting the attempt's own",
]
"""The effects of a finished attempt, in their order; a kill comes before each."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(store: Store, new_run: Callable[[], str], tmp_path: Path, cache: Path) -> Desk:
    return Desk(store, new_run(), tmp_path, cache)


def files_in(desk: Desk) -> list[Path]:
    """Every checkpoint below the folder of checkpoints and among the files of the run."""
    run = Path(desk.store.client.get_run(desk.run_id).info.artifact_uri)
    return sorted({*desk.folder.joinpath("checkpoints").rglob("*.pt"), *run.rglob("*.pt")})


def blocks(paths: list[Path]) -> int:
    """Bytes on the disk, as `du` counts them: a file with several names once."""
    return sum({(one.st_dev, one.st_ino): one.st_blocks * 512 for one in map(os.stat, paths)}.values())


def ends(desk: Desk, spec: JobSpec, attempt: int) -> tuple[JobResult, set[str]]:
    """Run an attempt to its end; return its result and its phases."""
    seen: list[Progress] = []
    result = run_job(desk.order(spec, attempt), seen.append, lambda: False)
    assert (result.stop_reason, result.failure) == (StopReason.FINISHED, None)
    return result, {one.phase for one in seen}


def test_a_finished_job_has_one_file_and_the_disk_holds_its_bytes_once(desk: Desk) -> None:
    spec = toy_spec("ordinary", train__epochs=1)
    result, _ = ends(desk, spec, 1)
    assert result.checkpoint is not None
    (kept,) = files_in(desk)
    assert Path(result.checkpoint.path) == kept
    assert kept.stat().st_nlink == 1
    assert blocks([kept]) < 1.1 * kept.stat().st_size + 4096
    assert "network" in load_checkpoint(result.checkpoint, spec.key)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_between_any_two_effects_loses_and_repeats_nothing(desk: Desk, moment: str) -> None:
    spec = toy_spec("ordinary", train__epochs=2)
    live(desk.order(spec, 1), (moment, 1))
    left = files_in(desk)
    assert left
    assert blocks(left) == blocks(left[:1])
    states = [torch.load(path, weights_only=True)["network"] for path in left]
    result, phases = ends(desk, spec, 2)
    assert "training" not in phases
    (kept,) = files_in(desk)
    assert result.checkpoint is not None
    assert Path(result.checkpoint.path) == kept
    final = torch.load(kept, weights_only=True)["network"]
    assert all(torch.equal(final[name], state[name]) for state in states for name in final)
    assert [step for step, _ in desk.points("train/task_loss")] == [1, 2]


def test_a_final_checkpoint_that_the_disk_cannot_read_is_trained_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = toy_spec("ordinary", train__epochs=1)
    ends(desk, spec, 1)
    sha256_of = published.sha256_of

    def bad_sector(path: Path) -> str:
        if path.name.startswith("final-"):
            raise OSError(errno.EIO, "Input/output error")
        return sha256_of(path)

    monkeypatch.setattr(published, "sha256_of", bad_sector)
    _, phases = ends(desk, spec, 2)
    assert "training" in phases


def test_a_job_whose_tables_were_lost_goes_on_from_the_checkpoint_of_its_run(desk: Desk) -> None:
    spec = toy_spec("ordinary", train__epochs=1)
    first, _ = ends(desk, spec, 1)
    again, phases = ends(desk, spec, 2)
    assert "training" not in phases
    assert (again.checkpoint, again.metrics) == (first.checkpoint, first.metrics)
    assert len(files_in(desk)) == 1


def test_a_job_whose_checkpoint_was_damaged_in_its_run_is_trained_anew(desk: Desk) -> None:
    spec = toy_spec("ordinary", train__epochs=1)
    first, _ = ends(desk, spec, 1)
    assert first.checkpoint is not None
    whole = load_checkpoint(first.checkpoint, spec.key)["network"]
    kept = Path(first.checkpoint.path)
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    again, phases = ends(desk, spec, 2)
    assert "training" in phases
    assert again.checkpoint is not None
    state = load_checkpoint(again.checkpoint, spec.key)["network"]
    assert all(torch.equal(state[name], whole[name]) for name in whole)
    assert files_in(desk) == [Path(again.checkpoint.path)]


def test_checkpoints_on_another_file_system_are_copied_to_the_run_and_then_deleted(desk: Desk) -> None:
    far = Path("/dev/shm")
    if not far.is_dir() or far.stat().st_dev == desk.folder.stat().st_dev:
        pytest.skip("there is no second file system")
    spec, folder = toy_spec("ordinary", train__epochs=1), far / f"orch-test-{uuid4().hex}"
    try:
        order = desk.order(spec, 1, checkpoint_dir=str(folder))
        result = run_job(order, lambda _: None, lambda: False)
        assert (result.stop_reason, result.failure) == (StopReason.FINISHED, None)
        assert list(folder.rglob("*.pt")) == []
        assert result.checkpoint is not None
        assert files_in(desk) == [Path(result.checkpoint.path)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def finished(tmp_path: Path) -> tuple[CheckpointStore, JobResult]:
    """An attempt that has finished and written its end."""
    store = CheckpointStore(tmp_path / "checkpoints", KEY)
    store.take_over()
    final = store.save(3, {"network": torch.arange(3.0)})
    result = JobResult(job_key=KEY, attempt=1, stop_reason=StopReason.FINISHED, checkpoint=final)
    write_end(store.root, result)
    return store, result


def giving(content: bytes | None) -> Callable[[CheckpointPointer, Path], Path | None]:
    """Return what downloads a file with a content from the run."""

    def fetch(_: CheckpointPointer, folder: Path) -> Path | None:
        if content is None:
            return None
        (folder / "final.pt").write_bytes(content)
        return folder / "final.pt"

    return fetch


def test_the_file_is_deleted_once_the_run_behind_a_server_has_it_whole(
    finished: tuple[CheckpointStore, JobResult],
) -> None:
    store, result = finished
    assert result.checkpoint is not None
    own = Path(result.checkpoint.path)
    whole = own.read_bytes()
    for torn in (None, b"", whole[:-1], whole[:-1] + b"!"):
        assert not leave_to_run(store, result, giving(torn))
        assert own.exists()
    assert leave_to_run(store, result, giving(whole))
    assert sorted(path.name for path in store.folder.iterdir()) == sorted([store.holder.name, POINTER, RESULT])
    assert not leave_to_run(store, result, giving(whole))
    restored = CheckpointStore(store.root, KEY, 2).take_over(giving(whole)).checkpoint
    assert restored is not None
    assert (restored.epoch, restored.sha256) == (3, hashlib.sha256(whole).hexdigest())
    assert Path(restored.path).read_bytes() == whole


@pytest.mark.parametrize(
    "changes", [{"stop_reason": StopReason.PREEMPTED}, {"seconds": 1.0}], ids=["not finished", "end not written"]
)
def test_the_file_stays_unless_the_end_that_names_it_is_written(
    finished: tuple[CheckpointStore, JobResult], changes: dict[str, object]
) -> None:
    store, result = finished
    assert result.checkpoint is not None
    other = result.model_copy(update=changes)
    assert not leave_to_run(store, other, giving(Path(result.checkpoint.path).read_bytes()))
    assert store.newest() == result.checkpoint


def test_a_kill_within_the_deletion_leaves_a_file_and_no_problem(
    finished: tuple[CheckpointStore, JobResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, result = finished
    assert result.checkpoint is not None
    own = Path(result.checkpoint.path)
    whole, publish = own.read_bytes(), store_module.write_atomically

    class Killed(BaseException):
        pass

    def then_killed(path: Path, content: bytes | str) -> None:
        publish(path, content)
        raise Killed

    monkeypatch.setattr(store_module, "write_atomically", then_killed)
    with pytest.raises(Killed):
        leave_to_run(store, result, giving(whole))
    monkeypatch.undo()
    assert own.exists()
    taken = CheckpointStore(store.root, KEY, 2).take_over(giving(whole))
    assert taken.problems == ()
    assert taken.checkpoint is not None
    assert not own.exists()


def test_what_a_kill_left_of_a_download_is_no_obstacle(finished: tuple[CheckpointStore, JobResult]) -> None:
    store, _ = finished
    left = store.folder / ".fetched-x"
    left.mkdir()
    (left / "final.pt").write_bytes(b"half")
    assert CheckpointStore(store.root, KEY, 2).take_over().checkpoint is not None
    assert not left.exists()
