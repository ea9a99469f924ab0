"""What the shell offers for sweeps and jobs of the store."""

from __future__ import annotations

import pytest

from orchestrator.cli.completion import complete_job, complete_sweep, complete_target
from orchestrator.ledger import sqlite_reader
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import StoredPlan
from schemas.errors import StoreError
from tests.support.reports import sweep_of

PLANNED, JOBS = sweep_of("first", name="first-look")


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> InMemoryLedger:
    ledger = InMemoryLedger()
    plan = StoredPlan.of("first-look", "laptop", None, PLANNED.jobs, PLANNED.upstream_keys, PLANNED.resources)
    for name in ("first-look", "second"):
        ledger.begin_sweep(plan.model_copy(update={"name": name}), 0.0)
    for spec in JOBS:
        ledger.add(spec, "first-look", 0.0)
    monkeypatch.setattr(sqlite_reader, "open_sqlite_reader", lambda settings: ledger)
    return ledger


@pytest.mark.usefixtures("ledger")
def test_sweeps_and_jobs_of_the_store_are_offered() -> None:
    assert complete_sweep("fir") == [("first-look", "")]
    cat = next(job for job in JOBS if job.title == "voc-cat alexnet ordinary")
    assert complete_job(cat.key[:6]) == [(cat.key, cat.title)]
    assert complete_target("second") == [("second", "")]


def test_without_a_store_that_can_be_read_at_once_nothing_is_offered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete_target("") == []

    def refuse(settings: object) -> None:
        raise StoreError("of another version")

    monkeypatch.setattr(sqlite_reader, "open_sqlite_reader", refuse)
    assert complete_target("") == []
    assert capsys.readouterr() == ("", "")
