"""The end of an attempt that no driver heard of counts only while its final checkpoint is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution import unheard
from orchestrator.execution.unheard import find_end
from orchestrator.ledger.records import JobRecord
from orchestrator.settings import Settings
from schemas.errors import StoreError, StoreUnreachable
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer, JobResult
from workers.checkpoints.ending import write_end
from workers.checkpoints.shared import write_shared_end
from workers.objects.folder import FolderObjects
from workers.tracking import run_log

KEY, CONTENT = "0123456789ab", b"final weights"
RECORD = JobRecord(KEY, "a job", "{}", "sweep", JobState.RUNNING, 0.0, attempt=1)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(unheard, "_end_in_run", lambda settings, record: None)
    monkeypatch.setattr(unheard, "_run_has", lambda settings, record, end: False)
    return Settings.model_validate({"home": tmp_path})


@pytest.fixture
def checkpoint(settings: Settings) -> Path:
    path: Path = settings.checkpoint_dir / KEY / "attempt-1" / "epoch-0003-step-0000-abcdef12.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def end(checkpoint: Path) -> JobResult:
    pointer = CheckpointPointer(path=str(checkpoint), epoch=3, sha256=hashlib.sha256(CONTENT).hexdigest())
    return JobResult(job_key=KEY, attempt=1, stop_reason=StopReason.FINISHED, checkpoint=pointer)


def test_an_end_with_a_whole_checkpoint_counts(settings: Settings, end: JobResult) -> None:
    write_end(settings.checkpoint_dir, end)
    assert find_end(settings, RECORD) == end


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(CONTENT[:-4]),
        lambda path: path.write_bytes(CONTENT.replace(b"f", b"F")),
        lambda path: path.unlink(),
    ],
    ids=["torn", "changed", "deleted"],
)
def test_an_end_whose_checkpoint_was_damaged_since_counts_as_none(
    settings: Settings, end: JobResult, checkpoint: Path, spoil: Callable[[Path], object]
) -> None:
    write_end(settings.checkpoint_dir, end)
    spoil(checkpoint)
    assert find_end(settings, RECORD) is None


def test_an_end_counts_as_long_as_the_run_has_the_final_checkpoint_whole(
    settings: Settings, end: JobResult, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = [CONTENT, b"torn", None]

    class Run:
        def __init__(self, uri: str, run_id: str) -> None: ...

        def fetch_checkpoint(self, final: CheckpointPointer, folder: Path) -> Path | None:
            copy = copies.pop(0)
            if copy is None:
                return None
            (folder / "final.pt").write_bytes(copy)
            return folder / "final.pt"

    monkeypatch.undo()
    monkeypatch.setattr(run_log, "RunLog", Run)
    write_end(settings.checkpoint_dir, end)
    checkpoint.unlink()  # as the worker does once the run has it
    assert find_end(settings, RECORD) == end
    assert {path.name for path in settings.checkpoint_dir.iterdir()} == {KEY}
    assert find_end(settings, RECORD) is None
    assert find_end(settings, RECORD) is None
    write_end(settings.checkpoint_dir, end.model_copy(update={"stop_reason": StopReason.PREEMPTED}))
    assert find_end(settings, RECORD) is None  # only a job that has finished leaves a copy
    assert copies == []


def test_the_end_of_another_machines_worker_counts_without_its_checkpoint_here(
    settings: Settings, end: JobResult, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unheard, "_end_in_run", lambda settings, record: end)
    assert find_end(settings, RECORD) == end
    checkpoint.unlink()
    assert find_end(settings, RECORD) == end
    checkpoint.write_bytes(b"torn")
    assert find_end(settings, RECORD) is None


def test_a_checkpoint_that_cannot_be_read_now_is_a_store_error(
    settings: Settings, end: JobResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(pointer: CheckpointPointer) -> str:
        raise PermissionError(13, "Permission denied")

    write_end(settings.checkpoint_dir, end)
    monkeypatch.setattr(unheard, "damage", refused)
    with pytest.raises(StoreError, match=r"cannot be read \(Permission denied\).*`orch resume`"):
        find_end(settings, RECORD)


def test_an_end_that_only_the_object_store_has_counts(
    settings: Settings, end: JobResult, tmp_path: Path, checkpoint: Path
) -> None:
    shared = settings.model_copy(update={"object_store": (tmp_path / "objects").as_uri()})
    assert find_end(shared, RECORD) is None
    write_shared_end(FolderObjects(tmp_path / "objects"), end)
    assert find_end(settings, RECORD) is None
    assert find_end(shared, RECORD) == end
    checkpoint.unlink()  # the worker was on another machine
    assert find_end(shared, RECORD) == end
    assert find_end(shared, replace(RECORD, attempt=2)) is None


def test_a_store_that_is_away_for_a_moment_is_asked_again(
    tmp_path: Path, end: JobResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[JobResult | StoreError] = [StoreUnreachable("away"), StoreUnreachable("away"), end]

    class Run:
        def __init__(self, uri: str, run_id: str) -> None: ...

        def fetch_end(self, key: str, attempt: int) -> JobResult:
            answer = answers.pop(0)
            if isinstance(answer, StoreError):
                raise answer
            return answer

    monkeypatch.undo()
    monkeypatch.setattr(run_log, "RunLog", Run)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    assert find_end(Settings.model_validate({"home": tmp_path}), RECORD) == end
    answers[:] = [StoreUnreachable("away")] * 20
    assert find_end(Settings.model_validate({"home": tmp_path}), RECORD) is None
