"""Pause, cancel and requeue: done at once if the sweep has no driver, else requested. No test sleeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.execution import control
from orchestrator.execution.control import PATIENCE_SECONDS, Clock, Controlled
from orchestrator.execution.driver import Driver
from orchestrator.execution.selection import Which
from orchestrator.execution.work_orders import WorkerPaths
from orchestrator.ledger import locks
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import ControlRequest, JobRecord, StoredPlan
from orchestrator.planning.diff import compare
from orchestrator.settings import Settings
from schemas.errors import StoreError, SweepBusy
from schemas.lifecycle import JobState, StopReason
from schemas.order import WorkOrder
from tests.support.doubles import Listener, ScriptedPool, plan_of, run_elsewhere

SWEEP = plan_of("smoke", categories=("cat",), backbones=("alexnet",))
UP, ORDINARY, INTERPRETABLE = SWEEP.jobs
PLAN = StoredPlan.of("s", "laptop", None, SWEEP.jobs, SWEEP.upstream_keys, SWEEP.resources)
S, R = JobState, StopReason


class Bench:
    """One sweep in memory, on a clock that only `sleep` moves."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings.model_validate({"home": home})
        self.ledger = InMemoryLedger()
        self.ledger.begin_sweep(PLAN, 0.0)
        self.time = 100.0
        self.on_sleep: Callable[[], None] = lambda: None
        self.alive: set[str] = set()
        self.locks = Locks(self.settings.lock_dir)

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.on_sleep()

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.time, self.sleep)

    def walk(self, number: int, *states: JobState, reason: StopReason | None = None) -> JobRecord:
        record = self.ledger.add(SWEEP.jobs[number], "s", self.time)
        for state in states:
            self.time += 1
            record = self.ledger.move(record.key, state, self.time, reason=reason)
        return record

    def put_back(self, which: Which, *, from_scratch: bool = False) -> list[str]:
        done = control.put_back(self.settings, self.ledger, "s", which, self.clock, from_scratch=from_scratch)
        return [record.title for record in done]

    def pause(self) -> Controlled:
        return control.pause(self.settings, self.ledger, "s", self.clock)

    def cancel(self, number: int | None = None) -> Controlled:
        job = None if number is None else SWEEP.jobs[number]
        return control.cancel(self.settings, self.ledger, "s", job, self.clock, self.alive.__contains__)

    def driver(self, pool: ScriptedPool) -> Driver:
        lease = Lease(host="h", pid=1, since=self.time, sign_at=self.time)
        self.ledger.set_lease("s", lease)
        return Driver(
            sweep="s",
            planned=compare(SWEEP.jobs, self.ledger.jobs(), self.alive.__contains__),
            ledger=self.ledger,
            pool=pool,
            locks=self.locks,
            worker_paths=WorkerPaths("uri", "cache", "checkpoints", "logs", None),
            lease=lease,
            display=Listener(),
            clock=self.tick,
            driver_is_alive=self.alive.__contains__,
        )

    def tick(self) -> float:
        self.time += 1.0
        return self.time

    @property
    def states(self) -> list[tuple[JobState, StopReason | None] | None]:
        records = self.ledger.jobs()
        found = [records.get(job.key) for job in SWEEP.jobs]
        return [(record.state, record.stop_reason) if record else None for record in found]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(locks, "GLIMPSE_SECONDS", 0.0)  # real seconds, spent at each of many tries for a held lock
    return Bench(tmp_path)


# -- requeue --------------------------------------------------------------------------------------------------------


def test_a_failed_job_is_put_back_with_the_reason_it_failed_for(bench: Bench) -> None:
    bench.walk(0, S.RUNNING, S.SUCCEEDED)
    bench.walk(1, S.RUNNING, S.FAILED, reason=R.OUT_OF_MEMORY)
    bench.walk(2, S.RUNNING, S.CANCELLED, reason=R.CANCELLED_BY_USER)
    assert bench.put_back(Which(failed=True)) == [ORDINARY.title]
    assert bench.states[1:] == [(S.REQUEUED, R.OUT_OF_MEMORY), (S.CANCELLED, R.CANCELLED_BY_USER)]
    assert bench.put_back(Which(failed=True)) == []


def test_a_driven_sweep_is_not_meddled_with(bench: Bench) -> None:
    bench.walk(1, S.RUNNING, S.FAILED, reason=R.BAD_DATA)
    with Locks(bench.settings.lock_dir).sweep("s", 0.0), pytest.raises(SweepBusy, match="orch pause s"):
        bench.put_back(Which(failed=True))
    assert bench.states[1] == (S.FAILED, R.BAD_DATA)


def test_a_job_that_another_sweep_has_in_hand_is_left_to_it(bench: Bench) -> None:
    bench.walk(1, S.RUNNING, S.FAILED, reason=R.BAD_DATA)
    other = Locks(bench.settings.lock_dir)
    assert other.take_job(ORDINARY.key)
    assert bench.put_back(Which(failed=True)) == []
    other.release_all()
    assert bench.put_back(Which(failed=True)) == [ORDINARY.title]


def test_checkpoints_of_another_machine_are_not_said_to_be_deleted(bench: Bench) -> None:
    bench.walk(1, S.RUNNING, S.FAILED, reason=R.CODE_RAISED)
    bench.settings = Settings.model_validate({"home": bench.settings.home, "tracking_uri": "http://mlflow:5000"})
    with pytest.raises(StoreError, match=f"checkpoints of {ORDINARY.title} are on another machine"):
        bench.put_back(Which(failed=True), from_scratch=True)
    (bench.settings.checkpoint_dir / SWEEP.jobs[1].key).mkdir(parents=True)
    assert bench.put_back(Which(failed=True), from_scratch=True) == [ORDINARY.title]


def test_only_from_scratch_drops_what_the_job_had(bench: Bench) -> None:
    folder = bench.settings.checkpoint_dir / ORDINARY.key
    folder.mkdir(parents=True)
    (folder / "epoch-0001.pt").write_bytes(b"x")
    bench.walk(1, S.RUNNING, S.FAILED, reason=R.CODE_RAISED)
    bench.put_back(Which(failed=True))
    assert folder.exists()
    bench.walk(1, S.QUEUED, S.RUNNING, S.FAILED, reason=R.CODE_RAISED)
    bench.put_back(Which(failed=True), from_scratch=True)
    assert not folder.exists()


def test_checkpoints_that_cannot_be_dropped_leave_the_job_as_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    (bench.settings.checkpoint_dir / ORDINARY.key).mkdir(parents=True)
    bench.walk(1, S.RUNNING, S.FAILED, reason=R.CODE_RAISED)
    monkeypatch.setattr(control.shutil, "rmtree", refuse)
    with pytest.raises(StoreError, match=r"cannot be deleted \(Permission denied\)"):
        bench.put_back(Which(failed=True), from_scratch=True)
    assert bench.states[1] == (S.FAILED, R.CODE_RAISED)
    assert Locks(bench.settings.lock_dir).take_job(ORDINARY.key)


def test_checkpoints_are_kept_here_while_the_object_store_cannot_take_the_mark(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("The object store does not answer.")

    folder = bench.settings.checkpoint_dir / ORDINARY.key
    folder.mkdir(parents=True)
    bench.settings = bench.settings.model_copy(update={"object_store": (bench.settings.root / "objects").as_uri()})
    bench.walk(1, S.RUNNING, S.FAILED, reason=R.CODE_RAISED)
    with monkeypatch.context() as patch:
        patch.setattr(control, "begin_afresh", refuse)
        with pytest.raises(StoreError, match="does not answer"):
            bench.put_back(Which(failed=True), from_scratch=True)
    assert folder.exists()
    assert bench.states[1] == (S.FAILED, R.CODE_RAISED)
    bench.put_back(Which(failed=True), from_scratch=True)
    assert not folder.exists()


# -- the sweep has no driver ----------------------------------------------------------------------------------------


def test_there_is_nothing_to_pause_where_nobody_drives(bench: Bench) -> None:
    bench.walk(0, S.RUNNING, S.SUCCEEDED)
    done = bench.pause()
    assert (done.driver, done.heard, done.left) == (None, False, 2)
    assert bench.ledger.pending_requests("s") == []


def test_cancelling_a_sweep_ends_what_was_begun_and_records_nothing_else(bench: Bench) -> None:
    bench.walk(0, S.RUNNING, S.SUCCEEDED)
    bench.walk(1, S.RUNNING)  # its driver died
    done = bench.cancel()
    assert (done.changed, done.never_begun, done.left) == ((ORDINARY.title,), 1, 2)
    assert bench.states == [(S.SUCCEEDED, None), (S.CANCELLED, R.SWEEP_CANCELLED), None]
    assert bench.cancel().changed == ()


def test_cancelling_a_job_by_name_is_remembered_even_before_it_began(bench: Bench) -> None:
    done = bench.cancel(2)
    assert (done.job, done.changed) == (INTERPRETABLE.title, (INTERPRETABLE.title,))
    assert bench.states == [None, None, (S.CANCELLED, R.CANCELLED_BY_USER)]


def test_a_job_that_another_sweeps_driver_runs_is_not_cancelled(bench: Bench) -> None:
    bench.ledger.begin_sweep(PLAN.model_copy(update={"name": "other"}), 0.0)
    bench.walk(1)
    bench.ledger.move(ORDINARY.key, S.RUNNING, bench.tick(), facts={"sweep": "other"})
    bench.alive.add("other")
    assert bench.cancel(1).running_elsewhere == (ORDINARY.title,)
    assert bench.states[1] == (S.RUNNING, None)


# -- the sweep has a driver -----------------------------------------------------------------------------------------


def test_a_driver_that_answers_has_heard(bench: Bench) -> None:
    def answer() -> None:
        for request in bench.ledger.pending_requests("s"):
            bench.ledger.remove_request("s", request)

    bench.on_sleep = answer
    with Locks(bench.settings.lock_dir).sweep("s", 0.0) as lease:
        bench.ledger.set_lease("s", lease)
        done = bench.pause()
    assert (done.heard, done.driver) == (True, lease)


def test_a_driver_that_does_not_answer_is_not_waited_for_for_ever(bench: Bench) -> None:
    began = bench.time
    with Locks(bench.settings.lock_dir).sweep("s", 0.0) as lease:
        bench.ledger.set_lease("s", lease)
        done = bench.cancel()
    assert (done.heard, done.driver) == (False, lease)
    assert PATIENCE_SECONDS <= bench.time - began < PATIENCE_SECONDS + 1
    assert [request.kind for request in bench.ledger.pending_requests("s")] == ["cancel"]  # it may still be read


def test_what_a_driver_left_unheard_when_it_ended_is_done_here(bench: Bench) -> None:
    bench.walk(1, S.RUNNING)
    held = Locks(bench.settings.lock_dir).sweep("s", 0.0)
    held.__enter__()
    bench.on_sleep = lambda: held.__exit__(None, None, None)
    done = bench.cancel()
    assert (done.driver, done.changed) == (None, (ORDINARY.title,))
    assert bench.ledger.pending_requests("s") == []


def test_a_request_reaches_a_driver_whose_clock_is_ahead(bench: Bench) -> None:
    ahead = Lease(host="elsewhere", pid=1, since=bench.time + 60, sign_at=bench.time + 60)
    with Locks(bench.settings.lock_dir).sweep("s", 0.0):
        bench.ledger.set_lease("s", ahead)
        bench.pause()
    (request,) = bench.ledger.pending_requests("s")
    assert request.at >= ahead.since


def asks(bench: Bench, kind: str, *keys: str) -> Callable[[WorkOrder], None]:
    """Return a callback that leaves a request as soon as a job starts."""

    def ask(order: WorkOrder) -> None:
        if order.spec.key == ORDINARY.key:
            bench.ledger.add_request(
                "s", ControlRequest.model_validate({"id": kind, "kind": kind, "keys": keys, "at": bench.time})
            )

    return ask


def test_a_paused_driver_lets_running_jobs_end_and_starts_no_more(bench: Bench) -> None:
    pool = ScriptedPool()
    pool.held, pool.on_start = ORDINARY.title, asks(bench, "pause")
    bench.driver(pool).run()
    assert pool.started == [UP.title, ORDINARY.title]
    assert bench.states == [(S.SUCCEEDED, R.FINISHED), (S.REQUEUED, R.INTERRUPTED), None]


def test_a_job_cancelled_while_it_runs_ends_alone(bench: Bench) -> None:
    pool = ScriptedPool()
    pool.held, pool.on_start = ORDINARY.title, asks(bench, "cancel", ORDINARY.key)
    bench.driver(pool).run()
    assert pool.started == [UP.title, ORDINARY.title, INTERPRETABLE.title]
    assert [state for state in bench.states if state] == [
        (S.SUCCEEDED, R.FINISHED),
        (S.CANCELLED, R.CANCELLED_BY_USER),
        (S.SUCCEEDED, R.FINISHED),
    ]


def test_a_job_that_another_driver_runs_is_not_cancelled_and_its_end_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, tick = Locks(bench.settings.lock_dir), bench.tick
    assert other.take_job(INTERPRETABLE.key)

    def until_the_other_lets_go() -> float:
        if bench.time > 150:
            other.release_all()
        return tick()

    monkeypatch.setattr(bench, "tick", until_the_other_lets_go)
    pool = ScriptedPool()
    pool.on_start = asks(bench, "cancel", INTERPRETABLE.key)
    bench.driver(pool).run()
    assert pool.started[-1] == INTERPRETABLE.title
    assert bench.states[2] == (S.SUCCEEDED, R.FINISHED)


def test_a_job_that_another_sweep_has_just_finished_is_not_cancelled(bench: Bench) -> None:
    bench.alive.add("other")
    run_elsewhere(bench.ledger, UP)
    pool = ScriptedPool()

    def the_other_ends_and_a_person_cancels() -> None:
        if bench.ledger.get(UP.key).state is S.RUNNING:
            bench.ledger.move(UP.key, S.SUCCEEDED, bench.time)
            bench.ledger.add_request("s", ControlRequest(id="1", kind="cancel", keys=(UP.key,), at=bench.time))

    pool.on_wait = the_other_ends_and_a_person_cancels
    bench.driver(pool).run()
    assert pool.started == [ORDINARY.title, INTERPRETABLE.title]


def test_a_cancelled_sweep_comes_back_by_resume_and_a_cancelled_job_does_not(bench: Bench) -> None:
    pool = ScriptedPool()
    pool.held, pool.on_start = ORDINARY.title, asks(bench, "cancel")
    bench.driver(pool).run()
    assert bench.states[1:] == [(S.CANCELLED, R.SWEEP_CANCELLED), None]
    bench.locks.release_all()
    assert bench.put_back(Which(cancelled_with_sweep=True)) == [ORDINARY.title]
    bench.cancel(1)
    assert bench.put_back(Which(cancelled_with_sweep=True)) == []


def test_a_request_to_a_driver_that_is_gone_means_nothing_to_the_next(bench: Bench) -> None:
    from orchestrator.ledger.records import ControlRequest

    bench.ledger.add_request("s", ControlRequest(id="old", kind="pause", at=bench.time - 1))
    pool = ScriptedPool()
    bench.driver(pool).run()
    assert len(pool.started) == 3
    assert bench.ledger.pending_requests("s") == []
