"""What orch, MLflow, Ray and Ray Tune add to a job: time per job of jobs that do not compute, side by side.

    python -m benchmarks.overhead [--jobs 200] [--preloaded 296 10000] [--system NAME]

Two jobs run at a time. Time per job is the time from the first job's begin to the last one's, divided by their number
less one, so neither Ray's start nor that of the workers is part of it; likewise the CPU time of the driver and its
workers, which counts on a machine that also does other work. Every measurement has a process of its own.

* orch: planner, driver, ledger, Ray and worker of orch; a job does all but compute (see `benchmarks.no_op`). On a store
  that already holds so many finished jobs.
* orch, one process: what the ledger and the worker of orch do for such a job, one after the other and without Ray.
* orch, untracked: the same driver and Ray pool, with a ledger in memory and a worker that answers at once.
* orch, untracked, without Ray: the driver alone; its workers are objects whose jobs end at once.
* MLflow: the content of such a job's run in the fewest calls, in one process: a run with its tags, its parameters and
  metrics in one batch, its files in one, its end. One run is logged before, so that its imports do not count;
  likewise ten jobs of orch.
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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.metering import Cost, Meter, cost_of, used_cpu
from benchmarks.no_op import NoOpWorker, UntrackedWorker, measured, note, open_pool, patiently, write_outcome
from benchmarks.one_process import NAME, preload, sweep_of, time_driver, time_one_process, untracked_driver
from benchmarks.restart import Silent
from schemas.job import JobSpec

SLOTS = 2
WARMING = 5 * SLOTS
"""Jobs of orch before those measured: in its first one a worker imports libraries and opens the store."""


# -- orch ---------------------------------------------------------------------------------------------------------


def time_orch(folder: Path, jobs: int, preloaded: int) -> Cost:
    """Return the milliseconds per job of a sweep of orch in a store with `preloaded` finished jobs."""
    from orchestrator.planning.request import SweepRequest
    from orchestrator.services import sweeps
    from orchestrator.settings import Settings

    preload(folder, preloaded)
    request = SweepRequest(sweep=sweep_of(NAME, "voc_part/dog", WARMING + jobs))
    settings = Settings(home=folder / "orch")
    with Meter(folder, jobs, WARMING) as meter:
        outcome = sweeps.run_sweep(settings, request, Silent(), open_pool=open_pool(folder, NoOpWorker, SLOTS))
    assert outcome.is_complete, outcome
    return meter.cost()


def time_untracked(folder: Path, jobs: int, preloaded: int) -> Cost:
    """Return the milliseconds per job of orch's driver with a ledger in memory and workers that answer at once."""
    driver = untracked_driver(folder, jobs, open_pool(folder, UntrackedWorker, SLOTS))
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
    from workers.tracking.curves import CURVES
    from workers.tracking.run_facts import surroundings
    from workers.tracking.run_log import SUMMARY, flatten

    settings = Settings(home=folder / "orch")
    store.prepare_home(settings)
    store.make_client(settings)
    client = MlflowClient(settings.store_uri)
    experiment = client.create_experiment("plain", artifact_location=settings.artifact_uri)
    planned = sweeps.plan_sweep(settings, SweepRequest(sweep=sweep_of(NAME, "voc_part/dog", jobs + 1))).sweep
    checkpoint = folder / "final.pt"
    checkpoint.write_bytes(bytes(1500))

    def log(spec: JobSpec) -> None:
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
            write_outcome(Path(files), record.spec_json)
            client.log_artifacts(run_id, files)
        client.log_artifact(run_id, str(checkpoint), "checkpoint")
        client.set_terminated(run_id)

    first, *others = planned.jobs
    log(first)  # imports are made
    with Meter(folder, jobs) as meter:
        for spec in others:
            note(folder, spec.key, "begins")
            log(spec)
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
    "driver": time_driver,
    "mlflow": time_mlflow,
    "ray": time_ray,
    "tune": time_tune,
}
TITLES = {
    "orch": "orch, {} finished jobs in the store",
    "one-process": "orch, one process, {} finished jobs",
    "untracked": "orch, untracked",
    "driver": "orch, untracked, without Ray",
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
