"""A real Ray with one worker that runs a pack: it is killed, and all its jobs go on from their checkpoints."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from tests.orchestrator.execution.test_real_sweep import Desk, end, wait_until, workers_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SWEEP = """
name: packs
base:
  backbone: alexnet
  model: {input_size: 64, width: 0.05, fc_width: 16, dropout: 0.5}
  weights: {source: random}
  data: {train_per_category: 8, test_per_category: 4}
  train: {epochs: 60, batch_size: 8, freeze_below: top_conv}
axes:
  category: [voc_part/cat]
  variant: [ordinary]
  seed: [0, 1, 2]
resources: {workers: 1, pack: PACK}
profile: laptop
"""
TOLERANCE = 1e-3


def run_calmly(folder: Path, pack: str) -> Desk:
    desk = Desk(folder)
    desk.file.write_text(SWEEP.replace("PACK", pack))
    code, _, error = desk.run("sweep", str(desk.file))
    assert code == 0, error
    return desk


def weights_of(desk: Desk) -> dict[str, dict[str, torch.Tensor]]:
    """Return the final weights of each job, by key."""
    files = desk.home.glob("artifacts/*/artifacts/checkpoint/*.pt")
    states = [torch.load(file, weights_only=True) for file in files]
    return {state["job_key"]: state["network"] for state in states}


def test_a_killed_pack_goes_on_from_its_checkpoints_and_ends_like_jobs_alone(tmp_path: Path) -> None:
    alone = run_calmly(tmp_path / "alone", "off")
    desk = Desk(tmp_path / "packed")
    desk.file.write_text(SWEEP.replace("PACK", "2"))
    driver = desk.start("sweep", str(desk.file))
    try:
        logs = "logs/*/attempt-1.log"
        wait_until(lambda: sum("epoch 2/60" in log.read_text() for log in desk.home.glob(logs)) >= 2, driver)
        (worker,) = workers_of(driver)
        worker.kill()
        _, error = driver.communicate(timeout=300)
    finally:
        if driver.poll() is None:
            end(driver)
    assert driver.returncode == 0, error
    assert set(desk.tags("orch.state")) == {"succeeded"}
    assert sorted(desk.tags("orch.attempt")) == ["1", "2", "2"]
    resumed = [log.read_text() for log in desk.home.glob("logs/*/attempt-2.log")]
    assert all("resuming after epoch" in log for log in resumed)
    assert any("training as one network" in log.read_text() for log in desk.home.glob("logs/*/*.log"))
    assert not any("training as one network" in log.read_text() for log in alone.home.glob("logs/*/*.log"))

    expected, found = weights_of(alone), weights_of(desk)
    assert found.keys() == expected.keys()
    assert len(found) == 3
    for key, state in expected.items():
        torch.testing.assert_close(found[key], state, rtol=TOLERANCE, atol=TOLERANCE)
    with closing(sqlite3.connect(desk.home / "mlflow.db")) as database:
        query = "SELECT COUNT(*) FROM metrics WHERE key = 'train/task_loss' GROUP BY run_uuid, step"
        counts = [count for (count,) in database.execute(query).fetchall()]
    assert counts == [1] * (3 * 60)
