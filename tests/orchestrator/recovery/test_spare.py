"""`orch gc` and second copies of final checkpoints: deleted only where the run has a whole one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger import opening, store
from orchestrator.ledger.records import StoredPlan
from orchestrator.recovery.garbage import Waste
from orchestrator.services import recovery
from orchestrator.settings import Settings
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer, JobResult
from tests.support.doubles import metrics, plan_of
from workers.checkpoints.layout import attempt_folder
from workers.tracking import final_checkpoint

WEIGHTS = b"final weights"
FINAL = CheckpointPointer(path="/x.pt", epoch=2, sha256=hashlib.sha256(WEIGHTS).hexdigest())


class Home:
    """A home with one job that has succeeded or failed, with a checkpoint on the disk."""

    def __init__(self, settings: Settings, state: JobState) -> None:
        self.settings, self.client = settings, store.open_client(settings)
        sweep = plan_of("smoke", categories=("cat",), backbones=("alexnet",), sets={"weights.source": "random"})
        plan = StoredPlan.of("s", "laptop", None, sweep.jobs, sweep.upstream_keys, sweep.resources)
        ledger, (job, *_) = opening.open_ledger(settings), sweep.jobs
        ledger.begin_sweep(plan, 1.0)
        ledger.conclude_sweep("s", "", {}, "KILLED")
        ledger.add(job, "s", 1.0)
        self.key = job.key
        self.run_id = ledger.move(job.key, JobState.RUNNING, 2.0).run_id
        self.file = attempt_folder(settings.checkpoint_dir, job.key, 1) / "epoch-0002-step-0000-0a1b2c3d.pt"
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(WEIGHTS)
        pointer = FINAL.model_copy(update={"path": str(self.file)})
        reason = StopReason.FINISHED if state is JobState.SUCCEEDED else StopReason.CODE_RAISED
        ledger.move(job.key, state, 3.0, reason=reason, result=JobResult(
            job_key=job.key, attempt=1, stop_reason=reason, metrics=metrics(), checkpoint=pointer,
        ))  # fmt: skip

    def keep(self, content: bytes, name: str = final_checkpoint.FORMER_NAME) -> None:
        """Put a file among those of the run."""
        self.client.log_artifact(self.run_id, str(_written(self.settings.root / name, content)), "checkpoint")
        (self.settings.root / name).unlink()

    def spare(self) -> list[str]:
        return [str(one.path) for one in recovery.gc(self.settings, dry_run=True) if "run has" in one.what]


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture
def home(new_home: Callable[[], Settings]) -> Home:
    return Home(new_home(), JobState.SUCCEEDED)


@pytest.mark.parametrize("is_served", [False, True], ids=["embedded", "served"])
def test_a_second_copy_is_deleted_where_the_run_has_a_whole_one(
    home: Home, monkeypatch: pytest.MonkeyPatch, is_served: bool
) -> None:
    if is_served:
        monkeypatch.setattr(final_checkpoint, "folder_of", lambda uri: None)
    assert home.spare() == []
    home.keep(WEIGHTS[:-1])
    assert home.spare() == []
    home.keep(WEIGHTS, final_checkpoint.name_of(FINAL))
    assert home.spare() == [str(home.file)]
    assert home.file.exists()
    recovery.gc(home.settings)
    assert not home.file.exists()
    assert home.file.parent.is_dir()
    assert home.spare() == []


def test_the_checkpoint_of_a_job_that_has_not_succeeded_stays(new_home: Callable[[], Settings]) -> None:
    home = Home(new_home(), JobState.FAILED)
    home.keep(WEIGHTS)
    assert home.spare() == []


def test_a_job_that_runs_again_meanwhile_keeps_its_files(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.keep(WEIGHTS)
    find = recovery.spare_checkpoints

    def slowly(settings: Settings, *arguments: Any) -> list[Waste]:
        found = list(find(settings, *arguments))
        ledger = opening.open_ledger(settings)
        ledger.move(home.key, JobState.REQUEUED, 4.0, reason=StopReason.RESULTS_LOST)
        return found

    monkeypatch.setattr(recovery, "spare_checkpoints", slowly)
    recovery.gc(home.settings)
    assert home.file.exists()
