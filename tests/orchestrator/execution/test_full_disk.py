"""A full disk ends what runs with a clear message, and damages nothing that is on it."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.ledger import opening
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.request import SweepRequest
from orchestrator.recovery.diagnosis import find_causes
from orchestrator.services import sweeps
from orchestrator.settings import Settings
from schemas.errors import DiskFull, StoreError, StoreUnreachable
from schemas.lifecycle import JobState, StopReason
from schemas.sweep import SweepSpec
from tests.support.doubles import Listener, ScriptedPool, plan_of
from workers.checkpoints.loading import load_checkpoint
from workers.checkpoints.store import CheckpointStore

SWEEP = plan_of("smoke", categories=("cat",), backbones=("alexnet",))
PLAN = StoredPlan.of("s", "laptop", None, SWEEP.jobs, SWEEP.upstream_keys, SWEEP.resources)


@contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    """Imitate a full disk by a limit on the size of files: a write beyond it raises."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_it_and_nothing_half_written(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "k")
    kept = store.save(1, {"network": {"w": torch.zeros(10)}})
    before = sorted(path.name for path in store.folder.iterdir())
    with no_file_grows_beyond(50_000), pytest.raises(StoreError, match=r"cannot be written in .*Make room"):
        store.save(2, {"network": {"w": torch.zeros(100_000)}})
    assert sorted(path.name for path in store.folder.iterdir()) == before
    assert store.newest() == kept
    assert load_checkpoint(kept, "k")["epoch"] == 1
    assert store.save(2, {"network": {"w": torch.zeros(100_000)}}).epoch == 2


def test_a_sweep_that_cannot_be_claimed_is_not_claimed(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with (
        no_file_grows_beyond(10),
        pytest.raises(StoreError, match=r"cannot be claimed .*Make room"),
        locks.sweep("s", 0.0),
    ):
        pass
    with Locks(tmp_path).sweep("s", 0.0) as lease:
        assert lease.since == 0.0


def test_a_sweep_whose_jobs_find_no_room_is_stopped_and_told_what_to_do(new_home: Callable[[], Settings]) -> None:
    settings = new_home()
    request = SweepRequest(sweep=SweepSpec(grid="smoke"), name="full", sets={"weights.source": "random"})
    first = plan_of("smoke", sets={"weights.source": "random"}).jobs[0]
    pool = ScriptedPool(script={first.title: [StopReason.DISK_FULL]})
    with pytest.raises(DiskFull, match="Make room there, then run: orch resume full"):
        sweeps.run_sweep(settings, request, Listener(), workers=1, open_pool=lambda *_: pool)
    status = sweeps.sweep_status(settings, "full")
    assert not status.is_driven
    assert status.counts == {"interrupted": 1, "new": 7}
    (cause,) = find_causes(status.jobs)
    assert (cause.reason, cause.message) == (StopReason.DISK_FULL, "ended by script: disk_full")
    assert cause.advice("full") == "Free space on that disk, then `orch resume full`."
    report = sweeps.resume_sweep(settings, "full", Listener(), workers=1, open_pool=lambda *_: ScriptedPool())
    assert report.is_complete


@pytest.fixture
def full(new_home: Callable[[], Settings]) -> Iterator[tuple[Settings, Callable[[bool], None]]]:
    """Return a store, and a switch that stops its database from growing."""
    from sqlalchemy import event

    settings = new_home()
    ledger: Any = opening.open_ledger(settings)
    engine = ledger.client._tracking_client.store.engine

    def limit(connection: Any, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite raises it to the present size

    def switch(on: bool) -> None:
        (event.listen if on else event.remove)(engine, "connect", limit)
        engine.dispose()

    yield settings, switch
    if event.contains(engine, "connect", limit):
        switch(False)
    engine.dispose()


def write_much(ledger: Ledger) -> None:
    for number in range(100):
        ledger.conclude_sweep("s", f"{number} " * 2000, {f"m{number}": 1.0}, "KILLED")


def test_a_store_that_cannot_grow_says_so_and_is_whole_when_there_is_room(
    full: tuple[Settings, Callable[[bool], None]],
) -> None:
    settings, switch = full
    ledger = opening.open_ledger(settings)
    ledger.begin_sweep(PLAN, 1.0)
    ledger.add(SWEEP.jobs[0], "s", 1.0)
    switch(True)
    with pytest.raises(StoreUnreachable, match=r"disk is full.*Make room on that disk"):
        write_much(ledger)
    switch(False)
    assert settings.database is not None
    with closing(sqlite3.connect(settings.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert ledger.move(SWEEP.jobs[0].key, JobState.RUNNING, 3.0).state is JobState.RUNNING
