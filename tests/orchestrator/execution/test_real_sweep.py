"""Real Ray, MLflow and tiny trainings: a worker is killed, the sweep is interrupted, resumed and repeated."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from orchestrator.execution.resources import local_machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
PATIENCE = 180.0
MAIN = ("-m", "orchestrator.cli.main")
EPOCHS = 700
SWEEP = """
name: tiny
base:
  backbone: alexnet
  model: {input_size: 64, width: 0.05, fc_width: 16}
  data: {train_per_category: 8, test_per_category: 4}
  weights: {epochs: 1, data: {categories: [voc-cat, voc-dog, voc-cow], train_per_category: 4, test_per_category: 2}}
  train: {epochs: EPOCHS, batch_size: 8}
axes:
  category: [voc_part/cat, cub200/bird]
  variant: [ordinary, interpretable]
include:
  - {category: voc_part/dog, variant: ordinary, weights: {source: file, path: BAD}}
profile: laptop
"""


ONE_JOB = """
base:
  weights: {source: random}
  data: {train_per_category: 8, test_per_category: 4}
  train: {epochs: 1, batch_size: 8}
  model: {input_size: 64, width: 0.05, fc_width: 16}
axes:
  category: [voc_part/cat]
  backbone: [alexnet]
  variant: [ordinary]
"""


TWO_SHAPES = """
base:
  weights: {source: random}
  data: {train_per_category: 8, test_per_category: 4}
  train: {epochs: 2, batch_size: 8}
  model: {input_size: 64, width: 0.05, fc_width: 16}
axes:
  category: [voc_part/cat, cub200/bird]
  backbone: [alexnet, vgg_m]
  variant: [ordinary]
resources:
  memory_gb_per_worker: 0.5
  by_backbone: {vgg_m: {cpus_per_worker: 2}}
"""

OTHER_CODE = """
import workers.code_home
own = workers.code_home.code_home()
workers.code_home.code_home = lambda: own.model_copy(update={"folders": ("/elsewhere",), "sha256": "0"})
from orchestrator.cli.main import main
main()
"""
"""A driver that has other code than its workers will find."""


class Desk:
    """A terminal with a separate ORCH_HOME."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.home = folder / "home"
        self.file = folder / "tiny.yaml"
        bad = folder / "bad.pt"
        bad.write_bytes(b"these are no weights")
        self.file.write_text(SWEEP.replace("BAD", str(bad)).replace("EPOCHS", str(EPOCHS)))

    def start(self, *words: str, program: tuple[str, ...] = MAIN, **variables: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "ORCH_HOME": str(self.home), "OMP_NUM_THREADS": "1", **variables}
        return subprocess.Popen(
            [sys.executable, *program, *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str) -> tuple[int, Any, str]:
        process = self.start(*words, "--json")
        out, err = process.communicate(timeout=300)
        return process.returncode, json.loads(out) if out else None, err

    def curves(self) -> list[tuple[str, int, float]]:
        """Return the logged points of training, of all jobs."""
        with closing(sqlite3.connect(self.home / "mlflow.db", timeout=30)) as database:
            query = "SELECT key, step, value FROM metrics WHERE key LIKE 'train/%_loss' ORDER BY 1, 2"
            return database.execute(query).fetchall()

    def weights(self) -> dict[str, Any]:
        """Return the final weights of the only job."""
        (file,) = self.home.glob("artifacts/*/artifacts/checkpoint/*.pt")
        state: dict[str, Any] = torch.load(file, weights_only=True)["network"]
        return state

    def tags(self, name: str) -> list[str]:
        """Return the present values of a tag, of all jobs."""
        if not (self.home / "mlflow.db").exists():
            return []
        with closing(sqlite3.connect(self.home / "mlflow.db", timeout=30)) as database:
            jobs = "SELECT run_uuid FROM tags WHERE key = 'orch.job_key'"
            query = f"SELECT value FROM tags WHERE key = ? AND run_uuid IN ({jobs})"
            return [row[0] for row in database.execute(query, (name,))]

    def statuses(self) -> dict[str, str]:
        with closing(sqlite3.connect(self.home / "mlflow.db", timeout=30)) as database:
            return dict(database.execute("SELECT name, status FROM runs").fetchall())


def wait_until(holds: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and close its pipes, which its children may hold open."""
    process.kill()
    with process:
        pass


def workers_of(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(driver.pid).children(recursive=True)
    return [child for child in children if "ray::JobWorker" in " ".join(child.cmdline())]


def busy_worker(driver: subprocess.Popen[str]) -> psutil.Process | None:
    for child in psutil.Process(driver.pid).children(recursive=True):
        try:
            if child.name().startswith("ray::JobWorker.") or "ray::JobWorker.run" in " ".join(child.cmdline()):
                return child
        except psutil.NoSuchProcess:
            continue
    return None


def training_worker(desk: Desk) -> psutil.Process | None:
    """Return the worker of a job of a category that has saved a checkpoint and trains."""
    for log in desk.home.glob("logs/*/attempt-1.log"):
        text = log.read_text()
        if f"epoch 2/{EPOCHS}:" in text and "measuring" not in text:
            return psutil.Process(int(re.findall(r"in process (\d+)", text)[-1]))
    return None


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run one sweep: lose a worker, interrupt, resume, repeat the command. The tests check what each step left."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    seen: dict[str, Any] = {"desk": desk}
    driver = desk.start("sweep", str(desk.file), "--workers", "2", "--json")
    try:
        wait_until(lambda: training_worker(desk), driver)
        worker = training_worker(desk)
        assert worker is not None
        worker.send_signal(signal.SIGKILL)
        wait_until(lambda: "2" in desk.tags("orch.attempt"), driver)
        seen["second_driver"] = desk.run("sweep", str(desk.file))
        ray_processes = psutil.Process(driver.pid).children(recursive=True)
        os.killpg(driver.pid, signal.SIGINT)  # like a terminal: to the driver and all its children
        seen["interrupted"] = (*driver.communicate(timeout=120), driver.returncode)
        _, seen["left_alive"] = psutil.wait_procs(ray_processes, timeout=20)
    finally:
        if driver.poll() is None:
            end(driver)
    seen["after_interrupt"] = desk.tags("orch.state")
    driver = desk.start("resume", "tiny")
    try:
        wait_until(lambda: "running" in desk.tags("orch.state") and busy_worker(driver), driver)
        driver.terminate()
        seen["terminated"] = (*driver.communicate(timeout=120), driver.returncode)
    finally:
        if driver.poll() is None:
            end(driver)
    seen["after_sigterm"] = desk.tags("orch.state")
    seen["resumed"] = desk.run("resume", "tiny")
    seen["attempts"] = sorted(desk.tags("orch.attempt"))
    seen["again"] = desk.run("sweep", str(desk.file))
    seen["attempts_again"] = sorted(desk.tags("orch.attempt"))
    return seen


def test_a_second_driver_is_refused_with_who_drives(story: dict[str, Any]) -> None:
    code, _, error = story["second_driver"]
    assert code == 6
    assert "already driven by process" in error


def test_ctrl_c_stops_in_order_and_says_how_to_go_on(story: dict[str, Any]) -> None:
    _, error, code = story["interrupted"]
    assert code == 130, error
    assert "Go on with: orch resume tiny" in error
    assert "running" not in story["after_interrupt"]
    assert story["left_alive"] == []


def test_what_a_program_reads_is_json_also_when_a_worker_was_killed(story: dict[str, Any]) -> None:
    out, error, _ = story["interrupted"]
    report = json.loads(out)
    assert (report["interrupted"], report["is_complete"], report["paused_by"]) == (True, False, None)
    assert report["ran"] >= 2
    assert "(raylet)" not in error


def test_sigterm_stops_in_order_too(story: dict[str, Any]) -> None:
    _, error, code = story["terminated"]
    assert code == 130, error
    assert "Stopping: running jobs save a checkpoint" in error
    assert "running" not in story["after_sigterm"]


def test_resume_finishes_everything_but_what_cannot_work(story: dict[str, Any]) -> None:
    code, report, error = story["resumed"]
    assert report["counts"] == {"done": 5, "failed": 1}, error
    assert code == 1
    assert report["table"]["failed"][0]["job"] == "voc-dog alexnet ordinary"
    assert {row["category"] for row in report["table"]["rows"]} == {"voc-cat", "cub-bird"}


def test_there_is_one_run_per_job_and_its_status_is_true(story: dict[str, Any]) -> None:
    desk: Desk = story["desk"]
    assert len(desk.tags("orch.job_key")) == len(set(desk.tags("orch.job_key"))) == 6
    statuses = desk.statuses()
    assert statuses.pop("tiny") == "FAILED"
    assert statuses.pop("voc-dog alexnet ordinary") == "FAILED"
    assert set(statuses.values()) == {"FINISHED"}


def test_the_killed_job_went_on_in_another_attempt(story: dict[str, Any]) -> None:
    assert max(story["attempts"]) >= "2"


def test_typing_the_command_again_runs_nothing(story: dict[str, Any]) -> None:
    code, report, error = story["again"]
    assert (code, report["ran"]) == (1, 0)
    assert "nothing to run" in error
    assert story["attempts_again"] == story["attempts"]


def test_no_step_of_a_curve_was_logged_twice(story: dict[str, Any]) -> None:
    desk: Desk = story["desk"]
    with closing(sqlite3.connect(desk.home / "mlflow.db")) as database:
        query = "SELECT run_uuid, step, COUNT(*) FROM metrics WHERE key = 'train/task_loss' GROUP BY 1, 2"
        counts = database.execute(query).fetchall()
    assert counts
    assert {count for _, _, count in counts} == {1}


def test_the_commands_that_look_agree(story: dict[str, Any]) -> None:
    desk: Desk = story["desk"]
    _, sweeps, _ = desk.run("status")
    _, one, _ = desk.run("status", "tiny")
    _, job, _ = desk.run("show", "cub-bird alexnet interpretable")
    assert [(s["sweep"], s["counts"], s["is_driven"]) for s in sweeps] == [("tiny", {"done": 5, "failed": 1}, False)]
    assert {j["title"]: j["status"] for j in one["jobs"]}["voc-dog alexnet ordinary"] == "failed"
    assert (job["state"], job["spec"]["model"]["variant"]) == ("succeeded", "interpretable")
    assert Path(job["checkpoint"]["path"]).exists()
    assert Path(job["artifacts"].removeprefix("file://")).is_dir()


def test_changing_the_file_under_the_same_name_shows_the_difference(story: dict[str, Any]) -> None:
    desk: Desk = story["desk"]
    code, _, error = desk.run("sweep", str(desk.file), "--set", "train.epochs=41")
    assert code == 2
    assert f"train.epochs {EPOCHS} -> 41" in error


def test_a_job_that_finished_after_its_driver_had_hung_is_not_run_again(tmp_path: Path) -> None:
    """The driver is stopped while the job runs, and killed when the worker has written how it ended."""
    desk = Desk(tmp_path)
    desk.file.write_text(ONE_JOB)
    driver = desk.start("sweep", str(desk.file), "--name", "one")
    try:
        wait_until(lambda: list(desk.home.glob("checkpoints/*/attempt-1/holder.json")), driver)
        driver.send_signal(signal.SIGSTOP)
        wait_until(lambda: list(desk.home.glob("checkpoints/*/attempt-1/result.json")), driver)
        children = psutil.Process(driver.pid).children(recursive=True)
    finally:
        end(driver)
    psutil.wait_procs(children, timeout=30)
    assert desk.tags("orch.state") == ["running"]
    code, answer, error = desk.run("resume", "one")
    assert (code, answer["counts"]) == (0, {"done": 1}), error
    assert (desk.tags("orch.state"), desk.tags("orch.attempt")) == (["succeeded"], ["1"])


def test_a_worker_that_gets_sigterm_saves_first_and_its_job_goes_on_exactly(tmp_path: Path) -> None:
    calm, desk = Desk(tmp_path / "calm"), Desk(tmp_path / "struck")
    for one in (calm, desk):
        one.file.write_text(
            ONE_JOB.replace("epochs: 1", "epochs: 120, checkpoint_every: 100").replace("category: 8", "category: 40")
        )
    code, _, error = calm.run("sweep", str(calm.file), "--name", "one")
    assert code == 0, error
    driver = desk.start("sweep", str(desk.file), "--name", "one")
    try:
        wait_until(lambda: any("epoch 2/120" in log.read_text() for log in desk.home.glob("logs/*/*-1.log")), driver)
        (worker,) = workers_of(driver)
        worker.terminate()
        _, error = driver.communicate(timeout=300)
    finally:
        if driver.poll() is None:
            end(driver)
    assert driver.returncode == 0, error
    assert (desk.tags("orch.state"), desk.tags("orch.attempt")) == (["succeeded"], ["2"])
    (told,) = desk.home.glob("artifacts/**/results/attempt-1.json")
    first = json.loads(told.read_text())
    assert first["stop_reason"] == "preempted"
    (log,) = desk.home.glob("logs/*/attempt-2.log")
    assert f"resuming after epoch {first['epochs_done']}" in log.read_text()
    assert 0 < first["epochs_done"] < 100  # before the first checkpoint that was due
    assert desk.curves() == calm.curves()
    found, expected = desk.weights(), calm.weights()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.skipif(local_machine().cores < 2, reason="a worker of two cores")
def test_backbones_that_need_workers_of_different_shapes_share_a_machine(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.file.write_text(TWO_SHAPES)
    code, answer, error = desk.run("sweep", str(desk.file), "--name", "shapes")
    assert (code, answer["counts"]) == (0, {"done": 4}), error
    assert desk.tags("orch.attempt") == ["1"] * 4


@pytest.mark.parametrize(("check", "code"), [("warn", 0), ("refuse", 5)])
def test_workers_of_other_code_are_warned_of_once_or_refused(tmp_path: Path, check: str, code: int) -> None:
    desk = Desk(tmp_path)
    desk.file.write_text(ONE_JOB.replace("[voc_part/cat]", "[voc_part/cat, cub200/bird]"))
    driver = desk.start(
        "sweep", str(desk.file), "--name", "other", "--workers", "1", program=("-c", OTHER_CODE), ORCH_CODE_CHECK=check
    )
    _, error = driver.communicate(timeout=300)
    assert driver.returncode == code, error
    assert error.count("its driver runs that in /elsewhere, whose files differ") == 1, error
    if check == "warn":
        assert desk.tags("orch.state") == ["succeeded"] * 2
    else:
        assert "Install the same orch on every machine of the cluster." in error
        assert "Then run: orch resume other" in error
        assert "running" not in desk.tags("orch.state")
        assert "1" not in desk.tags("orch.attempt")
