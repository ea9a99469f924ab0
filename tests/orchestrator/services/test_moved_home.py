"""A home that was moved, copied, renamed or deleted: found again, or refused, and nothing finished runs again."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from orchestrator.cli.main import main
from orchestrator.ledger import opening, store
from orchestrator.ledger.home import HOME_FILE, MARKER, Relocation, settle
from orchestrator.ledger.home_client import HomeClient
from orchestrator.ledger.lease import Lease, here
from orchestrator.ledger.store_version import LEDGER_TAG, LEDGER_VERSION
from orchestrator.planning.request import SweepRequest
from orchestrator.services import recovery, sweeps
from orchestrator.services.jobs import artifact_uri, find_job
from orchestrator.settings import Settings
from schemas.errors import StoreError
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer, JobResult
from schemas.sweep import SweepSpec
from tests.support.doubles import Listener, ScriptedPool, metrics
from workers.checkpoints.layout import attempt_folder
from workers.files import sha256_of
from workers.tracking.final_checkpoint import FOLDER
from workers.tracking.job_log import log_path
from workers.tracking.run_log import FILTERS_FILE, METRICS_FILE, SPEC_FILE

REQUEST = SweepRequest(
    sweep=SweepSpec(grid="smoke"), name="base", categories=("cat",), backbones=("alexnet",),
    sets={"weights.source": "random"}, variants=("ordinary",),
)  # fmt: skip
OPTIONS = ["--grid", "smoke", "--name", "base", "--category", "cat", "--backbone", "alexnet", "--set"]
PLAN = ["plan", *OPTIONS, "weights.source=random", "--variant", "ordinary"]


class Home(NamedTuple):
    """A home with one sweep of one finished job."""

    settings: Settings
    key: str

    @property
    def root(self) -> Path:
        return self.settings.root

    def at(self, root: Path) -> Home:
        return Home(Settings.model_validate({"home": root}), self.key)

    def moved(self, name: str = "elsewhere") -> Home:
        place = self.root.with_name(f"{self.root.name}-{name}")
        self.root.rename(place)
        return self.at(place)

    def copied(self, name: str = "copy") -> Home:
        place = self.root.with_name(f"{self.root.name}-{name}")
        shutil.copytree(self.root, place, symlinks=True)
        return self.at(place)

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.settings.store_uri)

    @property
    def experiment_id(self) -> str:
        (found,) = [e for e in self.client.search_experiments(ViewType.ALL) if LEDGER_TAG in e.tags]
        return str(found.experiment_id)

    @property
    def recorded(self) -> str:
        """What MLflow has recorded of this home, as one text."""
        experiment = self.client.get_experiment(self.experiment_id)
        runs = self.client.search_runs([self.experiment_id])
        return " ".join([experiment.artifact_location, *(run.info.artifact_uri for run in runs)])

    @property
    def kept(self) -> Path:
        """Folder of the job's run that holds the final checkpoint."""
        return self.root / "artifacts" / find_job(self.settings, self.key).run_id / "artifacts" / FOLDER

    def files(self) -> dict[str, bytes]:
        """Every path of the home with its content, but not what SQLite keeps while this process has it open."""
        paths = (path for path in self.root.rglob("*") if not path.name.startswith("mlflow.db-"))
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}

    def resume(self) -> ScriptedPool:
        """Resume the sweep and return the pool, which has what was started."""
        pool = ScriptedPool()
        assert sweeps.resume_sweep(self.settings, "base", Listener(), open_pool=lambda *_: pool).is_complete
        return pool


@pytest.fixture
def home(new_home: Callable[[], Settings]) -> Home:
    settings = new_home()
    assert settings.root.parent.name.startswith("pytest-")
    sweeps.run_sweep(settings, REQUEST, Listener(), workers=1, open_pool=lambda *_: ScriptedPool())
    ledger, (record,) = opening.open_ledger(settings), opening.open_ledger(settings).jobs().values()
    folder = attempt_folder(settings.checkpoint_dir, record.key, 1)
    folder.mkdir(parents=True)
    file = folder / "final.pt"
    file.write_bytes(b"weights")
    client = store.open_client(settings)
    for name in (SPEC_FILE, METRICS_FILE, FILTERS_FILE):
        client.log_text(record.run_id, "{}", name)
    client.log_artifact(record.run_id, str(file), FOLDER)
    pointer = CheckpointPointer(path=str(file), epoch=1, sha256=sha256_of(file))
    result = JobResult(
        job_key=record.key,
        attempt=1,
        stop_reason=StopReason.FINISHED,
        metrics=metrics(chance_accuracy=0.5),
        checkpoint=pointer,
    )
    for now, state in enumerate((JobState.REQUEUED, JobState.QUEUED, JobState.RUNNING), start=10):
        ledger.move(record.key, state, float(now))
    ledger.move(record.key, JobState.SUCCEEDED, 20.0, reason=StopReason.FINISHED, result=result)
    log = log_path(settings.log_dir, record.key, 2)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("trained\n")
    return Home(settings, record.key)


def typed(home: Home, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run a command in this home and return its exit code."""
    monkeypatch.setenv("ORCH_HOME", str(home.root))
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def deleted(home: Home) -> list[Path]:
    """What `orch gc` deletes in this home."""
    return [path for one in recovery.gc(home.settings) if (path := Path(one.path)).is_relative_to(home.root)]


def checkpoint_of(home: Home) -> str:
    result = find_job(home.settings, home.key).result
    assert result is not None
    assert result.checkpoint is not None
    return result.checkpoint.path


READING = [
    ["status"], ["status", "base"], PLAN, ["show", "alexnet"], ["why", "base"], ["logs", "alexnet"], ["fsck"],
    ["gc", "--dry-run"], ["grid", "list"], ["data", "list"], ["weights", "list"],
]  # fmt: skip


@pytest.mark.parametrize("place", ["home", "moved", "copy", "nowhere"])
def test_reading_commands_create_and_change_nothing(
    home: Home, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    original = home
    home = {"home": lambda: home, "moved": home.moved, "copy": home.copied, "nowhere": lambda: home.at(tmp_path / "x")}[
        place
    ]()
    before, of_original = home.files(), original.files()
    for words in READING:
        code = typed(home, monkeypatch, *words)
        assert home.files() == before, words
        if place != "nowhere":
            assert code == 0, (words, capsys.readouterr().err)
    assert original.files() == of_original
    assert list(tmp_path.iterdir()) == []
    assert home.root.exists() == (place != "nowhere")


def test_a_moved_home_is_in_order_and_nothing_finished_runs_again(home: Home) -> None:
    moved = home.moved()
    assert recovery.fsck(moved.settings).found == ()
    assert checkpoint_of(moved).startswith(f"{moved.root}/checkpoints/")
    assert artifact_uri(moved.settings, find_job(moved.settings, moved.key)).startswith(moved.root.as_uri())
    assert str(home.root) in moved.recorded  # as reading writes nothing
    assert moved.resume().orders == []
    spare = attempt_folder(moved.settings.checkpoint_dir, moved.key, 1) / "final.pt"
    assert deleted(moved) == [spare]  # the second copy of an earlier version
    assert f"{home.root}/" not in moved.recorded  # so that MLflow's own UI finds the files
    assert recovery.fsck(moved.settings, repair=True).found == ()
    assert (moved.root / "checkpoints" / moved.key).is_dir()
    assert not home.root.exists()


def test_a_home_that_moves_again_and_back_is_found_each_time(home: Home) -> None:
    first = home.moved("first")
    settle(first.settings)
    second = first.moved("second")
    assert checkpoint_of(second).startswith(f"{second.root}/")
    settle(second.settings)
    second.root.rename(home.root)
    back = home
    settle(back.settings)
    assert recovery.fsck(back.settings).found == ()
    assert str(back.root) in back.recorded
    assert "-first" not in back.recorded


def test_a_final_checkpoint_that_only_its_run_has_moves_with_its_home(home: Home) -> None:
    ledger, record = opening.open_ledger(home.settings), find_job(home.settings, home.key)
    assert record.result is not None
    assert record.result.checkpoint is not None
    (kept,) = home.kept.iterdir()
    pointer = record.result.checkpoint.model_copy(update={"path": str(kept)})
    for now, state in enumerate((JobState.REQUEUED, JobState.QUEUED, JobState.RUNNING), start=30):
        ledger.move(home.key, state, float(now))
    result = record.result.model_copy(update={"checkpoint": pointer})
    ledger.move(home.key, JobState.SUCCEEDED, 40.0, reason=StopReason.FINISHED, result=result)
    shutil.rmtree(home.settings.checkpoint_dir / home.key)
    moved = home.moved()
    for _ in range(2):
        assert Path(checkpoint_of(moved)).read_bytes() == b"weights"
        assert recovery.fsck(moved.settings).found == ()
        settle(moved.settings)


def test_the_jobs_of_a_moved_home_log_where_it_is_now(home: Home) -> None:
    moved = home.moved()
    sweeps.run_sweep(
        moved.settings, REQUEST.__class__(**{**vars(REQUEST), "name": "more", "variants": ("interpretable",)}),
        Listener(), workers=1, open_pool=lambda *_: ScriptedPool(),
    )  # fmt: skip
    assert {path.parent for path in moved.root.parent.glob("*/artifacts/*")} >= {moved.root / "artifacts"}
    assert not home.root.exists()


def test_a_copy_gets_an_id_of_its_own_and_never_touches_the_original(home: Home) -> None:
    settle(home.settings)
    copy, before = home.copied(), home.files()
    (copy.root / "artifacts" / "mark").write_text("copy")
    assert checkpoint_of(copy).startswith(f"{copy.root}/")
    assert recovery.fsck(copy.settings).found == ()
    assert copy.resume().orders == []
    assert home.files() == before
    assert (copy.root / HOME_FILE).read_text() != (home.root / HOME_FILE).read_text()
    assert f"{home.root}/" not in copy.recorded
    shutil.rmtree(copy.root / "checkpoints" / copy.key)
    assert recovery.fsck(copy.settings).found == ()
    shutil.rmtree(copy.kept)
    (found,) = recovery.fsck(copy.settings).found
    assert "is missing" in found.finding.what  # the original's checkpoint is not taken for the copy's
    settle(home.settings)
    assert home.files() == before


def test_a_crash_while_a_copy_gets_its_id_is_made_good(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(home.settings)
    copy = home.copied()
    with monkeypatch.context() as context, suppress(KeyboardInterrupt):
        context.setattr("orchestrator.ledger.home._rewrite", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        settle(copy.settings)
    assert "copy_of" in (copy.root / HOME_FILE).read_text()
    assert checkpoint_of(copy).startswith(f"{copy.root}/")
    settle(copy.settings)
    assert "copy_of" not in (copy.root / HOME_FILE).read_text()
    assert recovery.fsck(copy.settings, repair=True).found == ()


def test_a_crash_before_a_copy_has_marked_all_of_its_folders_is_made_good(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(home.settings)
    copy = home.copied()
    with monkeypatch.context() as context, suppress(KeyboardInterrupt):
        context.setattr("orchestrator.ledger.home._write_ids", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        settle(copy.settings)
    (copy.root / "checkpoints" / MARKER).write_text(json.loads((copy.root / HOME_FILE).read_text())["id"])
    settle(copy.settings)  # the logs still bear the original's mark
    assert "copy_of" not in (copy.root / HOME_FILE).read_text()
    assert recovery.fsck(copy.settings).found == ()


def test_a_home_whose_recorded_place_cannot_be_seen_gets_an_id_of_its_own(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(home.settings)
    before, moved = (home.root / HOME_FILE).read_text(), home.moved()
    is_dir = Path.is_dir

    def hidden(path: Path) -> bool:
        if path == home.root:
            raise PermissionError(13, "Permission denied")
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", hidden)
    settle(moved.settings)
    assert (moved.root / HOME_FILE).read_text() != before
    assert moved.resume().orders == []


def test_a_home_is_not_rewritten_under_a_driver_that_uses_its_recorded_path(home: Home) -> None:
    settle(home.settings)
    lease = Lease(host=here(), pid=os.getpid(), since=time.time(), sign_at=time.time())
    opening.open_ledger(home.settings).set_lease("base", lease)
    moved = home.moved()
    recorded = moved.recorded
    with pytest.raises(StoreError, match=rf"process {os.getpid()} on .* uses this home as {home.root}"):
        settle(moved.settings)
    assert moved.recorded == recorded
    opening.open_ledger(moved.settings).set_lease("base", None)
    settle(moved.settings)
    assert f"{moved.root}/" in moved.recorded


def test_a_database_of_another_home_is_refused_by_every_command(
    home: Home, new_home: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settle(home.settings)
    other = Home(new_home(), "")
    settle(other.settings)
    with (
        closing(sqlite3.connect(home.root / "mlflow.db")) as one,
        closing(sqlite3.connect(other.root / "mlflow.db")) as two,
    ):
        one.backup(two)
    for words in (["status"], ["fsck"], ["fsck", "--repair"], ["gc"], ["resume", "base"], ["why", "base"]):
        assert typed(other, monkeypatch, *words) == 4
        assert "belongs to another home" in capsys.readouterr().err


def test_checkpoints_of_another_home_are_not_deleted(home: Home, new_home: Callable[[], Settings]) -> None:
    settle(home.settings)
    other = Home(new_home(), "")
    settle(other.settings)
    shutil.rmtree(other.root / "checkpoints")
    (other.root / "checkpoints").symlink_to(home.root / "checkpoints")
    for command in (recovery.gc, lambda settings: recovery.gc(settings, dry_run=True), settle):
        with pytest.raises(StoreError, match=r"checkpoints .* belongs to another home"):
            command(other.settings)
    assert (home.root / "checkpoints" / home.key).is_dir()


def test_a_copy_that_shares_the_checkpoints_of_the_original_is_refused(home: Home, tmp_path: Path) -> None:
    (home.root / "checkpoints").rename(tmp_path / "big-disk")
    (home.root / "checkpoints").symlink_to(tmp_path / "big-disk")
    settle(home.settings)
    copy = home.copied()
    with pytest.raises(StoreError, match=r"belongs to another home .* is a copy"):
        recovery.gc(copy.settings)
    recovery.gc(home.settings)
    assert (tmp_path / "big-disk" / home.key).is_dir()
    assert (tmp_path / "big-disk" / MARKER).is_file()


def test_a_renamed_experiment_is_found(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.client.rename_experiment(home.experiment_id, "my project")
    for words in READING:
        assert typed(home, monkeypatch, *words) == 0
    assert home.resume().orders == []
    names = [e.name for e in home.client.search_experiments(ViewType.ALL)]
    assert sorted(names) == ["Default", "my project"]


def test_a_deleted_experiment_is_refused_with_how_to_restore_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = home.experiment_id
    home.client.delete_experiment(number)
    before = home.files()
    for words in (
        ["status"], PLAN, ["why", "base"], ["fsck"], ["fsck", "--repair"], ["gc"], ["resume", "base"], ["ui"],
        ["requeue", "base", "--failed"],
    ):  # fmt: skip
        assert typed(home, monkeypatch, *words) == 4, words
        assert f"mlflow experiments restore --experiment-id {number}" in capsys.readouterr().err
    assert {path for path in home.files() if "checkpoints" in path} == {p for p in before if "checkpoints" in p}
    home.client.restore_experiment(number)
    assert recovery.fsck(home.settings).found == ()
    assert home.resume().orders == []


def test_two_experiments_are_never_guessed_between(home: Home) -> None:
    home.client.create_experiment("second", tags={LEDGER_TAG: LEDGER_VERSION})
    for command in (sweeps.list_sweeps, recovery.gc, recovery.fsck, opening.open_ledger):
        with pytest.raises(StoreError, match=r"has 2 experiments of orch: 'orch' \(id \d\), 'second'"):
            command(home.settings)
    assert (home.root / "checkpoints" / home.key).is_dir()


def test_jobs_that_were_deleted_and_can_be_restored_keep_their_files(home: Home) -> None:
    for run in home.client.search_runs([home.experiment_id]):
        home.client.delete_run(run.info.run_id)
    assert deleted(home) == []
    assert recovery.fsck(home.settings).found == ()
    other = home.client.create_experiment("anew", tags={LEDGER_TAG: LEDGER_VERSION})
    home.client.delete_experiment("1" if other != "1" else "2")
    assert deleted(home) == []
    assert (home.root / "checkpoints" / home.key).is_dir()


def test_a_store_without_a_sweep_is_no_reason_to_delete(home: Home) -> None:
    with store.reaching(""):
        home.client.delete_experiment_tag(home.experiment_id, LEDGER_TAG)
        home.client.rename_experiment("1", "foreign")
    for command in (recovery.gc, recovery.fsck):
        with pytest.raises(StoreError, match="has no experiment of orch"):
            command(home.settings)
    assert sweeps.list_sweeps(home.settings) == []


def test_no_job_runs_again_where_all_results_are_gone(home: Home) -> None:
    """Artifacts on a disk that is not mounted look like lost results."""
    (home.root / "artifacts").rename(home.root / "unmounted")
    (left,) = recovery.fsck(home.settings, repair=True).left
    assert left.finding.what == "its run has no file, like that of every other succeeded job"
    assert "is probably not there" in left.finding.advice
    assert home.resume().orders == []
    shutil.rmtree(home.root / "artifacts", ignore_errors=True)
    (home.root / "unmounted").rename(home.root / "artifacts")
    assert recovery.fsck(home.settings, repair=True).found == ()


def test_files_of_a_home_with_two_stores_are_not_deleted(home: Home, tmp_path: Path) -> None:
    shared = Settings.model_validate({"home": home.root, "tracking_uri": f"{home.settings.store_uri}"})
    with pytest.raises(StoreError, match="has its own store"):
        recovery.gc(shared)
    assert (home.root / "checkpoints" / home.key).is_dir()


def test_a_link_to_a_home_is_that_home(home: Home, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home.root)
    linked = home.at(tmp_path / "link")
    settle(home.settings)
    before = home.files()
    settle(linked.settings)
    assert linked.settings.lock_dir == home.settings.lock_dir
    assert home.files() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a process as another user")
def test_the_status_of_a_home_that_cannot_be_written_is_shown(home: Home) -> None:
    for path in [home.root, *home.root.parents][:3]:
        path.chmod(0o755)
    for path in home.root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = home.files()
    twice = (
        "import os; from orchestrator.cli.main import main\ntry: main(['status', 'base'])\nexcept SystemExit: pass\n"
    )
    code = f"{twice}os.setuid(65534); main(['status', 'base'])"
    environment = {**os.environ, "ORCH_HOME": str(home.root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("1 done")) == (0, 2), done.stderr
    assert home.files() == before


def test_paths_are_found_only_below_folders_of_a_home(tmp_path: Path) -> None:
    here = Relocation(Path("/x/.orch"), (Path("/y"), Path("/x")))
    for recorded, now in [
        ("/x/checkpoints/k/a.pt", "/x/.orch/checkpoints/k/a.pt"),
        ("/y/weights/w.pt", "/x/.orch/weights/w.pt"),
        ("/x/.orch/checkpoints/k", "/x/.orch/checkpoints/k"),
        ("/x/photographs/cat.jpg", "/x/photographs/cat.jpg"),
        ("/xy/checkpoints/k", "/xy/checkpoints/k"),
        ("checkpoints/k", "checkpoints/k"),
        ("", ""),
    ]:
        assert here.path(recorded) == now
    assert here.uri("file:///x/artifacts/%C3%BC%20%23/r") == "file:///x/.orch/artifacts/%C3%BC%20%23/r"
    assert here.uri("/y/artifacts/r") == "/x/.orch/artifacts/r"
    for elsewhere in ("s3://bucket/x/artifacts", "mlflow-artifacts:/x", "file://host/x/artifacts/r"):
        assert here.uri(elsewhere) == elsewhere
    assert here.fields({"weights": {"path": "/y/weights/w.pt"}, "n": [1, "/x/logs"]}) == {
        "weights": {"path": "/x/.orch/weights/w.pt"}, "n": [1, "/x/.orch/logs"],
    }  # fmt: skip


def test_a_persons_description_outlives_a_resume(home: Home) -> None:
    ledger = opening.open_ledger(home.settings)
    record = ledger.sweep("base")
    assert record is not None
    client = HomeClient(home.settings.store_uri, Relocation(home.root))
    own = client.get_run(record.run_id).data.tags["mlflow.note.content"]
    client.set_tag(record.run_id, "mlflow.note.content", f"Lab book, page 12.\n\n{own}")
    home.resume()
    text = client.get_run(record.run_id).data.tags["mlflow.note.content"]
    assert text == f"Lab book, page 12.\n\n{own}"
