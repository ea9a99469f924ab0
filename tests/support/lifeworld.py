"""A model of a sweep whose driver, workers and store can fail at any moment."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, cast

from orchestrator.execution.cancel import cancel_waiting
from orchestrator.execution.driver import Driver
from orchestrator.execution.pool import Ended
from orchestrator.execution.retry_policy import MAX_BACKOFF_SECONDS, RETRY
from orchestrator.execution.settlement import UNREPORTED
from orchestrator.execution.stop_request import StopRequest
from orchestrator.execution.work_orders import WorkerPaths
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import ControlRequest, StoredPlan
from orchestrator.planning.diff import compare
from schemas.errors import DiskFull, StoreUnreachable, SweepBusy
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.order import WorkOrder
from schemas.results import JobResult
from tests.support.doubles import Listener, ScriptedPool, plan_of, result_of

JOBS = plan_of("smoke", categories=("cat",), backbones=("alexnet",)).jobs
"""A pre-training job, and two that start from it."""
S, R = JobState, StopReason
MOST_TRIES = 1 + sum(rule.retries for rule in RETRY.values())
"""Largest number of attempts that one driver makes of one job."""
MOST_TURNS = 2000

EFFECTS = frozenset({"add", "move", "begin_sweep", "set_lease", "conclude_sweep", "add_request", "remove_request",
                     "release_dead_driver", "take_job", "start"})  # fmt: skip
"""Calls that change something outside the driver. The model kills the driver between any two of them."""


class Killed(BaseException):
    """The driver's process was killed: no code of it runs after this, neither `finally` nor `except`."""


class Fate:
    """Before which effect a driver is killed, and before which ones the store does not answer."""

    def __init__(self, dies_before: int | None = None, away: Collection[int] = ()) -> None:
        self.dies_before, self.away = dies_before, frozenset(away)
        self.effects = 0
        self.dead = False

    def before_effect(self, store: bool) -> None:
        self.effects += 1
        self.dead |= self.effects == self.dies_before
        self.before_read(store)

    def before_read(self, store: bool) -> None:
        if self.dead:
            raise Killed
        if store and self.effects in self.away:
            self.effects += 1
            raise StoreUnreachable("no answer for a while")


class Mortal:
    """A proxy of something that the driver uses; each call may be the one before which the driver is killed."""

    def __init__(self, real: Any, fate: Fate, *, store: bool) -> None:
        self._real, self._fate, self._store = real, fate, store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not callable(found):
            return found

        @wraps(found)
        def call(*arguments: Any, **named: Any) -> Any:
            check = self._fate.before_effect if name in EFFECTS else self._fate.before_read
            check(self._store)
            return found(*arguments, **named)

        return call


class World:
    """What outlives a driver: the store, the locks and the clock; checks what must always hold of them."""

    def __init__(self, folder: Path, ledger: Ledger | None = None, jobs: tuple[JobSpec, ...] = JOBS) -> None:
        self.jobs = jobs
        self.ledger: Ledger = ledger or InMemoryLedger()
        self.folder = folder
        self.time = 0.0
        self.pid = 0
        self.starts: list[tuple[str, int]] = []
        """Key and attempt of every job that a worker started."""
        self.finished: set[str] = set()
        self.ends: dict[tuple[str, int], JobResult] = {}
        """How attempts ended, by key and number, as their workers left it; the drivers may not have heard."""
        self.faults: list[str] = []
        self.meanwhile: Callable[[ScriptedPool], None] = lambda pool: None

    def clock(self) -> float:
        self.time += 1.0
        return self.time

    def drive(
        self, sweep: str = "s", *, fate: Fate | None = None, script: dict[str, list[StopReason]] | None = None,
        slots: int = 2, repair: Callable[[], None] = lambda: None, stopped: bool = False, outlived: bool = False,
    ) -> Fate:  # fmt: skip
        """Run one driver until its sweep is over, it is stopped, its store is lost, or it is killed.

        If it is killed and `outlived`, its workers first finish what they run.
        """
        fate = fate or Fate()
        ledger = cast(Ledger, Mortal(self.ledger, fate, store=True))
        locks = Locks(self.folder / "locks")
        pool = _WatchedPool(self, slots, script)
        self.pid += 1
        try:
            with locks.sweep(sweep, self.clock()) as lease:
                lease = lease.model_copy(update={"pid": self.pid})
                ledger.begin_sweep(StoredPlan(name=sweep, profile="laptop", jobs=()), self.time)
                ledger.set_lease(sweep, lease)
                repair()
                driver = self._driver(sweep, ledger, locks, pool, lease, fate)
                driver.stop.asked = stopped
                with suppress(DiskFull):
                    driver.run()
                self._check_after_orderly_end(sweep)
                ledger.set_lease(sweep, None)
        except (Killed, StoreUnreachable, SweepBusy):
            pass
        finally:
            for order in pool.busy.values() if outlived and fate.dead else ():
                self.ends[order.spec.key, order.attempt] = result_of(order)
            locks.release_all()  # as the system does when a process ends
        self.check()
        return fate

    def _driver(self, sweep: str, ledger: Ledger, locks: Locks, pool: _WatchedPool, lease: Lease, fate: Fate) -> Driver:
        return Driver(
            sweep=sweep,
            planned=compare(self.jobs, ledger.jobs(), lambda name: False),
            ledger=ledger,
            pool=cast(Any, Mortal(pool, fate, store=False)),
            locks=cast(Locks, Mortal(locks, fate, store=False)),
            worker_paths=WorkerPaths("uri", "cache", "checkpoints", "logs", None),
            lease=lease,
            display=Listener(),
            clock=self.clock,
            driver_is_alive=lambda name: False,
            stop=StopRequest(),
            find_end=lambda record: self.ends.get((record.key, record.attempt)),
        )

    def requeue(self) -> None:
        """Do what `orch requeue --failed --cancelled` does for a sweep without a driver."""
        for record in self.ledger.jobs().values():
            if record.state in (S.FAILED, S.CANCELLED):
                self.ledger.move(record.key, S.REQUEUED, self.clock(), reason=record.stop_reason)

    def cancel(self, job: int | None) -> None:
        """Do what `orch cancel` does for a sweep without a driver."""
        specs = self.jobs if job is None else (self.jobs[job],)
        reason = R.SWEEP_CANCELLED if job is None else R.CANCELLED_BY_USER
        for key, attempt in list(self.ends):
            if key in {spec.key for spec in specs}:
                del self.ends[key, attempt]  # whoever cancels a job does not ask how it had ended
        if self.ledger.sweep("s") is not None:
            cancel_waiting(self.ledger, Locks(self.folder / "locks"), specs, "s", reason, self.clock(),
                           lambda name: False, even_new=job is not None)  # fmt: skip

    def request(self, kind: str, job: int | None) -> None:
        """Do what `orch pause` and `orch cancel` do for a sweep with a driver."""
        keys = () if job is None else (self.jobs[job].key,)
        request = ControlRequest(id=f"w{self.time}", kind=cast(Any, kind), keys=keys, at=self.clock())
        with suppress(StoreUnreachable):
            self.ledger.add_request("s", request)

    def check_start(self, order: WorkOrder) -> None:
        """Check what must hold at every start of a job."""
        self._note_finished()
        key = order.spec.key
        record = self.ledger.get(key)
        self._require(key not in self.finished, f"{record.title} had finished and was started again")
        unheard = any(key == ended and end.stop_reason is R.FINISHED for (ended, _), end in self.ends.items())
        self._require(not unheard, f"{record.title} had finished unheard and was started again")
        self._require(record.state is S.RUNNING, f"{record.title} was started while {record.state}")
        self._require((key, order.attempt) not in self.starts, f"attempt {order.attempt} of {record.title} ran twice")
        upstream = order.spec.upstream
        self._require(upstream is None or upstream.key in self.finished, f"{record.title} ran before its upstream job")
        self.starts.append((key, order.attempt))

    def check(self) -> None:
        """Check what must hold whenever no driver is alive."""
        self._note_finished()
        for record in self.ledger.jobs().values():
            succeeded = record.state is S.SUCCEEDED
            whole = record.result is not None and record.result.metrics is not None and record.result.checkpoint
            self._require(not succeeded or bool(whole), f"{record.title} has succeeded without results")
            self._require(record.key not in self.finished or succeeded, f"{record.title} had finished; {record.state}")
            tried = sum(key == record.key for key, _ in self.starts)
            self._require(tried <= record.attempt, f"{record.title} was started more often than its attempts")
        assert not self.faults, self.faults

    def _check_after_orderly_end(self, sweep: str) -> None:
        """Check what must hold after a driver that was not killed, even if it was asked to stop."""
        for record in self.ledger.jobs().values():
            left = record.state is S.RUNNING and record.driven_by == sweep
            self._require(not left, f"{record.title} was left running without a driver")

    def check_all_done(self, allowed: Collection[JobState] = (S.SUCCEEDED,)) -> None:
        """Check the end of a sweep that nothing disturbed."""
        records = self.ledger.jobs()
        assert set(records) == {job.key for job in self.jobs}
        assert {record.state for record in records.values()} <= set(allowed), records

    def _note_finished(self) -> None:
        self.finished |= {record.key for record in self.ledger.jobs().values() if record.state is S.SUCCEEDED}

    def _require(self, condition: bool, otherwise: str) -> None:
        if not condition:
            self.faults.append(otherwise)


class _WatchedPool(ScriptedPool):
    """Reports every start to the world; while it waits, time passes and other processes run."""

    def __init__(self, world: World, slots: int, script: dict[str, list[StopReason]] | None) -> None:
        super().__init__(slots, script)
        self._world = world
        self._turns = 0
        self.on_start = world.check_start

    def wait(self, seconds: float) -> list[Ended]:
        self._turns += 1
        assert self._turns < MOST_TURNS, "the sweep does not end"
        if not self.busy:
            self._world.time += MAX_BACKOFF_SECONDS / 4
        self._world.meanwhile(self)
        ended = super().wait(seconds)
        told = [one.result for one in ended if one.result.stop_reason not in UNREPORTED]
        self._world.ends |= {(result.job_key, result.attempt): result for result in told}
        return ended
