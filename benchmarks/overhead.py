"""What orch, MLflow, Ray and Ray Tune add to a job: time per job of jobs that do not compute, side by side.

    python -m benchmarks.overhead [--jobs 200] [--preloaded 296 10000] [--system NAME]

Two jobs run at a time. Time per job is the time from the first job's begin to the last one's, divided by their number
less one, so neither Ray's start nor that of the workers is part of it; likewise the CPU time of the driver and its
workers, which counts on a machine that also does other work. Every measurement has a process of its own.

* orch: planner, driver, ledger, Ray and worker of orch; a job does all but compute (see `benchmarks.no_op`). On a store
  that already holds so many finished jobs.
* orch, one process: what the ledger and the worker of orch do for such a job, one after the other and without Ray.
* orch, untracked: the same driver and Ray pool, with a ledger in memory and a worker that answers at once.
* MLflow: the content of such a job's run in the fewest calls, in one process: a run with its tags, its parameters and
  metrics in one batch, its files in one, its end.
* a Ray task: an empty remote function, two at a time.
* Ray Tune with MLflow's callback (needs `ray[tune]`): a trial reports one number; actors are reused.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.no_op import NoOpWorker, UntrackedWorker, measured, note, notes, open_pool, patiently, write_outcome
from benchmarks.restart import BASE, Silent, multiply
from schemas.job import JobSpec

SLOTS = 2
NAME = "measured"


class Cost(NamedTuple):
    """Milliseconds per job."""

    wall: float
    driver: float
    """CPU time of the process that hands out the jobs."""
    workers: float
    """CPU time of the processes that run them."""

    @property
    def cpu(self) -> float:
        """CPU time of both."""
        return self.driver + self.workers


@dataclass
class Meter:
    """Measures from the first noted begin to the last one, of `jobs`."""

    folder: Path
    jobs: int
    _used: list[dict[int, float]] = field(default_factory=list)
    """CPU seconds by process, first at the first begin and then at the last."""

    def __enter__(self) -> Meter:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        for wanted in (1, self.jobs):
            while len(self._begins()) < wanted and not self._over.wait(0.02):
                pass
            self._used.append(used_cpu())

    def _begins(self) -> list[float]:
        return sorted(line["at"] for line in notes(self.folder) if line["what"] == "begins")

    def cost(self) -> Cost:
        """Return what one job took, after the context has ended."""
        begins = self._begins()
        return cost_of(begins[-1] - begins[0], *self._used, self.jobs - 1)


def used_cpu() -> dict[int, float]:
    """Return the CPU seconds so far of this process and of Ray's workers below it."""
    found = {}
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            if process.pid == os.getpid() or process.cmdline()[0].startswith("ray::"):
                times = process.cpu_times()
                found[process.pid] = times.user + times.system
    return found


def cost_of(wall: float, before: Mapping[int, float], after: Mapping[int, float], jobs: int) -> Cost:
    """Return the cost of one of `jobs` jobs, from what all of them took, in seconds."""
    used = {pid: seconds - before.get(pid, 0.0) for pid, seconds in after.items()}
    driver = used.pop(os.getpid())
    return Cost(*(1000 * seconds / jobs for seconds in (wall, driver, sum(used.values()))))


# -- orch ---------------------------------------------------------------------------------------------------------


def sweep_of(name: str, category: str, jobs: int) -> Any:
    """Return the definition of a sweep of so many jobs that differ in their seed."""
    from schemas.sweep import SweepSpec

    return SweepSpec(name=name, base=BASE, axes={"category": (category,), "seed": tuple(range(jobs))})


@dataclass
class OneProcess:
    """A store, and jobs that are run in this process: what the driver and its worker do, without Ray."""

    folder: Path
    cpu_of_ledger: float = 0.0
    """Seconds."""
    cpu_of_worker: float = 0.0

    def __post_init__(self) -> None:
        from benchmarks.no_op import compute_nothing
        from orchestrator.ledger import store
        from orchestrator.ledger.mlflow_ledger import MlflowLedger
        from orchestrator.settings import Settings

        self.settings = Settings(home=self.folder / "orch")
        store.prepare_home(self.settings)
        self.ledger = MlflowLedger(store.make_client(self.settings), self.settings.store_uri)
        compute_nothing()

    def begin(self, name: str, category: str, jobs: int) -> tuple[JobSpec, ...]:
        """Begin a sweep and return its jobs."""
        from orchestrator.ledger.records import StoredPlan
        from orchestrator.planning.request import SweepRequest
        from orchestrator.services import sweeps

        request = SweepRequest(sweep=sweep_of(name, category, jobs))
        planned = sweeps.plan_sweep(self.settings, request).sweep
        plan = StoredPlan.of(name, planned.profile, None, planned.jobs, planned.upstream_keys, planned.resources)
        self.ledger.begin_sweep(plan, time.time())
        return planned.jobs

    def run(self, spec: JobSpec, sweep: str) -> None:
        """Run a job as a driver and its worker do, and add up their CPU time."""
        from orchestrator.execution.work_orders import WorkerPaths, work_order
        from schemas.lifecycle import JobState
        from workers.job import run_job

        settings, began = self.settings, time.process_time()
        folders = (str(settings.cache_dir), str(settings.checkpoint_dir), str(settings.log_dir))
        self.ledger.add(spec, sweep, time.time())
        facts = {"host": "here", "threads": "1", "sweep": sweep, "micro_batches": "1"}
        record = self.ledger.move(spec.key, JobState.RUNNING, time.time(), facts=facts)
        order = work_order(spec, record, None, WorkerPaths(settings.store_uri, *folders, None), 1, 1)
        ordered = time.process_time()
        result = run_job(order, lambda progress: None, lambda: False)
        ended = time.process_time()
        assert result.metrics is not None, result
        self.ledger.get(spec.key)
        self.ledger.move(spec.key, JobState.SUCCEEDED, time.time(), reason=result.stop_reason, result=result)
        self.cpu_of_ledger += time.process_time() - ended + ordered - began
        self.cpu_of_worker += ended - ordered


def preload(folder: Path, jobs: int) -> OneProcess:
    """Return a store with one finished sweep: its first job is run, the rows of its run are multiplied."""
    store = OneProcess(folder)
    if jobs:
        first, *others = store.begin("earlier", "voc_part/cat", jobs)
        store.run(first, "earlier")
        assert store.settings.database is not None
        multiply(store.settings.database, first, others)
    return store


def time_one_process(folder: Path, jobs: int, preloaded: int) -> Cost:
    """Return the milliseconds per job of orch without Ray, in a store with `preloaded` finished jobs."""
    store = preload(folder, preloaded)
    first, *others = store.begin(NAME, "voc_part/dog", jobs + 1)
    store.run(first, NAME)  # caches are filled
    store.cpu_of_ledger = store.cpu_of_worker = 0.0
    began = time.perf_counter()
    for spec in others:
        store.run(spec, NAME)
    found = (time.perf_counter() - began, store.cpu_of_ledger, store.cpu_of_worker)
    return Cost(*(1000 * seconds / jobs for seconds in found))


def time_orch(folder: Path, jobs: int, preloaded: int) -> Cost:
    """Return the milliseconds per job of a sweep of orch in a store with `preloaded` finished jobs."""
    from orchestrator.planning.request import SweepRequest
    from orchestrator.services import sweeps
    from orchestrator.settings import Settings

    preload(folder, preloaded)
    request = SweepRequest(sweep=sweep_of(NAME, "voc_part/dog", jobs))
    settings = Settings(home=folder / "orch")
    with Meter(folder, jobs) as meter:
        outcome = sweeps.run_sweep(settings, request, Silent(), open_pool=open_pool(folder, NoOpWorker, SLOTS))
    assert outcome.is_complete, outcome
    return meter.cost()


def time_untracked(folder: Path, jobs: int, preloaded: int) -> Cost:
    """Return the milliseconds per job of orch's driver with a ledger in memory and workers that answer at once."""
    from orchestrator.execution.driver import Driver
    from orchestrator.execution.work_orders import WorkerPaths
    from orchestrator.ledger.lease import Lease
    from orchestrator.ledger.locks import Locks
    from orchestrator.ledger.memory import InMemoryLedger
    from orchestrator.ledger.records import StoredPlan
    from orchestrator.planning.diff import compare
    from orchestrator.planning.request import SweepRequest
    from orchestrator.services import sweeps
    from orchestrator.settings import Settings

    settings, now = Settings(home=folder / "orch"), time.time()
    planned = sweeps.plan_sweep(settings, SweepRequest(sweep=sweep_of(NAME, "voc_part/dog", jobs))).sweep
    stored = StoredPlan.of(NAME, planned.profile, None, planned.jobs, planned.upstream_keys, planned.resources)
    ledger = InMemoryLedger()
    ledger.begin_sweep(stored, now)
    lease = Lease(host="here", pid=os.getpid(), since=now, sign_at=now)
    ledger.set_lease(NAME, lease)
    driver = Driver(
        sweep=NAME,
        planned=compare(stored.specs, {}, lambda name: False),
        ledger=ledger,
        pool=open_pool(folder, UntrackedWorker, SLOTS)(settings, stored, jobs),
        locks=Locks(settings.lock_dir),
        worker_paths=WorkerPaths("none", "none", "none", "none", None),
        lease=lease,
        display=Silent(),
        clock=time.time,
        driver_is_alive=lambda name: False,
    )
    with Meter(folder, jobs) as meter:
        driver.run()
    assert driver.begun == jobs
    return meter.cost()


# -- what it is compared with ---------------------------------------------------------------------------------------


def time_mlflow(folder: Path, jobs: int, preloaded: int) -> Cost:
    """Return the milliseconds per run that MLflow itself takes to log what a job of orch logs."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    from orchestrator.ledger import store
    from orchestrator.ledger.job_moves import first_record
    from orchestrator.ledger.tags import identity_tags, state_tags
    from orchestrator.planning.request import SweepRequest
    from orchestrator.services import sweeps
    from orchestrator.settings import Settings
    from workers.tracking.run_facts import surroundings
    from workers.tracking.run_log import CURVES, SUMMARY, flatten

    settings = Settings(home=folder / "orch")
    store.prepare_home(settings)
    store.make_client(settings)
    client = MlflowClient(settings.store_uri)
    experiment = client.create_experiment("plain", artifact_location=settings.artifact_uri)
    planned = sweeps.plan_sweep(settings, SweepRequest(sweep=sweep_of(NAME, "voc_part/dog", jobs))).sweep
    checkpoint = folder / "final.pt"
    checkpoint.write_bytes(bytes(1500))
    with Meter(folder, jobs) as meter:
        for spec in planned.jobs:
            note(folder, spec.key, "begins")
            record = first_record(spec, NAME, time.time(), "")
            tags = {"orch.spec": record.spec_json, **identity_tags(spec), **state_tags(record), **surroundings()}
            run_id = client.create_run(experiment, tags=tags, run_name=spec.title).info.run_id
            now = int(time.time() * 1000)
            numbers = {**dict.fromkeys(CURVES.values(), 0.5), **{name: getattr(measured(), name) for name in SUMMARY}}
            client.log_batch(
                run_id,
                metrics=[Metric(name, float(value), now, 1) for name, value in numbers.items() if value is not None],
                params=[Param(name, value) for name, value in flatten(spec.model_dump(mode="json")).items()],
                tags=[RunTag("orch.result", measured().model_dump_json())],
            )
            with tempfile.TemporaryDirectory(prefix="orch-") as files:
                write_outcome(Path(files), record.spec_json, str(checkpoint))
                client.log_artifacts(run_id, files)
            client.set_terminated(run_id)
    return meter.cost()


def time_ray(folder: Path, jobs: int, preloaded: int) -> Cost:
    """Return the milliseconds per empty Ray task, two at a time."""
    import ray

    from orchestrator.execution.ray_session import RaySession

    session = RaySession("local", cpus=SLOTS)
    patiently(session.start)
    try:
        task = ray.remote(_nothing)
        ray.get([task.remote() for _ in range(10 * SLOTS)])  # start the workers
        left = jobs
        before, began = used_cpu(), time.perf_counter()
        at_work = [task.remote() for _ in range(SLOTS)]
        while at_work:
            done, at_work = ray.wait(at_work, num_returns=1)
            ray.get(done)
            left -= len(done)
            if left >= SLOTS:
                at_work += [task.remote() for _ in done]
        return cost_of(time.perf_counter() - began, before, used_cpu(), jobs)
    finally:
        session.stop()


def _nothing() -> None: ...


def time_tune(folder: Path, jobs: int, preloaded: int) -> Cost:
    """Return the milliseconds per trial of Ray Tune with MLflow's callback."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    from orchestrator.execution.ray_session import RaySession
    from orchestrator.settings import sqlite_uri

    session = RaySession("local", cpus=SLOTS)
    patiently(session.start)
    write = note  # a closure, because workers of Ray do not import this module by its name

    def trial(config: dict[str, Any]) -> None:
        write(folder, str(config["trial"]), "begins")
        tune.report({"score": float(config["trial"])})

    try:
        assert ray.is_initialized()
        callback = MLflowLoggerCallback(tracking_uri=sqlite_uri(folder / "mlflow.db"), experiment_name=NAME)
        with Meter(folder, jobs) as meter:
            tune.Tuner(
                trial,
                param_space={"trial": tune.grid_search(list(range(jobs)))},
                tune_config=tune.TuneConfig(max_concurrent_trials=SLOTS, reuse_actors=True),
                run_config=tune.RunConfig(
                    name=NAME, storage_path=str(folder / "tune"), callbacks=[callback], verbose=0
                ),
            ).fit()
    finally:
        session.stop()
    return meter.cost()


# -- the table ----------------------------------------------------------------------------------------------------

SYSTEMS: dict[str, Callable[[Path, int, int], Cost]] = {
    "orch": time_orch,
    "one-process": time_one_process,
    "untracked": time_untracked,
    "mlflow": time_mlflow,
    "ray": time_ray,
    "tune": time_tune,
}
TITLES = {
    "orch": "orch, {} finished jobs in the store",
    "one-process": "orch, one process, {} finished jobs",
    "untracked": "orch, untracked",
    "mlflow": "MLflow alone, one process",
    "ray": "a Ray task",
    "tune": "Ray Tune + MLflow callback",
}
STORES = ("orch", "one-process")
"""Systems whose store is filled before."""


def measure(system: str, jobs: int, preloaded: int) -> Cost:
    """Return the milliseconds per job of one system, measured in a process of its own."""
    folder = Path(tempfile.mkdtemp(prefix="overhead-"))
    words = ["--measure", system, "--jobs", str(jobs), "--preloaded", str(preloaded), "--folder", str(folder)]
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    try:
        with open(folder / "log", "wb") as log:
            command = [sys.executable, "-m", "benchmarks.overhead", *words]
            done = subprocess.run(command, env={**os.environ, **quiet}, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise SystemExit(f"{system} failed:\n{(folder / 'log').read_text()[-2000:]}")
        return Cost(*json.loads((folder / "answer.json").read_text()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(found: dict[str, Cost]) -> str:
    """Return the results as a Markdown table, with each one relative to MLflow alone."""
    one = found.get(TITLES["mlflow"])
    rows = [
        f"| {name} | {cost.wall:.1f} | {cost.cpu:.1f} | {cost.driver:.1f} | {cost.workers:.1f} | "
        f"{f'{cost.wall / one.wall:.2f}' if one else ''} | {f'{cost.cpu / one.cpu:.2f}' if one else ''} |"
        for name, cost in found.items()
    ]
    head = "| ms per job | wall | CPU | of the driver | of the workers | wall / MLflow alone | CPU / MLflow alone |"
    return "\n".join([head, "|---" * 7 + "|", *rows])


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="to measure (default 200)")
    parser.add_argument("--preloaded", type=int, nargs="+", default=[296, 10_000], help="finished jobs in the store")
    parser.add_argument("--system", choices=SYSTEMS, action="append", help="only this one; may be repeated")
    for hidden in ("--measure", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        folder = Path(options.folder)
        answer = SYSTEMS[options.measure](folder, options.jobs, options.preloaded[0])
        (folder / "answer.json").write_text(json.dumps(answer))
        return
    found = {}
    for system in options.system or SYSTEMS:
        for preloaded in options.preloaded if system in STORES else [0]:
            found[TITLES[system].format(preloaded)] = measure(system, options.jobs, preloaded)
    print(table(found))


if __name__ == "__main__":
    main()
