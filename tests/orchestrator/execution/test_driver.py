"""A driver's decisions, with a scripted pool and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution import driver
from orchestrator.execution.absence import AGAIN_SECONDS, ReadPushed
from orchestrator.execution.driver import Driver
from orchestrator.execution.held_lease import SIGN_SECONDS
from orchestrator.execution.leftovers import PREFER_SECONDS, Leftovers
from orchestrator.execution.placement import Idle
from orchestrator.execution.pool import Ended
from orchestrator.execution.retry_policy import RETRY
from orchestrator.execution.stop_request import StopRequest
from orchestrator.execution.unheard import FindEnd
from orchestrator.execution.work_orders import WorkerPaths
from orchestrator.ledger.base import known_sweep
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import JobRecord, StoredPlan, SweepProgress
from orchestrator.planning.diff import compare
from schemas.errors import AccessDenied, DiskFull, IllegalTransition, StoreError, StoreUnreachable, SweepBusy
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.order import WorkOrder
from schemas.results import JobResult
from tests.support.doubles import Listener, ScriptedPool, plan_of, record_of, result_of, run_elsewhere

JOBS = plan_of("smoke", categories=("cat",), backbones=("alexnet",)).jobs
UP, ORDINARY, INTERPRETABLE = (job.title for job in JOBS)
S, R = JobState, StopReason


class Bench:
    """One sweep in one ledger, for several drivers in turn."""

    def __init__(self, folder: Path, jobs: tuple[JobSpec, ...] = JOBS) -> None:
        self.ledger = InMemoryLedger()
        self.locks = Locks(folder / "locks")
        self.display = Listener()
        self.stop = StopRequest()
        self.time = 0.0
        self.jobs = jobs
        self.alive: set[str] = set()
        self.ledger.begin_sweep(StoredPlan(name="s", profile="laptop", jobs=()), 0.0)

    def clock(self) -> float:
        self.time += 1.0
        return self.time

    def driver(
        self,
        pool: ScriptedPool,
        find_end: FindEnd = lambda record: None,
        read_pushed: ReadPushed = lambda name: "",
    ) -> Driver:
        return Driver(
            sweep="s",
            planned=compare(self.jobs, self.ledger.jobs(), self.alive.__contains__),
            ledger=self.ledger,
            pool=pool,
            locks=self.locks,
            worker_paths=WorkerPaths("uri", "cache", "checkpoints", "logs", None),
            lease=Lease(host="h", pid=1, since=0.0, sign_at=0.0),
            display=self.display,
            clock=self.clock,
            driver_is_alive=self.alive.__contains__,
            stop=self.stop,
            find_end=find_end,
            read_pushed=read_pushed,
        )

    def drive(self, script: Mapping[str, list[StopReason]] | None = None, slots: int = 1) -> ScriptedPool:
        pool = ScriptedPool(slots, script)
        self.driver(pool).run()
        assert pool.closed
        return pool

    @property
    def states(self) -> list[JobState | None]:
        records = self.ledger.jobs()
        return [records[job.key].state if job.key in records else None for job in self.jobs]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_job_runs_once_after_the_one_it_starts_from(bench: Bench) -> None:
    pool = bench.drive(slots=2)
    assert pool.started == [UP, ORDINARY, INTERPRETABLE]
    assert pool.most_busy == 2
    assert bench.states == [S.SUCCEEDED] * 3


MANY = plan_of(
    {
        "name": "many",
        "base": {"backbone": "alexnet", "variant": "ordinary", "weights": {"source": "random"}},
        "axes": {"category": ("voc_part/cat",), "seed": tuple(range(6))},
    }
).jobs


def test_a_pool_is_told_of_a_part_of_many_equal_jobs_and_all_of_them_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "MOST_WISHES", 1)
    bench = Bench(tmp_path, MANY)
    pool = ScriptedPool(slots=2)
    told: list[int] = []
    pool.on_wait = lambda: told.append(len(pool.wishes))
    bench.driver(pool).run()
    assert max(told) == 1
    assert pool.started == [job.title for job in MANY]
    assert pool.most_busy == 2


def test_a_large_sweep_is_shown_now_and_then_and_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "SHOW_SECONDS_A_JOB", 1000.0)
    bench = Bench(tmp_path, MANY)
    bench.drive()
    assert [now.done for now in bench.display.shown] == [1, len(MANY)]


class OtherCode(ScriptedPool):
    """A pool whose workers all run on one machine, with other code than the driver."""

    def warnings(self) -> frozenset[str]:
        return frozenset({"on h1"})


def test_what_a_machine_warns_of_is_shown_once(bench: Bench) -> None:
    bench.driver(OtherCode(slots=2)).run()
    assert bench.display.lines.count("warning: on h1") == 1


@pytest.mark.parametrize(
    ("reason", "state", "is_started"),
    [
        (R.FINISHED, S.SUCCEEDED, False),
        (R.DIVERGED, S.FAILED, False),
        (R.CODE_RAISED, S.SUCCEEDED, True),
        (R.INTERRUPTED, S.SUCCEEDED, True),
        (R.DISK_FULL, S.SUCCEEDED, True),
    ],
)
def test_an_end_that_a_dead_driver_did_not_hear_is_settled_by_the_table(
    bench: Bench, reason: StopReason, state: JobState, is_started: bool
) -> None:
    key = JOBS[0].key
    bench.ledger.add(JOBS[0], "s", 0.0)
    bench.ledger.move(key, S.RUNNING, 1.0)
    order = WorkOrder(spec=JOBS[0], run_id="", attempt=1, tracking_uri="", cache_dir="", checkpoint_dir="")
    ends = {(key, 1): result_of(order, reason)}
    pool = ScriptedPool()
    bench.driver(pool, lambda record: ends.get((record.key, record.attempt))).run()
    assert (UP in pool.started) is is_started
    assert bench.ledger.get(key).state is state


def test_a_worker_that_died_after_its_end_is_not_replaced(bench: Bench) -> None:
    pool = ScriptedPool(script={UP: [R.WORKER_LOST]})
    bench.driver(pool, lambda record: result_of(pool.orders[0])).run()
    assert pool.started.count(UP) == 1
    assert bench.ledger.get(JOBS[0].key).state is S.SUCCEEDED


def test_running_again_runs_nothing(bench: Bench) -> None:
    bench.drive()
    assert bench.drive().started == []


def test_a_job_is_told_where_its_starting_weights_lie(bench: Bench) -> None:
    orders = bench.drive().orders
    assert orders[0].upstream is None
    assert [order.upstream and order.upstream.path for order in orders[1:]] == [f"{JOBS[0].key}.pt"] * 2


def test_a_lone_pretraining_job_takes_all_cores(bench: Bench) -> None:
    assert [order.threads for order in bench.drive(slots=2).orders] == [4, 1, 1]


def test_a_job_goes_on_with_as_many_threads_as_it_began_with(bench: Bench) -> None:
    key = JOBS[0].key
    pool = ScriptedPool(script={UP: [R.WORKER_LOST]})

    def began_on_another_machine() -> None:
        bench.ledger._jobs[key] = replace(bench.ledger.get(key), threads=3)
        pool.on_wait = lambda: None

    pool.on_wait = began_on_another_machine
    bench.driver(pool).run()
    assert [order.threads for order in pool.orders] == [4, 3, 1, 1]


def test_a_lost_worker_costs_an_attempt_and_nothing_else(bench: Bench) -> None:
    pool = bench.drive({ORDINARY: [R.WORKER_LOST]})
    assert pool.started.count(ORDINARY) == 2
    assert bench.states == [S.SUCCEEDED] * 3
    assert bench.ledger.get(JOBS[1].key).attempt == 2
    assert [order.attempt for order in pool.orders if order.spec.title == ORDINARY] == [1, 2]


def test_a_job_whose_worker_was_lost_twice_trains_alone_from_then_on(bench: Bench) -> None:
    pool = bench.drive({ORDINARY: [R.WORKER_LOST, R.WORKER_LOST]})
    assert [order.alone for order in pool.orders if order.spec.title == ORDINARY] == [False, False, True]
    assert not any(order.alone for order in pool.orders if order.spec.title != ORDINARY)


def test_a_job_that_ran_out_of_memory_is_given_more_room_each_time(bench: Bench) -> None:
    pool = bench.drive({ORDINARY: [R.OUT_OF_MEMORY, R.WORKER_LOST, R.OUT_OF_MEMORY]})
    orders = [order.micro_batches for order in pool.orders if order.spec.title == ORDINARY]
    assert orders == [1, 2, 2, 4]
    assert {order.micro_batches for order in pool.orders if order.spec.title != ORDINARY} == {1}
    assert bench.states == [S.SUCCEEDED] * 3


def test_a_later_driver_remembers_how_much_room_a_job_needs(bench: Bench) -> None:
    bench.drive({ORDINARY: [R.OUT_OF_MEMORY] * 4})
    assert bench.states == [S.SUCCEEDED, S.FAILED, S.SUCCEEDED]
    bench.ledger.move(JOBS[1].key, S.REQUEUED, bench.clock())
    assert [order.micro_batches for order in bench.drive().orders] == [16]


@pytest.mark.parametrize("held", [None, UP])
def test_a_driver_that_slept_writes_nothing_over_the_one_that_replaced_it(bench: Bench, held: str | None) -> None:
    """Its machine is suspended while a job runs; another driver takes the sweep over and starts the job again."""
    pool = ScriptedPool()
    pool.held = held
    other = Lease(host="elsewhere", pid=2, since=500.0, sign_at=1000.0)

    def sleep(order: WorkOrder) -> None:
        bench.time = 1000.0
        bench.ledger.set_lease("s", other)
        bench.ledger.move(order.spec.key, S.REQUEUED, bench.time)
        bench.ledger.move(order.spec.key, S.QUEUED, bench.time)
        bench.ledger.move(order.spec.key, S.RUNNING, bench.time)

    pool.on_start = sleep
    with pytest.raises(SweepBusy, match="taken over by process 2 on elsewhere"):
        bench.driver(pool).run()
    assert pool.closed
    record = bench.ledger.get(JOBS[0].key)
    assert (record.state, record.attempt, record.result) == (S.RUNNING, 2, None)
    sweep = bench.ledger.sweep("s")
    assert sweep is not None
    assert sweep.lease == other


def test_the_end_of_an_attempt_that_was_replaced_is_not_the_jobs(bench: Bench) -> None:
    pool = ScriptedPool()
    replaced = []

    def replace_it() -> None:
        for order in pool.busy.values():
            if order.spec.title == ORDINARY and not replaced:
                replaced.append(order.attempt)
                for state in (S.REQUEUED, S.QUEUED, S.RUNNING, S.REQUEUED):
                    bench.ledger.move(order.spec.key, state, bench.clock())

    pool.on_wait = replace_it
    bench.driver(pool).run()
    assert pool.started.count(ORDINARY) == 2
    record = bench.ledger.get(JOBS[1].key)
    assert record.result is not None
    assert (record.attempt, record.result.attempt, record.state) == (3, 3, S.SUCCEEDED)


def test_a_worker_that_is_always_lost_ends_as_failed(bench: Bench) -> None:
    bench.drive({ORDINARY: [R.WORKER_LOST] * 50})
    assert bench.states == [S.SUCCEEDED, S.FAILED, S.SUCCEEDED]


def test_a_failed_job_does_not_stop_the_others(bench: Bench) -> None:
    pool = bench.drive({ORDINARY: [R.DIVERGED]})
    assert pool.started == [UP, ORDINARY, INTERPRETABLE]
    assert bench.states == [S.SUCCEEDED, S.FAILED, S.SUCCEEDED]
    assert any("Scripted: ended by script: diverged" in line for line in bench.display.lines)


def test_what_needs_a_failed_job_is_never_attempted(bench: Bench) -> None:
    assert bench.drive({UP: [R.BAD_DATA]}).started == [UP]
    assert bench.states == [S.FAILED, None, None]


def test_failed_jobs_are_left_alone_until_asked_for(bench: Bench) -> None:
    bench.drive({UP: [R.BAD_DATA]})
    assert bench.drive().started == []
    bench.ledger.move(JOBS[0].key, S.REQUEUED, bench.clock())
    assert bench.drive().started == [UP, ORDINARY, INTERPRETABLE]
    assert bench.states == [S.SUCCEEDED] * 3


def test_a_request_to_stop_saves_what_runs_and_starts_nothing_more(bench: Bench) -> None:
    pool = ScriptedPool()
    pool.held = ORDINARY

    def ctrl_c(order: WorkOrder) -> None:
        bench.stop.asked = order.spec.title == ORDINARY

    pool.on_start = ctrl_c
    bench.driver(pool).run()
    assert pool.started == [UP, ORDINARY]
    assert bench.states == [S.SUCCEEDED, S.REQUEUED, None]
    assert bench.ledger.get(JOBS[1].key).stop_reason is R.INTERRUPTED
    bench.stop.asked = False
    assert bench.drive().started == [ORDINARY, INTERPRETABLE]


def test_a_job_that_cannot_be_claimed_lets_the_others_save_what_they_have(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ScriptedPool(2)
    pool.held = ORDINARY
    take_job = bench.locks.take_job

    def no_room(key: str) -> bool:
        if key == JOBS[2].key:
            raise StoreError("no room for a lock")
        return take_job(key)

    monkeypatch.setattr(bench.locks, "take_job", no_room)
    with pytest.raises(StoreError, match="no room for a lock"):
        bench.driver(pool).run()
    assert (pool.stopped, pool.closed) == (True, True)
    assert bench.states == [S.SUCCEEDED, S.REQUEUED, None]


def test_a_sweep_that_was_taken_over_while_its_workers_started_runs_nothing(bench: Bench) -> None:
    other = Lease(host="elsewhere", pid=2, since=500.0, sign_at=1000.0)
    bench.ledger.set_lease("s", other)
    pool = ScriptedPool()
    with pytest.raises(SweepBusy, match="taken over by process 2 on elsewhere"):
        bench.driver(pool).run()
    assert (pool.started, pool.closed) == ([], True)
    sweep = bench.ledger.sweep("s")
    assert sweep is not None
    assert sweep.lease == other


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_a_driver_withdraws_its_own_note_about_the_progress_and_no_other(bench: Bench, is_taken_over: bool) -> None:
    pool, told = ScriptedPool(), SweepProgress(at=1000.0)
    close = pool.close

    def take_over() -> None:
        if is_taken_over:
            bench.ledger.set_lease("s", Lease(host="elsewhere", pid=2, since=500.0, sign_at=1000.0))
            bench.ledger.set_progress("s", told)
        close()

    pool.close = take_over  # type: ignore[method-assign]
    bench.driver(pool).run()
    assert known_sweep(bench.ledger, "s").progress == (told if is_taken_over else None)


def test_a_driver_that_breaks_off_puts_back_nothing_of_the_one_that_replaced_it(bench: Bench) -> None:
    pool = ScriptedPool()

    def break_off(order: WorkOrder) -> None:
        bench.ledger.set_lease("s", Lease(host="elsewhere", pid=2, since=500.0, sign_at=1000.0))
        raise KeyboardInterrupt

    pool.on_start = break_off
    with pytest.raises(KeyboardInterrupt):
        bench.driver(pool).run()
    assert bench.states[0] is S.RUNNING


def test_a_full_disk_stops_the_sweep_in_order_and_costs_no_job_its_retries(bench: Bench) -> None:
    pool = ScriptedPool(2, {ORDINARY: [R.DISK_FULL]})
    pool.held = INTERPRETABLE
    with pytest.raises(
        DiskFull, match=r"a disk is full. ended by script: disk_full Make room there, then run: orch resume s"
    ):
        bench.driver(pool).run()
    assert pool.started == [UP, ORDINARY, INTERPRETABLE]
    assert bench.states == [S.SUCCEEDED, S.REQUEUED, S.REQUEUED]
    assert [bench.ledger.get(job.key).stop_reason for job in JOBS[1:]] == [R.DISK_FULL, R.INTERRUPTED]
    assert not [line for line in bench.display.lines if "will be retried" in line]
    assert bench.drive().started == [ORDINARY, INTERPRETABLE]
    assert bench.states == [S.SUCCEEDED] * 3


def test_a_worker_that_the_store_refuses_stops_the_sweep_in_order_and_costs_no_job_its_retries(bench: Bench) -> None:
    pool = ScriptedPool(2, {ORDINARY: [R.ACCESS_DENIED]})
    pool.held = INTERPRETABLE
    with pytest.raises(AccessDenied, match=r"ended by script: access_denied Then run: orch resume s") as raised:
        bench.driver(pool).run()
    assert raised.value.exit_code == 4
    assert pool.started == [UP, ORDINARY, INTERPRETABLE]
    assert [bench.ledger.get(job.key).stop_reason for job in JOBS[1:]] == [R.ACCESS_DENIED, R.INTERRUPTED]
    assert not [line for line in bench.display.lines if "will be retried" in line]
    assert bench.drive().started == [ORDINARY, INTERPRETABLE]
    assert bench.states == [S.SUCCEEDED] * 3


def test_an_end_at_once_leaves_no_job_running(bench: Bench) -> None:
    pool = ScriptedPool()

    def break_off(order: WorkOrder) -> None:
        raise KeyboardInterrupt

    pool.on_start = break_off
    with pytest.raises(KeyboardInterrupt):
        bench.driver(pool).run()
    assert pool.closed
    assert bench.states[0] is S.REQUEUED
    assert bench.drive().started == [UP, ORDINARY, INTERPRETABLE]


def test_a_ledger_that_fails_as_a_job_ends_leaves_no_job_running(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    move = bench.ledger.move

    def locked_once(key: str, to: JobState, now: float, **more: Any) -> JobRecord:
        if to is S.SUCCEEDED:
            raise StoreError("locked")
        return move(key, to, now, **more)

    monkeypatch.setattr(bench.ledger, "move", locked_once)
    with pytest.raises(StoreError, match="locked"):
        bench.drive()
    assert bench.states[0] is S.REQUEUED


def test_a_pool_that_does_not_close_leaves_no_job_running(bench: Bench) -> None:
    class Stubborn(ScriptedPool):
        def close(self) -> None:
            raise KeyboardInterrupt

    pool = Stubborn()

    def break_off(order: WorkOrder) -> None:
        raise KeyboardInterrupt

    pool.on_start = break_off
    with pytest.raises(KeyboardInterrupt):
        bench.driver(pool).run()
    assert bench.states[0] is S.REQUEUED


def test_what_a_dead_driver_left_running_is_requeued_and_finished(bench: Bench) -> None:
    bench.ledger.add(JOBS[0], "s", 0.0)
    bench.ledger.move(JOBS[0].key, S.RUNNING, 0.0)
    pool = bench.drive()
    assert pool.started == [UP, ORDINARY, INTERPRETABLE]
    assert bench.ledger.get(JOBS[0].key).attempt == 2


def test_a_lost_job_that_another_driver_took_up_while_workers_started_is_left_to_it(bench: Bench) -> None:
    bench.ledger.begin_sweep(StoredPlan(name="other", profile="laptop", jobs=()), 0.0)
    bench.ledger.add(JOBS[0], "s", 0.0)
    bench.ledger.move(JOBS[0].key, S.RUNNING, 0.0)
    driver = bench.driver(ScriptedPool())
    for state in (S.REQUEUED, S.QUEUED, S.RUNNING):
        bench.ledger.move(JOBS[0].key, state, 1.0, facts={"sweep": "other"})
    bench.alive.add("other")
    driver.stop.asked = True
    driver.run()
    record = bench.ledger.get(JOBS[0].key)
    assert (record.state, record.attempt, record.driven_by) == (S.RUNNING, 2, "other")


def test_a_job_that_another_sweep_runs_is_waited_for_and_not_run_twice(bench: Bench) -> None:
    bench.alive.add("other")
    run_elsewhere(bench.ledger, JOBS[0])
    pool = ScriptedPool()
    looks = 0

    def other_driver_finishes() -> None:
        nonlocal looks
        looks += 1
        if looks == 10:
            bench.ledger.move(JOBS[0].key, S.SUCCEEDED, bench.time)

    pool.on_wait = other_driver_finishes
    bench.driver(pool).run()
    assert pool.started == [ORDINARY, INTERPRETABLE]
    assert bench.states == [S.SUCCEEDED] * 3


def test_a_job_that_another_sweep_lost_for_good_counts_as_a_failure(bench: Bench) -> None:
    bench.alive.add("other")
    run_elsewhere(bench.ledger, JOBS[1])
    pool = ScriptedPool()

    def other_driver_gives_up() -> None:
        if bench.ledger.get(JOBS[1].key).state is S.RUNNING:
            bench.ledger.move(JOBS[1].key, S.FAILED, bench.time, reason=R.DIVERGED)

    pool.on_wait = other_driver_gives_up
    driver = bench.driver(pool)
    driver.run()
    assert pool.started == [UP, INTERPRETABLE]
    assert dict(driver._state.failures) == {str(R.DIVERGED): 1}


def test_a_job_whose_lock_another_process_holds_is_waited_for(bench: Bench, tmp_path: Path) -> None:
    other = Locks(tmp_path / "locks")
    assert other.take_job(JOBS[1].key)
    pool = ScriptedPool()
    pool.on_start = lambda order: other.release_all() if order.spec.title == INTERPRETABLE else None
    bench.driver(pool).run()
    assert pool.started == [UP, INTERPRETABLE, ORDINARY]


def test_the_lease_is_renewed_while_jobs_run(bench: Bench) -> None:
    bench.time = SIGN_SECONDS + 5
    bench.drive()
    sweep = bench.ledger.sweep("s")
    assert sweep is not None
    assert sweep.lease is not None
    assert sweep.lease.sign_at > SIGN_SECONDS


def test_a_person_sees_the_count_and_the_running_jobs(bench: Bench) -> None:
    bench.drive()
    assert bench.display.lines[0] == f"[1/3] {UP}: accuracy 0.900 (chance 0.500), location instability 0.1000 (1 s)"
    assert bench.display.shown[-1].done == bench.display.shown[-1].total == 3
    assert bench.display.shown[-1].left == (0, 0, 0)


class Overtaken(InMemoryLedger):
    """A store in which the driver of another machine makes the first move to a state a moment earlier."""

    def __init__(self, to: JobState, key: str = "") -> None:
        super().__init__()
        self.to, self.key, self.refused = to, key, 0

    def move(self, key: str, to: JobState, now: float, **more: Any) -> JobRecord:
        if to is self.to and key == (self.key or key) and not self.refused:
            self.refused += 1
            raise IllegalTransition("the job has moved")
        return super().move(key, to, now, **more)


def test_a_job_that_another_driver_starts_in_the_same_moment_is_looked_at_later(bench: Bench) -> None:
    other = Overtaken(S.RUNNING, JOBS[1].key)
    other.__dict__.update(bench.ledger.__dict__ | {"to": S.RUNNING, "key": JOBS[1].key, "refused": 0})
    bench.ledger = other
    pool = ScriptedPool()
    driver = bench.driver(pool)
    driver.run()
    assert other.refused == 1
    assert pool.started == [UP, INTERPRETABLE, ORDINARY]
    assert bench.states == [S.SUCCEEDED] * 3
    assert driver.begun == 3


@pytest.mark.parametrize("has_end", [True, False])
def test_a_lost_job_that_another_driver_settles_in_the_same_moment_is_looked_at_later(
    bench: Bench, has_end: bool
) -> None:
    up = JOBS[0]
    bench.ledger.add(up, "s", 0.0)
    for to in (S.QUEUED, S.RUNNING):
        bench.ledger.move(up.key, to, 0.0)
    to = S.SUCCEEDED if has_end else S.REQUEUED
    other = Overtaken(to)
    other.__dict__.update(bench.ledger.__dict__ | {"to": to, "key": up.key, "refused": 0})
    bench.ledger = other

    def find_end(record: JobRecord) -> Any:
        return result_of(order_of(up, record.attempt)) if has_end else None

    bench.driver(ScriptedPool(), find_end).run()
    assert other.refused == 1
    assert bench.states == [S.SUCCEEDED] * 3


def order_of(spec: JobSpec, attempt: int) -> WorkOrder:
    return WorkOrder(spec=spec, run_id="r", attempt=attempt, tracking_uri="", cache_dir="", checkpoint_dir="")


class TwoNodes(ScriptedPool):
    """A cluster of two machines with a worker each; some lack the data of all jobs."""

    is_private = False

    def __init__(self, *lack: str) -> None:
        super().__init__(2)
        self.lack = set(lack)
        self.tried: list[str] = []

    def nodes(self) -> dict[str, str]:
        return {"n0": "h0", "n1": "h1"}

    def idle(self) -> list[Idle]:
        return [one._replace(node=f"n{one.worker}") for one in super().idle()]

    def wait(self, seconds: float) -> list[Ended]:
        self.on_wait()
        ended = []
        for worker, order in list(self.busy.items()):
            self.tried.append(f"n{worker}")
            reason = StopReason.DATA_ABSENT if f"n{worker}" in self.lack else StopReason.FINISHED
            ended.append(Ended(worker, result_of(order, reason), f"n{worker}", is_told=True))
        self.busy.clear()
        return ended


def test_a_job_whose_data_a_machine_lacks_goes_to_another_one(bench: Bench) -> None:
    pool = TwoNodes("n0")
    bench.driver(pool).run()
    assert bench.states == [S.SUCCEEDED] * 3
    assert pool.tried.count("n0") <= 2  # once for each data set


def test_jobs_wait_for_data_that_no_machine_has_and_are_not_charged(bench: Bench) -> None:
    pool = TwoNodes("n0", "n1")
    turns = 0

    def pushed_late() -> None:
        nonlocal turns
        turns += 1
        if turns == 2000:
            pool.lack.clear()

    pool.on_wait = pushed_late
    bench.driver(pool).run()
    assert bench.states == [S.SUCCEEDED] * 3
    up = bench.ledger.get(JOBS[0].key)
    assert up.attempt > RETRY[R.DATA_ABSENT].retries + 1  # each machine again after a while, and no budget used up
    assert pool.tried[:4] == ["n0", "n1", "n0", "n1"]
    assert up.attempt <= 2 * bench.time / AGAIN_SECONDS + 3  # but not again at once
    (said,) = {line for line in bench.display.lines if "orch data push" in line}
    assert "1 job waits: no machine has the data set" in said


class OneComesLate(TwoNodes):
    """The worker on `n1` answers some turns later than the one on `n0`."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.turns = turns

    def idle(self) -> list[Idle]:
        return [one for one in super().idle() if one.node == "n0" or self.turns <= 0]

    def wait(self, seconds: float) -> list[Ended]:
        self.turns -= 1
        return super().wait(seconds)


@pytest.mark.parametrize(
    ("host", "turns", "node"), [("h1", 3, "n1"), ("h1", 10**9, "n0"), ("gone", 10**9, "n0"), ("", 3, "n0")]
)
def test_a_job_whose_checkpoint_could_not_be_uploaded_waits_a_while_for_its_machine(
    bench: Bench, host: str, turns: int, node: str
) -> None:
    end = JobResult(job_key=JOBS[0].key, attempt=1, stop_reason=R.INTERRUPTED, left_on=host)
    bench.ledger._jobs[JOBS[0].key] = record_of(JOBS[0], S.REQUEUED, R.INTERRUPTED, result=end)
    pool = OneComesLate(turns)
    bench.driver(pool).run()
    assert pool.tried[0] == node
    assert bench.states == [S.SUCCEEDED] * 3
    assert (bench.time > PREFER_SECONDS) == (host == "h1" and node == "n0")


def test_an_attempt_that_uploaded_nothing_leaves_the_newest_checkpoint_where_it_was() -> None:
    leftovers, nodes = Leftovers(), {"n0": "h0", "n1": "h1"}
    end = JobResult(job_key="k", attempt=1, stop_reason=R.INTERRUPTED, left_on="h1")
    leftovers.note(end)
    for reason in (R.STORE_UNREACHABLE, R.WORKER_LOST, R.NODE_LOST):
        leftovers.note(JobResult(job_key="k", attempt=2, stop_reason=reason))
        assert leftovers.others("k", nodes, 0.0) == {"n0"}
    leftovers.note(JobResult(job_key="k", attempt=3, stop_reason=R.INTERRUPTED))
    assert leftovers.others("k", nodes, 0.0) == frozenset()


class AtOnce:
    """`Background` that makes its call in the caller's thread."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._found = call()

    def wait(self, seconds: float) -> bool:
        return True

    def result(self) -> Any:
        return self._found


def test_jobs_that_wait_for_data_go_on_soon_after_a_push_and_only_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.execution.absence.Background", AtOnce)
    pool = TwoNodes("n0", "n1")
    pushed_at, asked = 100.0, []

    def read_pushed(name: str) -> str:
        asked.append(name)
        if len(asked) == 1:
            raise StoreUnreachable("The store is away")
        if bench.time < pushed_at:
            return ""
        pool.lack.clear()
        return "digest"

    bench.driver(pool, read_pushed=read_pushed).run()
    assert bench.states == [S.SUCCEEDED] * 3
    assert pool.tried[:3].count("n0") <= 2  # once before the push, and once after it
    assert pushed_at < bench.time < pushed_at + 60 < AGAIN_SECONDS
    needed = {category.partition("/")[0] for job in JOBS for category in job.data.categories}
    assert set(asked) == needed
    assert 5 < len(asked) < 30 * len(needed)  # now and then


def test_a_push_that_does_not_help_is_tried_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.execution.absence.Background", AtOnce)
    pool = TwoNodes("n0", "n1")
    pool.on_wait = lambda: pool.lack.clear() if bench.time > AGAIN_SECONDS - 50 else None
    bench.driver(pool, read_pushed=lambda name: "of another size").run()
    assert bench.states == [S.SUCCEEDED] * 3
    assert pool.tried[:4].count("n0") == pool.tried[:4].count("n1") == 2
    assert bench.time > AGAIN_SECONDS


def test_a_machine_alone_without_data_fails_its_job_after_the_budget(bench: Bench) -> None:
    budget = RETRY[R.DATA_ABSENT].retries
    pool = bench.drive({UP: [R.DATA_ABSENT] * (budget + 1)})
    assert pool.started == [UP] * (budget + 1)
    assert bench.states == [S.FAILED, None, None]


def test_progress_is_displayed_from_time_to_time_and_at_the_end(bench: Bench) -> None:
    bench.clock = lambda: 5.0  # type: ignore[method-assign]
    bench.drive()
    assert [now.done for now in bench.display.shown] == [1, 3]
