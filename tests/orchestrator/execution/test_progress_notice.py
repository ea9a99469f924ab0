"""When a driver tells the store how far its jobs are."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from orchestrator.execution.estimate import Estimate
from orchestrator.execution.progress_notice import MOST_JOBS, ProgressNotice
from orchestrator.ledger.base import known_sweep
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import RunningJob, StoredPlan, SweepProgress
from orchestrator.ledger.tags import TAG_LIMIT, progress_tag
from schemas.errors import StoreUnreachable
from tests.support.reports import sweep_of


def job(epoch: int) -> RunningJob:
    return RunningJob(key="k", phase="training", epoch=epoch, epochs=10)


@pytest.fixture
def ledger() -> InMemoryLedger:
    planned, _ = sweep_of("first", name="s")
    made = InMemoryLedger()
    made.begin_sweep(StoredPlan.of("s", "laptop", None, planned.jobs, planned.upstream_keys, planned.resources), 0.0)
    return made


def test_progress_is_written_every_few_seconds_and_only_if_it_says_something_new(ledger: InMemoryLedger) -> None:
    notice = ProgressNotice("s", ledger)
    written = []
    for now, epoch in ((0.0, 1), (1.0, 2), (5.0, 2), (11.0, 2), (36.0, 2)):
        notice.set([job(epoch)], Estimate(3.0, 4.0), now)
        told = known_sweep(ledger, "s").progress
        assert told is not None
        written.append((told.at, told.running[0].epoch))
    assert written == [(0.0, 1), (0.0, 1), (5.0, 2), (5.0, 2), (36.0, 2)]
    notice.withdraw()
    assert known_sweep(ledger, "s").progress is None


def test_a_store_that_cannot_be_written_ends_nothing() -> None:
    ledger = Mock(set_progress=Mock(side_effect=StoreUnreachable("gone")))
    notice = ProgressNotice("s", ledger)
    notice.set([job(1)], None, 0.0)
    notice.withdraw()
    assert ledger.set_progress.call_count == 2


def test_a_note_about_very_many_workers_fits_into_a_tag() -> None:
    ledger = Mock()
    many = [
        RunningJob(key=f"{n:012x}", phase="waiting for another job: " + "x" * 999, epoch=100, epoch_seconds=100 / 3)
        for n in range(1000)
    ]
    ProgressNotice("s", ledger).set(many, Estimate(1e5 / 3, 2e5 / 3), 1e9 + 1 / 3)
    told: SweepProgress = ledger.set_progress.call_args[0][1]
    assert len(told.running) == MOST_JOBS
    assert told.running[0].phase == "waiting for another job"
    assert (told.at, told.low, told.high, told.running[0].epoch_seconds) == (1e9 + 0.333, 33333.333, 66666.667, 33.333)
    assert len(progress_tag(told)) == len(told.model_dump_json()) < TAG_LIMIT
