"""A store that does not answer for a while, on a clock that the test sets: training continues, nothing is lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.driver import DRAIN_SECONDS, Driver
from orchestrator.execution.stop_request import StopRequest
from orchestrator.execution.work_orders import WorkerPaths
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.outages import HURRY_SECONDS, LONGEST_WAIT, Patience, patient
from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.diff import compare
from schemas.errors import StoreError, StoreUnreachable
from schemas.lifecycle import JobState
from schemas.order import WorkOrder
from tests.support.doubles import Listener, ScriptedPool, plan_of

JOBS = plan_of("smoke", categories=("cat",), backbones=("alexnet",)).jobs
UP, ORDINARY, INTERPRETABLE = (job.title for job in JOBS)
S = JobState


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Flaky:
    """A ledger that does not answer for a period, or that loses the answer to a call that it has carried out."""

    def __init__(self, time: Time) -> None:
        self.kept = InMemoryLedger()
        self.kept.begin_sweep(StoredPlan(name="s", profile="laptop", jobs=()), 0.0)
        self.time = time
        self.away = (0.0, 0.0)
        self.tries, self.seconds_to_fail = 0, 0.0
        """Number of calls while it was away, and how long each took to fail."""
        self.breaks_after: str | None = None
        """Name of the call whose next answer is lost."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.away[0] <= self.time.now < self.away[1]:
                self.tries += 1
                self.time.sleep(self.seconds_to_fail)
                raise StoreUnreachable("The store is away.")
            answer = getattr(self.kept, name)(*arguments, **named)
            if name == self.breaks_after:
                self.breaks_after = None
                raise StoreUnreachable("The line broke.")
            return answer

        return call


class Bench:
    def __init__(self, folder: Path, patience: float) -> None:
        self.time = Time()
        self.ledger = Flaky(self.time)
        self.display = Listener()
        self.stop = StopRequest()
        self.pool = ScriptedPool()
        self.pool.on_wait = lambda: self.time.sleep(1.0)
        self.locks = Locks(folder / "locks")
        self.patience = Patience(
            patience, self.time.clock, self.time.sleep, self.display.say, lambda: self.stop.asked
        )  # fmt: skip

    def drive(self) -> None:
        ledger: Any = self.ledger
        Driver(
            sweep="s",
            planned=compare(JOBS, self.ledger.kept.jobs(), lambda name: False),
            ledger=patient(ledger, self.patience),
            pool=self.pool,
            locks=self.locks,
            worker_paths=WorkerPaths("uri", "cache", "checkpoints", "logs", None),
            lease=Lease(host="h", pid=1, since=0.0, sign_at=0.0),
            display=self.display,
            clock=self.time.clock,
            driver_is_alive=lambda name: False,
            stop=self.stop,
        ).run()

    def goes_away_when_it_starts(self, title: str, seconds: float) -> None:
        def cut(order: WorkOrder) -> None:
            if order.spec.title == title:
                self.ledger.away = (self.time.now + 0.5, self.time.now + seconds)

        self.pool.on_start = cut

    @property
    def states(self) -> list[JobState | None]:
        records = self.ledger.kept.jobs()
        return [records[job.key].state if job.key in records else None for job in JOBS]


def test_an_outage_shorter_than_patience_delays_and_loses_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, patience=600)
    bench.goes_away_when_it_starts(ORDINARY, seconds=300)
    bench.drive()
    assert bench.pool.started == [UP, ORDINARY, INTERPRETABLE]
    assert bench.states == [S.SUCCEEDED] * 3
    assert not bench.pool.stopped
    said = [line for line in bench.display.lines if "away" in line]
    assert said == ["The store is away. Running jobs continue; retrying for up to 10 min."]


def test_a_note_about_the_progress_is_neither_retried_nor_the_end_of_patience(tmp_path: Path) -> None:
    bench = Bench(tmp_path, patience=600)

    def refuse(*arguments: object) -> None:
        raise StoreUnreachable("The store is away.")

    bench.ledger.kept.set_progress = refuse  # type: ignore[method-assign]
    bench.drive()
    assert bench.states == [S.SUCCEEDED] * 3
    assert bench.time.now < 60
    assert not bench.patience.at_an_end


@pytest.mark.parametrize("call", ["add", "move", "set_lease", "pending_requests", "get"])
def test_what_arrived_without_an_answer_is_not_done_twice(tmp_path: Path, call: str) -> None:
    bench = Bench(tmp_path, patience=600)
    bench.ledger.breaks_after = call
    bench.drive()
    assert bench.ledger.breaks_after is None
    assert bench.states == [S.SUCCEEDED] * 3
    assert [record.attempt for record in bench.ledger.kept.jobs().values()] == [1, 1, 1]


def test_a_longer_outage_stops_in_order_and_can_be_gone_on_from(tmp_path: Path) -> None:
    bench = Bench(tmp_path, patience=60)
    bench.pool.held = ORDINARY
    bench.goes_away_when_it_starts(ORDINARY, seconds=10_000)
    with pytest.raises(StoreUnreachable, match="The store is away"):
        bench.drive()
    assert (bench.pool.stopped, bench.pool.closed, bench.pool.busy) == (True, True, {})
    assert bench.time.now < 60 + LONGEST_WAIT + DRAIN_SECONDS / 2  # the held job ends at once when asked
    assert bench.states == [S.SUCCEEDED, S.RUNNING, None]  # its end could not be recorded
    bench.ledger.away = (0.0, 0.0)
    bench.pool = ScriptedPool()
    bench.patience.at_an_end = False
    bench.drive()
    assert bench.states == [S.SUCCEEDED] * 3
    assert bench.pool.started == [ORDINARY, INTERPRETABLE]


def test_a_job_that_does_not_stop_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    bench = Bench(tmp_path, patience=60)
    bench.pool.held = UP
    bench.pool.stop = lambda: None  # type: ignore[method-assign]
    bench.goes_away_when_it_starts(UP, seconds=10_000)
    with pytest.raises(StoreUnreachable):
        bench.drive()
    assert bench.pool.closed
    assert DRAIN_SECONDS < bench.time.now < 60 + DRAIN_SECONDS + 2 * LONGEST_WAIT


def test_a_store_that_comes_back_while_jobs_stop_still_hears_of_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, patience=60)
    bench.pool.held = ORDINARY
    bench.goes_away_when_it_starts(ORDINARY, seconds=10_000)
    stop = bench.pool.stop

    def stop_and_come_back() -> None:
        bench.ledger.away = (0.0, 0.0)
        stop()

    bench.pool.stop = stop_and_come_back  # type: ignore[method-assign]
    with pytest.raises(StoreUnreachable):
        bench.drive()
    assert bench.states == [S.SUCCEEDED, S.REQUEUED, None]


def test_who_asks_to_stop_does_not_wait_out_the_outage(tmp_path: Path) -> None:
    bench = Bench(tmp_path, patience=6000)
    bench.goes_away_when_it_starts(ORDINARY, seconds=100_000)
    sleep = bench.patience.sleep

    def ctrl_c(seconds: float) -> None:
        bench.stop.asked = True
        sleep(seconds)

    bench.patience.sleep = ctrl_c
    with pytest.raises(StoreUnreachable):
        bench.drive()
    assert bench.time.now < HURRY_SECONDS + 3 * LONGEST_WAIT


def test_who_asks_to_stop_waits_for_no_more_than_two_slow_failures(tmp_path: Path) -> None:
    bench = Bench(tmp_path, patience=6000)
    bench.ledger.seconds_to_fail = 5.0
    bench.goes_away_when_it_starts(ORDINARY, seconds=100_000)
    asked_at: list[float] = []
    sleep = bench.patience.sleep

    def ctrl_c(seconds: float) -> None:
        sleep(seconds)
        if bench.time.now > 60 and not bench.stop.asked:
            bench.stop.asked = True
            asked_at.append(bench.time.now)
            bench.ledger.tries = 0

    bench.patience.sleep = ctrl_c
    with pytest.raises(StoreUnreachable):
        bench.drive()
    assert bench.ledger.tries == 1
    assert bench.time.now - asked_at[0] < 8.0
    assert (bench.pool.stopped, bench.pool.closed) == (True, True)


def test_an_error_that_waiting_will_not_mend_is_raised_at_once() -> None:
    time = Time()

    def broken() -> None:
        raise StoreError("No job k in the store.")

    with pytest.raises(StoreError, match="No job k"):
        Patience(600, time.clock, time.sleep, print).get(broken)
    assert time.now == 0.0


def test_pauses_grow_up_to_a_limit() -> None:
    time = Time()
    tries: list[float] = []

    def away() -> None:
        tries.append(time.now)
        raise StoreUnreachable("away")

    with pytest.raises(StoreUnreachable):
        Patience(60, time.clock, time.sleep, lambda line: None).get(away)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses[0] <= 1.0
    assert max(pauses) <= LONGEST_WAIT
    assert 60 <= time.now < 60 + LONGEST_WAIT


def test_a_clock_that_is_set_back_prolongs_no_pause() -> None:
    time, slept = Time(), 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds
        time.now -= 3600.0

    def away() -> None:
        if slept < 1.0:
            raise StoreUnreachable("away")

    Patience(600, time.clock, sleep, lambda line: None).get(away)
    assert slept < 1.0 + LONGEST_WAIT


def test_a_patient_ledger_has_the_calls_of_its_ledger(tmp_path: Path) -> None:
    inner = InMemoryLedger()
    ledger: Ledger = patient(inner, Patience(0, lambda: 0.0, lambda seconds: None, print))
    ledger.begin_sweep(StoredPlan(name="s", profile="laptop", jobs=()), 1.0)
    assert ledger.sweep("s") == inner.sweep("s")
    assert ledger.jobs() == {}
