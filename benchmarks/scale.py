"""How many job ends a second one driver settles, and what takes its time: many jobs on many slots, no Ray.

    python -m benchmarks.scale [--jobs 2000] [--slots 50] [--seconds 60] [--ends N] [--ledger mlflow] [--profile FILE]

Driver, scheduler, settlement, locks and ledger are the real ones. Only the pool is simulated: its jobs last about
`--seconds` of a clock that goes on by the CPU seconds of this process and skips the time in which the driver would
wait. A driver that falls behind therefore settles late and leaves slots without a job, as with real jobs.
"""

from __future__ import annotations

import argparse
import cProfile
import functools
import heapq
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.restart import BASE, Silent
from orchestrator.execution import driver as driving
from orchestrator.execution.driver import Driver
from orchestrator.execution.job_queue import JobQueue
from orchestrator.execution.placement import Idle, Wish, decide
from orchestrator.execution.pool import Ended
from orchestrator.execution.settlement import Settlement
from orchestrator.execution.stop_request import StopRequest
from orchestrator.execution.sweep_state import SweepState
from orchestrator.execution.work_orders import WorkerPaths
from orchestrator.ledger import store
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.mlflow_ledger import MlflowLedger
from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.diff import compare
from orchestrator.planning.planner import NullResolver, plan
from orchestrator.planning.request import SweepRequest, define
from orchestrator.settings import Settings
from schemas.job import JobSpec
from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkOrder
from schemas.results import CheckpointPointer, JobMetrics, JobResult
from schemas.sweep import Needs, Resources, SweepSpec

NAME = "scale"
SPREAD = 0.2
"""Durations are spread evenly by up to this fraction, so that jobs do not end together."""


class Clock:
    """CPU seconds of this process, and the skipped waits."""

    def __init__(self) -> None:
        self.skipped = time.time()

    def __call__(self) -> float:
        return self.skipped + time.process_time()


class SimulatedPool:
    """A pool of slots on one node, whose jobs end when their time is over."""

    def __init__(self, slots: int, needs: Needs, seconds: float, clock: Clock, stop: StopRequest, ends: int) -> None:
        self._clock, self._seconds, self._stop, self._left = clock, seconds, stop, ends
        self._idle = {number: Idle(number, needs, "node") for number in range(slots)}
        self._of = dict(self._idle)
        self._busy: dict[int, WorkOrder] = {}
        self._ends: list[tuple[float, int]] = []
        self._changed, self.busy_seconds = clock(), 0.0
        self.ended = 0
        self.on_ends: Callable[[], None] = lambda: None

    @property
    def size(self) -> int:
        return len(self._of)

    cores, is_private, packs, places = 0, False, False, 1

    def ask(self, wishes: Sequence[Wish], barred: Mapping[int, frozenset[str]] = MappingProxyType({})) -> None:
        """Decide on workers as the pool of Ray does, although none can be added."""
        decide(wishes, self.idle(), (), (), 0, 0)

    def idle(self) -> list[Idle]:
        return list(self._idle.values())

    def nodes(self) -> dict[str, str]:
        return {"node": "host"}

    def waiting(self) -> str:
        return ""

    def start(self, worker: int, order: WorkOrder) -> None:
        self._count()
        del self._idle[worker]
        self._busy[worker] = order
        share = int(order.spec.key[:4], 16) / 0xFFFF * 2 - 1
        heapq.heappush(self._ends, (self._clock() + self._seconds * (1 + SPREAD * share), worker))

    def wait(self, seconds: float) -> list[Ended]:
        """Return the attempts that have ended; if there are none, skip the time to the next end."""
        if self._ends and not self._stop.asked:
            self._clock.skipped += max(0.0, min(seconds, self._ends[0][0] - self._clock()))
        self._count()
        found = []
        while self._ends and (self._stop.asked or self._ends[0][0] <= self._clock()):
            _, worker = heapq.heappop(self._ends)
            reason = StopReason.INTERRUPTED if self._stop.asked else StopReason.FINISHED
            found.append(Ended(worker, _result(self._busy.pop(worker), reason, self._seconds), "node", True))
            self._idle[worker] = self._of[worker]
        if not self._stop.asked:
            self.ended += len(found)
        if self.ended >= self._left and not self._stop.asked:
            self.on_ends()
            self._stop.asked = True
        return found

    def _count(self) -> None:
        now = self._clock()
        self.busy_seconds += len(self._busy) * (now - self._changed)
        self._changed = now

    def warnings(self) -> frozenset[str]:
        return frozenset()

    def progress(self) -> dict[int, Progress]:
        return {
            worker: Progress(job_key=order.spec.key, phase="training", epoch=1, epochs=3)
            for worker, order in self._busy.items()
        }

    def stop(self) -> None: ...
    def interrupt(self, worker: int) -> None: ...
    def close(self) -> None: ...


def _result(order: WorkOrder, reason: StopReason, seconds: float) -> JobResult:
    key, is_done = order.spec.key, reason is StopReason.FINISHED
    return JobResult(
        job_key=key, attempt=order.attempt, stop_reason=reason, epochs_done=1, seconds=seconds,
        metrics=JobMetrics(test_accuracy=0.9, train_accuracy=1.0, location_instability=0.08) if is_done else None,
        checkpoint=CheckpointPointer(path=f"/checkpoints/{key}/final.pt", epoch=1, sha256="0" * 64),
    )  # fmt: skip


class Meter:
    """CPU seconds by part of the driver, each without the parts that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count the time in a function of a module, or a method of a class or an object, as that of a part."""
        call = getattr(owner, name)

        @functools.wraps(call)
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            self._inner.append(0.0)
            try:
                return call(*arguments, **named)
            finally:
                whole = time.process_time() - began
                self.seconds[part] += whole - self._inner.pop()
                self._inner[-1] += whole

        setattr(owner, name, timed)


def watch(meter: Meter, ledger: Ledger) -> None:
    """Measure the parts of the driver."""
    for name in ("get", "add", "move"):
        meter.watch(ledger, name, f"ledger.{name}")
    for name in ("set_lease", "set_progress", "set_waiting", "pending_requests"):
        meter.watch(ledger, name, "ledger, others")
    for owner, name, part in (
        (JobQueue, "ready", "queue"), (JobQueue, "__setitem__", "queue"), (JobQueue, "blocked", "queue"),
        (driving, "assign", "placement"), (Driver, "_fill_workers", "filling workers"), (Driver, "_start", "starting"),
        (Settlement, "settle", "settlement"), (Driver, "_show", "showing"), (SweepState, "cells", "showing"),
        (SweepState, "time_left", "estimate"), (Locks, "take_job", "locks"), (Locks, "release_job", "locks"),
        (SimulatedPool, "ask", "placement"), (SimulatedPool, "start", "simulation"),
        (SimulatedPool, "wait", "simulation"),
        (SimulatedPool, "progress", "simulation"), (SimulatedPool, "idle", "simulation"),
    ):  # fmt: skip
        meter.watch(owner, name, part)


def memory_kb(what: str) -> int:
    """Return a figure of this process: VmRSS or VmHWM."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def make_plan(jobs: int) -> StoredPlan:
    """Return a plan as the store has it, of jobs that differ in their seeds."""
    axes = {"category": ("voc_part/cat",), "seed": (0,)}
    first = plan(define(SweepRequest(sweep=SweepSpec(name=NAME, base=BASE, axes=axes))), NullResolver()).jobs[0]
    fields = first.model_dump(mode="json")
    return StoredPlan(name=NAME, profile="laptop", jobs=tuple({**fields, "seed": seed} for seed in range(jobs)))


def open_ledger(kind: str, home: Path, plan: StoredPlan, jobs: Sequence[JobSpec]) -> Ledger:
    """Return a ledger in which the sweep has begun: in memory, or MLflow's with SQLite."""
    ledger: Ledger = InMemoryLedger()
    if kind == "mlflow":
        settings = Settings(home=home)
        store.prepare_home(settings)
        ledger = MlflowLedger(store.make_client(settings), settings.store_uri)
    ledger.begin_sweep(StoredPlan.of(NAME, plan.profile, None, jobs, frozenset(), Resources()), time.time())
    return ledger


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000, help="jobs of the sweep (default 2000)")
    parser.add_argument("--slots", type=int, default=50, help="jobs that run at a time (default 50)")
    parser.add_argument("--seconds", type=float, default=60.0, help="mean duration of a job (default 60)")
    parser.add_argument("--ends", type=int, help="stop after so many jobs have ended (default: all)")
    parser.add_argument("--ledger", choices=("memory", "mlflow"), default="memory")
    parser.add_argument("--profile", type=Path, help="file for a profile of the driver, for `python -m pstats`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orch-scale-") as folder:
        run(options, Path(folder))


def run(options: argparse.Namespace, folder: Path) -> None:
    """Make the sweep, drive it, and print what was measured."""
    plan = make_plan(options.jobs)
    before, made = memory_kb("VmRSS"), time.process_time()
    specs = plan.specs
    kept = memory_kb("VmRSS")
    made = time.process_time() - made
    ledger = open_ledger(options.ledger, folder / "home", plan, specs)
    clock, stop, meter = Clock(), StopRequest(), Meter()
    ends = min(options.ends or options.jobs, options.jobs)
    pool = SimulatedPool(options.slots, Resources().needs("alexnet"), options.seconds, clock, stop, ends)
    watch(meter, ledger)
    opened = memory_kb("VmRSS")
    driver = Driver(
        sweep=NAME, planned=compare(specs, {}, lambda name: False), ledger=ledger, pool=pool,
        locks=Locks(folder / "locks"), worker_paths=WorkerPaths("uri", "cache", "checkpoints", "logs", None),
        lease=Lease(host="here", pid=os.getpid(), since=clock(), sign_at=clock()), display=Silent(), clock=clock,
        driver_is_alive=lambda name: False, stop=stop,
    )  # fmt: skip
    began, used = clock(), time.process_time()
    result: dict[str, float] = {}

    def finish() -> None:
        result.update(meter.seconds, clock=clock() - began, cpu=time.process_time() - used, memory=memory_kb("VmRSS"))

    pool.on_ends = finish
    profile = cProfile.Profile()
    if options.profile:
        profile.runcall(driver.run)
        profile.dump_stats(options.profile)
    else:
        driver.run()
    passed, cpu, memory = result.pop("clock"), result.pop("cpu"), result.pop("memory")
    cpu -= result.pop("simulation")
    print(f"{options.jobs} jobs on {options.slots} slots of {options.seconds:g} s each, ledger in {options.ledger}:")
    print(f"| jobs ended | {pool.ended} in {passed:.1f} s |\n| ends a second | {pool.ended / passed:.1f} |")
    print(f"| slots at work | {pool.busy_seconds / passed / options.slots:.0%} |")
    print(f"| CPU a job | {1000 * cpu / pool.ended:.2f} ms |\n| ends a second of CPU | {pool.ended / cpu:.0f} |")
    for part, seconds in sorted(result.items(), key=lambda one: -one[1]):
        print(f"| {part} | {1000 * seconds / pool.ended:.3f} ms |")
    print(f"| the rest | {1000 * (cpu - sum(result.values())) / pool.ended:.3f} ms |")
    print(f"| specs of the plan | {(kept - before) / options.jobs:.1f} kB a job, {1e3 * made / options.jobs:.2f} ms |")
    print(f"| driver and ledger beside them | {(memory - opened) / options.jobs:.1f} kB a job |")
    print(f"| most memory, all of it | {memory_kb('VmHWM') / options.jobs:.1f} kB a job |")


if __name__ == "__main__":
    main()
