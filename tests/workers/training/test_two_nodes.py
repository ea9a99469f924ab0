"""A job that is killed on one machine goes on on another from the object store, and ends with the same bits."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from schemas.job import JobSpec
from schemas.lifecycle import StopReason
from schemas.order import WorkOrder
from schemas.results import JobResult
from tests.support.desk import Desk
from tests.support.lives import live, start, wait_until_stopped
from tests.support.object_store import BUCKET, ObjectStore
from tests.support.seaweed import SeaweedFS, weed
from tests.support.toy import toy_spec
from workers.checkpoints.loading import load_checkpoint
from workers.checkpoints.shared import read_shared_pointer, shared_objects
from workers.objects.base import open_objects

if TYPE_CHECKING:
    from tests.conftest import Store

pytestmark = pytest.mark.slow
EPOCHS, STEPS, KILLS = 9, 12, 3


@pytest.fixture(params=["moto", "seaweed"])
def environment(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    if request.param == "seaweed" and weed() is None:
        pytest.skip("SeaweedFS is not installed")
    server = SeaweedFS(tmp_path / "seaweed") if request.param == "seaweed" else ObjectStore()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server.environment
    server.stop()


class Cluster:
    """Two machines with disks of their own, and what they share."""

    def __init__(self, desk: Desk, spec: JobSpec, environment: dict[str, str]) -> None:
        self.desk, self.spec, self.environment = desk, spec, environment
        self.uri = f"s3://{BUCKET}/{uuid4().hex}"

    def order(self, attempt: int) -> WorkOrder:
        """Return the order for an attempt on the other machine than that of the attempt before."""
        home = self.desk.folder / f"node-{attempt % 2}"
        return self.desk.order(
            self.spec, attempt, object_store=self.uri, checkpoint_dir=str(home / "checkpoints"),
            log_dir=str(home / "logs"), store_patience=60.0,
        )  # fmt: skip

    def published(self) -> int:
        """Return the newest epoch that the latest attempt has published."""
        objects = open_objects(self.uri)
        attempts = {one.attempt for one in shared_objects(objects, self.spec.key) if one.name == "newest.json"}
        pointer = read_shared_pointer(objects, self.spec.key, max(attempts)) if attempts else None
        return pointer.checkpoints[0].epoch if pointer and pointer.checkpoints else 0

    def log(self, attempt: int) -> str:
        return (
            self.desk.folder / f"node-{attempt % 2}" / "logs" / self.spec.key / f"attempt-{attempt}.log"
        ).read_text()

    def begun_at(self, attempt: int) -> int:
        """Return the epoch after which an attempt went on."""
        found = re.search(r"resuming after epoch (\d+)", self.log(attempt))
        return int(found[1]) if found else 0

    def reached(self, attempt: int) -> int:
        """Return the last epoch that an attempt has finished."""
        return max(map(int, re.findall(r"epoch (\d+)/", self.log(attempt))), default=0)


def weights(result: JobResult | None, spec: JobSpec) -> dict[str, Any]:
    assert result is not None
    assert (result.stop_reason, result.failure) == (StopReason.FINISHED, None)
    assert result.checkpoint is not None
    state = load_checkpoint(result.checkpoint, spec.key)
    return {name: value.numpy().tobytes() for name, value in state["network"].items()}


@pytest.fixture
def spec() -> JobSpec:
    return toy_spec(
        model__dropout=0.5, train__epochs=EPOCHS,
        data={"categories": ("voc_part/cat",), "train_per_category": 48, "test_per_category": 6},
    )  # fmt: skip


@pytest.fixture
def new_desk(store: Store, new_run: Callable[[], str], tmp_path: Path) -> Callable[[str], Desk]:
    return lambda name: Desk(store, new_run(), tmp_path / name, tmp_path / "cache")


def test_killed_at_random_on_one_machine_and_then_the_other(
    spec: JobSpec, new_desk: Callable[[str], Desk], environment: dict[str, str]
) -> None:
    calm = live(new_desk("calm").order(spec, 1), None)
    cluster = Cluster(new_desk("stormy"), spec, environment)
    chance = random.Random(11)
    lost = []
    for attempt in range(1, KILLS + 1):
        step = chance.randrange(STEPS, 2 * STEPS + 4)
        live(cluster.order(attempt), ("training", step), environment=environment)
        kept = cluster.published()
        assert cluster.begun_at(attempt) <= kept
        lost.append(cluster.reached(attempt) - kept)
    ended = live(cluster.order(KILLS + 1), None, environment=environment)
    assert cluster.begun_at(KILLS + 1) == kept
    print("epochs lost at each kill:", lost)
    assert max(lost) <= 1
    assert weights(ended, spec) == weights(calm, spec)
    assert calm is not None
    assert ended is not None
    assert ended.metrics == calm.metrics
    steps = [step for step, _ in cluster.desk.points("train/task_loss")]
    assert steps == list(range(1, EPOCHS + 1))
    assert {one.name for one in shared_objects(open_objects(cluster.uri))} == {"result.json"}
    assert len(cluster.desk.store.client.list_artifacts(cluster.desk.run_id, "checkpoint")) == 1
    assert list((cluster.desk.folder / f"node-{(KILLS + 1) % 2}").rglob("*.pt")) == []


@pytest.mark.parametrize("environment", ["moto"], indirect=True)
def test_an_attempt_that_slept_ends_and_changes_nothing_for_its_successor(
    spec: JobSpec, new_desk: Callable[[str], Desk], environment: dict[str, str]
) -> None:
    calm = live(new_desk("calm").order(spec, 1), None)
    cluster = Cluster(new_desk("stormy"), spec, environment)
    sleeper, result_file = start(cluster.order(1), ("training", 2 * STEPS + 3), signal.SIGSTOP, environment=environment)
    assert sleeper.pid is not None
    wait_until_stopped(sleeper)
    # Two epochs, of which the last may not be published yet.
    live(cluster.order(2), ("training", 2 * STEPS + 2), environment=environment)
    kept = cluster.published()
    os.kill(sleeper.pid, signal.SIGCONT)
    sleeper.join(120)
    slept = JobResult.model_validate_json(result_file.read_text())
    assert slept.stop_reason is StopReason.SUPERSEDED
    assert cluster.published() == kept >= 2
    ended = live(cluster.order(3), None, environment=environment)
    assert cluster.begun_at(3) == max(kept, cluster.reached(1))  # the sleeper has saved on this machine's disk too
    assert weights(ended, spec) == weights(calm, spec)
