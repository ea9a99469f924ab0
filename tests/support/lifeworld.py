"""A sweep in a world where anything may end at any moment: its driver, its workers, its store. For model tests."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, cast

from orchestrator.execution.cancel import cancel_waiting
from orchestrator.execution.driver import Driver, WorkerPaths
from orchestrator.execution.pool import Ended
from orchestrator.execution.scheduler import MAX_BACKOFF_SECONDS, RETRY
from orchestrator.execution.stop_request import StopRequest
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
from tests.support.doubles import Listener, ScriptedPool, plan_of

JOBS = plan_of("smoke", categories=("cat",), backbones=("alexnet",)).jobs
"""A pre-training job, and two that start from it."""
S, R = JobState, StopReason
MOST_TRIES = 1 + sum(rule.retries for rule in RETRY.values())
"""More attempts than this no driver makes of one job."""
MOST_TURNS = 2000

EFFECTS = frozenset({"add", "move", "begin_sweep", "stamp", "conclude", "ask", "answer", "lift", "take_job", "start"})
"""Calls that change something outside the driver: between any two of them it may die."""


class Killed(BaseException):
    """The driver's process is gone: nothing of it runs after this, neither `finally` nor `except`."""


class Fate:
    """Decides before which effect a driver dies, and before which ones the store is away."""

    def __init__(self, dies_before: int | None = None, away: Collection[int] = ()) -> None:
        self.dies_before, self.away = dies_before, frozenset(away)
        self.effects = 0
        self.dead = False

    def before_effect(self, store: bool) -> None:
        self.effects += 1
        self.dead |= self.effects == self.dies_before
        self.before_look(store)

    def before_look(self, store: bool) -> None:
        if self.dead:
            raise Killed
        if store and self.effects in self.away:
            self.effects += 1
            raise StoreUnreachable("away for a while")


class Mortal:
    """Something the driver uses, seen from a driver that may die before each effect."""

    def __init__(self, real: Any, fate: Fate, *, store: bool) -> None:
        self._real, self._fate, self._store = real, fate, store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not callable(found):
            return found

        @wraps(found)
        def call(*arguments: Any, **named: Any) -> Any:
            look = self._fate.before_effect if name in EFFECTS else self._fate.before_look
            look(self._store)
            return found(*arguments, **named)

        return call


class World:
    """What outlasts a driver: the store, the locks, the clock, and everything that must hold of them."""

    def __init__(self, folder: Path, ledger: Ledger | None = None, jobs: tuple[JobSpec, ...] = JOBS) -> None:
        self.jobs = jobs
        self.ledger: Ledger = ledger or InMemoryLedger()
        self.folder = folder
        self.time = 0.0
        self.pid = 0
        self.starts: list[tuple[str, int]] = []
        """Key and attempt of every job that was handed to a worker."""
        self.finished: set[str] = set()
        self.faults: list[str] = []
        self.meanwhile: Callable[[ScriptedPool], None] = lambda pool: None

    def clock(self) -> float:
        self.time += 1.0
        return self.time

    def drive(
        self, sweep: str = "s", *, fate: Fate | None = None, script: dict[str, list[StopReason]] | None = None,
        slots: int = 2, repair: Callable[[], None] = lambda: None, stopped: bool = False,
    ) -> Fate:  # fmt: skip
        """One life of a driver: until its sweep is over, it is stopped, its store stays away, or it dies."""
        fate = fate or Fate()
        ledger = cast(Ledger, Mortal(self.ledger, fate, store=True))
        locks = Locks(self.folder / "locks")
        pool = _WatchedPool(self, slots, script)
        self.pid += 1
        try:
            with locks.sweep(sweep, self.clock()) as lease:
                lease = lease.model_copy(update={"pid": self.pid})
                ledger.begin_sweep(StoredPlan(name=sweep, profile="laptop", jobs=()), self.time)
                ledger.stamp(sweep, lease)
                repair()
                driver = self._driver(sweep, ledger, locks, pool, lease, fate)
                driver.stop.asked = stopped
                with suppress(DiskFull):
                    driver.run()
                self._look_at_end_of(sweep)
                ledger.stamp(sweep, None)
        except (Killed, StoreUnreachable, SweepBusy):
            pass
        finally:
            locks.release_all()  # the system does that for a process that is gone
        self.look()
        return fate

    def _driver(self, sweep: str, ledger: Ledger, locks: Locks, pool: _WatchedPool, lease: Lease, fate: Fate) -> Driver:
        return Driver(
            sweep=sweep,
            planned=compare(self.jobs, ledger.jobs(), lambda name: False),
            ledger=ledger,
            pool=cast(Any, Mortal(pool, fate, store=False)),
            locks=cast(Locks, Mortal(locks, fate, store=False)),
            worker_paths=WorkerPaths("uri", "cache", "checkpoints", "logs", None, cpus_per_worker=1, cores=4),
            lease=lease,
            display=Listener(),
            clock=self.clock,
            driver_is_alive=lambda name: False,
            stop=StopRequest(),
        )

    def requeue(self) -> None:
        """What `orch requeue --failed --cancelled` does with nobody driving."""
        for record in self.ledger.jobs().values():
            if record.state in (S.FAILED, S.CANCELLED):
                self.ledger.move(record.key, S.REQUEUED, self.clock(), reason=record.stop_reason)

    def cancel(self, job: int | None) -> None:
        """What `orch cancel` does with nobody driving."""
        specs = self.jobs if job is None else (self.jobs[job],)
        reason = R.SWEEP_CANCELLED if job is None else R.CANCELLED_BY_USER
        if self.ledger.sweep("s") is not None:
            cancel_waiting(self.ledger, Locks(self.folder / "locks"), specs, "s", reason, self.clock(),
                           lambda name: False, even_new=job is not None)  # fmt: skip

    def ask(self, kind: str, job: int | None) -> None:
        """What `orch pause` and `orch cancel` do while somebody drives."""
        keys = () if job is None else (self.jobs[job].key,)
        request = ControlRequest(id=f"w{self.time}", kind=cast(Any, kind), keys=keys, at=self.clock())
        with suppress(StoreUnreachable):
            self.ledger.ask("s", request)

    def begun(self, order: WorkOrder) -> None:
        """Held at every start of a job."""
        self._note_finished()
        key = order.spec.key
        record = self.ledger.get(key)
        self._hold(key not in self.finished, f"{record.title} had finished and was started again")
        self._hold(record.state is S.RUNNING, f"{record.title} was started while {record.state}")
        self._hold((key, order.attempt) not in self.starts, f"attempt {order.attempt} of {record.title} ran twice")
        upstream = order.spec.upstream
        self._hold(upstream is None or upstream.key in self.finished, f"{record.title} ran before what it starts from")
        self.starts.append((key, order.attempt))

    def look(self) -> None:
        """Held whenever no driver lives."""
        self._note_finished()
        for record in self.ledger.jobs().values():
            succeeded = record.state is S.SUCCEEDED
            whole = record.result is not None and record.result.metrics is not None and record.result.checkpoint
            self._hold(not succeeded or bool(whole), f"{record.title} has succeeded without results")
            self._hold(record.key not in self.finished or succeeded, f"{record.title} had finished; {record.state}")
            tried = sum(key == record.key for key, _ in self.starts)
            self._hold(tried <= record.attempt, f"{record.title} was started more often than its attempts")
        assert not self.faults, self.faults

    def _look_at_end_of(self, sweep: str) -> None:
        """Held when a driver ends in order, even if it was told to."""
        for record in self.ledger.jobs().values():
            left = record.state is S.RUNNING and record.driven_by == sweep
            self._hold(not left, f"{record.title} was left running by nobody")

    def check_all_done(self, allowed: Collection[JobState] = (S.SUCCEEDED,)) -> None:
        """After a driver that was left in peace."""
        records = self.ledger.jobs()
        assert set(records) == {job.key for job in self.jobs}
        assert {record.state for record in records.values()} <= set(allowed), records

    def _note_finished(self) -> None:
        self.finished |= {record.key for record in self.ledger.jobs().values() if record.state is S.SUCCEEDED}

    def _hold(self, condition: bool, otherwise: str) -> None:
        if not condition:
            self.faults.append(otherwise)


class _WatchedPool(ScriptedPool):
    """Tells the world of every start, and lets time and other people pass while it waits."""

    def __init__(self, world: World, slots: int, script: dict[str, list[StopReason]] | None) -> None:
        super().__init__(slots, script)
        self._world = world
        self._turns = 0
        self.on_start = world.begun

    def wait(self, seconds: float) -> list[Ended]:
        self._turns += 1
        assert self._turns < MOST_TURNS, "the sweep does not end"
        if not self.busy:
            self._world.time += MAX_BACKOFF_SECONDS / 4
        self._world.meanwhile(self)
        return super().wait(seconds)
