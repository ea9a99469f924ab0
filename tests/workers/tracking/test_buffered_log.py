"""After an outage, the store gets everything it lacks and nothing twice."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from schemas.errors import StoreUnreachable
from schemas.job import JobSpec
from schemas.results import CheckpointPointer, JobMetrics
from tests.support.toy import toy_spec
from workers.tracking.buffered_log import EPOCH_SECONDS, FINISH_SECONDS, RETRY_SECONDS, BufferedLog
from workers.tracking.run_log import RunLog
from workers.training.records import EpochRecord

FINAL = CheckpointPointer(path="/c.pt", epoch=1, sha256="0" * 64)


class Away:
    """A store whose answers get lost: requests arrive, and the sender sees an outage."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.loses_answers = False
        self.opened = 0

    def open(self) -> RunLog:
        self.opened += 1
        return cast(RunLog, _Run(self))


class _Run:
    def __init__(self, store: Away) -> None:
        self._store, self._last = store, max(store.epochs, default=0)

    def log_spec(self, spec: JobSpec) -> None: ...

    def log_epochs(self, records: Sequence[EpochRecord]) -> None:
        self._store.epochs += [record.epoch for record in records if record.epoch > self._last]
        if self._store.loses_answers:
            raise StoreUnreachable("no answer")
        self._last = max(self._store.epochs, default=0)


def records(epochs: int) -> list[EpochRecord]:
    return [
        EpochRecord(epoch, 0.5, 3.0, 1 / epoch, 2.0, 0.9, 0.95, 0.01, 1.0, 3.2, 0.05, 0.6)
        for epoch in range(1, epochs + 1)
    ]


@pytest.fixture
def store() -> Away:
    return Away()


def test_an_epoch_whose_receipt_was_lost_is_not_told_again(store: Away) -> None:
    now = [0.0]
    book = BufferedLog(store.open, toy_spec(), patience=600.0, clock=lambda: now[0])
    book.bring_up_to_date(records(1))
    now[0] += EPOCH_SECONDS
    store.loses_answers = True
    book.bring_up_to_date(records(2))
    assert book.run is None
    store.loses_answers = False
    now[0] += RETRY_SECONDS
    book.bring_up_to_date(records(3))
    assert store.epochs == [1, 2, 3]
    assert store.opened == 2


def test_short_epochs_are_logged_together_every_few_seconds(store: Away) -> None:
    now = [0.0]
    book = BufferedLog(store.open, toy_spec(), patience=600.0, clock=lambda: now[0])
    book.bring_up_to_date(())
    told = []
    for epoch in range(1, 10):
        book.bring_up_to_date(records(epoch))
        told.append(len(store.epochs))
        now[0] += EPOCH_SECONDS / 4
    assert told == [1, 1, 1, 1, 5, 5, 5, 5, 9]
    assert not book.is_behind
    assert store.epochs == list(range(1, 10))


def test_a_store_that_came_back_within_a_long_epoch_is_told_there(store: Away) -> None:
    """Two short outages an hour apart are not an outage of an hour."""
    now = [0.0]
    book = BufferedLog(store.open, toy_spec(), patience=600.0, clock=lambda: now[0])
    book.bring_up_to_date(())
    for hour in (1, 2, 3):
        now[0] = 3600.0 * hour
        store.loses_answers = True
        book.bring_up_to_date(records(hour))
        assert book.is_behind
        store.loses_answers = False
        now[0] += RETRY_SECONDS
        book.bring_up_to_date(records(hour))
        assert not book.is_behind
    assert store.epochs == [1, 2, 3]


@pytest.mark.parametrize(("takes", "pause"), [(0.0, RETRY_SECONDS), (10.0, 90.0), (90.0, 150.0)])
def test_tries_that_take_long_are_made_seldom_but_within_patience(store: Away, takes: float, pause: float) -> None:
    now = [0.0]

    def hang() -> RunLog:
        now[0] += takes
        raise StoreUnreachable("no answer")

    book = BufferedLog(hang, toy_spec(), patience=600.0, clock=lambda: now[0])
    book.bring_up_to_date(())
    now[0] += pause - 1
    before = now[0]
    book.bring_up_to_date(())
    assert now[0] == before  # no request
    now[0] += 1
    book.open_run = store.open  # the outage ends
    book.bring_up_to_date(records(1))
    assert store.epochs == [1]


class _Outcomes(_Run):
    """Metrics arrive, files do not: only the object store is unreachable."""

    def log_outcome(self, records: Sequence[EpochRecord], metrics: JobMetrics, folder: Path) -> None:
        raise StoreUnreachable("no such bucket")


def test_a_job_that_has_nothing_else_to_do_tries_again_every_few_seconds(tmp_path: Path) -> None:
    now, tries = [0.0], []

    class Slow:
        def log_spec(self, spec: JobSpec) -> None: ...

        def log_epochs(self, records: Sequence[EpochRecord]) -> None: ...

        def log_outcome(self, records: Sequence[EpochRecord], metrics: JobMetrics, folder: Path) -> None:
            tries.append(now[0])
            if len(tries) < 9:
                now[0] += 5.0
                raise StoreUnreachable("away")

        def log_checkpoint(self, checkpoint: CheckpointPointer) -> CheckpointPointer:
            return checkpoint.model_copy(update={"path": "in the run"})

    def sleep(seconds: float) -> None:
        now[0] += seconds

    book = BufferedLog(lambda: cast(RunLog, Slow()), toy_spec(), 600.0, lambda: now[0], sleep)
    kept = book.finish(records(1), JobMetrics(test_accuracy=1.0, train_accuracy=1.0), tmp_path, FINAL, lambda: None)
    assert kept.path == "in the run"
    pauses = [later - earlier - 5.0 for earlier, later in itertools.pairwise(tries)]
    assert pauses == [FINISH_SECONDS] * 8


def test_files_that_cannot_be_left_are_waited_for_only_so_long(tmp_path: Path) -> None:
    now, waited = [0.0], [0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def wait() -> None:
        waited[0] += 1
        assert waited[0] < 1000, "waits for ever"

    book = BufferedLog(
        lambda: cast(RunLog, _Outcomes(Away())), toy_spec(), patience=60.0, clock=lambda: now[0], sleep=sleep
    )
    with pytest.raises(StoreUnreachable, match="no such bucket"):
        book.finish(records(1), JobMetrics(test_accuracy=1.0, train_accuracy=1.0), tmp_path, FINAL, wait)
    assert 60.0 <= now[0] <= 60.0 + RETRY_SECONDS
    assert waited[0] == now[0]
