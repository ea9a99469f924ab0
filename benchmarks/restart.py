"""Cost of a restart: `orch status` of a large sweep, and the first job after `orch resume` of one of 296 jobs.

    python -m benchmarks.restart [--jobs 10000] [--resumes 1] [--json-too]

The first job of each state is created through orch; its rows are then copied in the database. The resumed sweep is left
as a SIGKILL of its driver leaves it: with a lease, and with two jobs that run.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from orchestrator.execution.driver import Driver
from orchestrator.execution.progress import Now
from orchestrator.execution.ray_pool import RayPool
from orchestrator.execution.ray_session import RaySession
from orchestrator.execution.sweep_run import SweepRun
from orchestrator.ledger import store
from orchestrator.ledger.lease import Lease, here
from orchestrator.ledger.mlflow_ledger import MlflowLedger
from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.request import SweepRequest
from orchestrator.services import sweeps
from orchestrator.settings import Settings
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer, JobMetrics, JobResult
from schemas.sweep import SweepSpec

NAME = "many"
BASE: dict[str, Any] = {
    "backbone": "alexnet",
    "variant": "interpretable",
    "model": {"input_size": 64, "width": 0.125, "fc_width": 32},
    "data": {"train_per_category": 12, "test_per_category": 4},
    "weights": {"source": "random"},
    "train": {"epochs": 1, "batch_size": 8},
}
TIMES = 3
MARK, POLL_SECONDS = "restart-step", 0.02
WAYS = {
    JobState.SUCCEEDED: (JobState.RUNNING, JobState.SUCCEEDED),
    JobState.RUNNING: (JobState.RUNNING,),
}


class Silent:
    """A display that shows nothing."""

    def show(self, now: Now) -> None: ...
    def say(self, line: str) -> None: ...
    def close(self) -> None: ...


def make_store(home: Path, jobs: int, succeeded: int, running: int = 0) -> Settings:
    """Create a store with one sweep: `jobs` jobs, of which `succeeded` are finished and the next `running` are lost."""
    settings = Settings(home=home)
    sweep = SweepSpec(name=NAME, base=BASE, axes={"category": ("voc_part/cat",), "seed": (0,)})
    planned = sweeps.plan_sweep(settings, SweepRequest(sweep=sweep)).sweep
    specs = [planned.jobs[0].model_copy(update={"seed": seed}) for seed in range(jobs)]
    plan = StoredPlan.of(NAME, planned.profile, None, specs, planned.upstream_keys, planned.resources)
    store.prepare_home(settings)
    ledger = MlflowLedger(store.make_client(settings), settings.store_uri)
    ledger.begin_sweep(plan, time.time())
    assert settings.database is not None
    done, lost = specs[:succeeded], specs[succeeded : succeeded + running]
    for state, some in ((JobState.SUCCEEDED, done), (JobState.RUNNING, lost)):
        if some:
            _begin(ledger, some[0], state)
            multiply(settings.database, some[0], some[1:])
    dead = Lease(host=here(), pid=_dead_process(), since=time.time(), sign_at=time.time())
    ledger.set_lease(NAME, dead if running else None)
    return settings


def _dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        pass
    return process.pid


def _begin(ledger: MlflowLedger, spec: JobSpec, state: JobState) -> None:
    now = time.time()
    ledger.add(spec, NAME, now)
    result = JobResult(
        job_key=spec.key,
        attempt=1,
        stop_reason=StopReason.FINISHED,
        epochs_done=1,
        metrics=JobMetrics(test_accuracy=0.9, train_accuracy=1.0, location_instability=0.08, measured_images=4),
        checkpoint=CheckpointPointer(path=f"/checkpoints/{spec.key}/final.pt", epoch=1, sha256="0" * 64),
    )
    for step in WAYS[state]:
        ended = step is JobState.SUCCEEDED
        ledger.move(
            spec.key, step, now, reason=StopReason.FINISHED if ended else None, result=result if ended else None
        )


def multiply(database: Path, template: JobSpec, specs: Sequence[JobSpec]) -> None:
    """Insert the rows of further jobs as copies of the template's, with their own keys and titles."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.row_factory = sqlite3.Row
        query = "SELECT run_uuid FROM tags WHERE key = 'orch.job_key' AND value = ?"
        (old,) = connection.execute(query, (template.key,)).fetchone()
        ids = {spec.key: f"{spec.key}{old[len(spec.key) :]}" for spec in specs}
        for table in ("runs", "params", "metrics", "latest_metrics", "tags"):
            rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (old,))]
            copies = (_copied(table, row, spec, ids[spec.key], template.key) for spec in specs for row in rows)
            if rows:
                query = f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES ({', '.join('?' * len(rows[0]))})"
                connection.executemany(query, copies)


def _copied(table: str, row: dict[str, Any], spec: JobSpec, run_id: str, template: str) -> tuple[Any, ...]:
    """The values of a row of the template's run, as those of another job."""
    own = {**row, "run_uuid": run_id}
    if table == "runs":
        own |= {"name": spec.title, "artifact_uri": row["artifact_uri"].replace(row["run_uuid"], run_id)}
    elif table == "tags":
        names = {"orch.job_key": spec.key, "orch.title": spec.title, "mlflow.runName": spec.title}
        if row["key"] == "orch.spec":
            own["value"] = spec.model_dump_json()
        else:
            own["value"] = names.get(row["key"], row["value"].replace(template, spec.key))
    return tuple(own.values())


def time_status(home: Path, *words: str) -> tuple[float, float]:
    """Return the wall-clock and CPU seconds of the command, the best of three runs."""
    command = [sys.executable, "-m", "orchestrator.cli.main", "status", *words]
    best = (float("inf"), float("inf"))
    for _ in range(TIMES):
        before, began = os.times(), time.perf_counter()
        subprocess.run(command, env={**os.environ, "ORCH_HOME": str(home)}, check=True, stdout=subprocess.DEVNULL)
        seconds, after = time.perf_counter() - began, os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        best = min(best, (seconds, used))
    return best


def time_resume(settings: Settings) -> dict[str, float]:
    """Resume the sweep until its first job is at work, then stop it; return the seconds from the command to each step.

    A job is at work once it has opened its log, after its worker has imported torch and MLflow.
    """
    command = [sys.executable, "-m", "benchmarks.restart", "--drive", str(settings.root)]
    typed = time.time()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as driver:
        while next(settings.log_dir.glob("*/attempt-*.log"), None) is None and driver.poll() is None:
            time.sleep(POLL_SECONDS)
        at_work = time.time()
        driver.send_signal(signal.SIGTERM)
        _, said = driver.communicate()
    told = [line.split() for line in said.splitlines() if line.startswith(MARK)]
    steps = {step: float(at) - typed for _, step, at in reversed(told)}  # the first time of each
    if "sent" not in steps:
        raise SystemExit(f"the driver has ended early: {said}")
    return dict(sorted({**steps, "at work": at_work - typed}.items(), key=lambda one: one[1]))


def drive(home: Path) -> None:
    """Resume the sweep as `orch resume` does, and write to standard error when each step has ended."""

    def told(owner: Any, name: str, step: str) -> None:
        call = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            result = call(*arguments, **named)
            print(MARK, step, time.time(), file=sys.stderr, flush=True)
            return result

        setattr(owner, name, timed)

    from orchestrator.cli.main import main as cli

    print(MARK, "imported", time.time(), file=sys.stderr, flush=True)
    for owner, name, step in (
        (sweeps, "_refuse_other_recipe", "plan-read"), (SweepRun, "_check_early", "checked"),
        (SweepRun, "_refuse_taken", "claimed"), (RaySession, "start", "ray"), (Driver, "_settle_lost", "settled"),
        (RayPool, "_note_answer", "worker"), (RayPool, "start", "sent"),
    ):  # fmt: skip
        told(owner, name, step)
    os.environ["ORCH_HOME"] = str(home)
    cli(["resume", NAME, "--workers", "2"])


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs of the large sweep (default 10000); 0: none")
    parser.add_argument("--resumes", type=int, default=1, help="how often to resume a sweep (default 1)")
    parser.add_argument("--json-too", action="store_true", help="also list every job of the large sweep as JSON")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(options.drive)
        return
    with tempfile.TemporaryDirectory(prefix="orch-restart-") as folder:
        home = Path(folder) / "large"
        if options.jobs:
            make_store(home, options.jobs, options.jobs - options.jobs // 50, options.jobs // 100)
            for words in ((NAME,), (), *([(NAME, "--json")] if options.json_too else [])):
                seconds, used = time_status(home, *words)
                print(f"orch status {' '.join(words):14} {options.jobs} jobs: {seconds:5.2f} s ({used:.2f} CPU s)")
        for number in range(options.resumes):
            settings = make_store(Path(folder) / f"small-{number}", 296, 290, running=2)
            marks = time_resume(settings)
            print(f"orch resume, 290 of 296 done: {', '.join(f'{what} {at:.1f} s' for what, at in marks.items())}")


if __name__ == "__main__":
    main()
