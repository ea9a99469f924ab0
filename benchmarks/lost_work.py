"""Cost of a SIGKILL: the same scenario with Ray Tune and its MLflow callback, and with orch.

A grid of N no-op trials runs two at a time. The driver is killed with SIGKILL when half of the trials have ended, and
all its child processes stop. Then the sweep is continued as documented (`Tuner.restore`, `orch resume`) until all
trials have ended.

A trial appends its start and its end to a file. One of Tune logs one number to MLflow. One of orch is a real job, from
its order to its durable end, that computes nothing (see `benchmarks.no_op`); planner, driver, ledger and Ray pool are
the real ones too. A trial has ended after its last step: in Tune its report, in orch that its run has its end.

    pip install -c constraints.txt -e ".[bench]"
    python -m benchmarks.lost_work [--trials 296]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.no_op import NoOpWorker, note, notes, open_pool, patiently

MARK = "LOST_WORK_FOLDER"
RAY_PREFIX = "lost-"
SLOTS = 2
NAME = "grid"
POLL_SECONDS = 0.02
PATIENCE_SECONDS = 1800.0


class Row(NamedTuple):
    """Results of one system."""

    system: str
    trials: int
    ended_before: int
    ran_again: int
    lost: int
    runs: int
    doubled: int
    stuck: int
    first_new: float
    """Seconds from the command that continues the sweep to the start of the first new trial."""


# -- Ray Tune -----------------------------------------------------------------------------------------------------


def drive_tune(folder: Path, trials: int, again: bool) -> None:
    """Run the grid with Ray Tune, or restore it."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    from orchestrator.settings import sqlite_uri

    own = {"address": "local", "include_dashboard": False, "_temp_dir": os.environ["RAY_FOLDER"]}
    patiently(lambda: ray.init(num_cpus=SLOTS, **own))

    def trial(config: dict[str, Any]) -> None:
        note(folder, str(config["trial"]), "begins")
        tune.report({"score": float(config["trial"])})
        note(folder, str(config["trial"]), "ended")

    if again:
        tuner = tune.Tuner.restore(str(folder / "tune" / NAME), trainable=trial, resume_unfinished=True)
    else:
        callback = MLflowLoggerCallback(tracking_uri=sqlite_uri(Path(folder) / "mlflow.db"), experiment_name=NAME)
        tuner = tune.Tuner(
            trial,
            param_space={"trial": tune.grid_search(list(range(trials)))},
            tune_config=tune.TuneConfig(max_concurrent_trials=SLOTS, reuse_actors=True),
            run_config=tune.RunConfig(name=NAME, storage_path=str(folder / "tune"), callbacks=[callback], verbose=0),
        )
    tuner.fit()


def runs_of_tune(folder: Path) -> list[tuple[str, str]]:
    """Return trial and status of every MLflow run."""
    from mlflow import MlflowClient

    from orchestrator.settings import sqlite_uri

    client = MlflowClient(sqlite_uri(Path(folder) / "mlflow.db"))
    found = client.get_experiment_by_name(NAME)
    assert found is not None
    runs = client.search_runs([found.experiment_id], max_results=5000)
    return [(run.data.params.get("trial", run.info.run_id), run.info.status) for run in runs]


# -- orch ---------------------------------------------------------------------------------------------------------


def drive_orch(folder: Path, trials: int, again: bool) -> None:
    """Run the grid with orch, or resume it."""
    from orchestrator.execution.progress import open_display
    from orchestrator.planning.request import SweepRequest
    from orchestrator.services import sweeps
    from orchestrator.settings import Settings
    from schemas.sweep import SweepSpec

    settings, opened = Settings(home=folder / "orch"), open_pool(folder, NoOpWorker, SLOTS)
    display = open_display(time.monotonic)
    if again:
        sweeps.resume_sweep(settings, NAME, display, open_pool=opened)
        return
    base = {"backbone": "alexnet", "variant": "ordinary", "weights": {"source": "random"}}
    sweep = SweepSpec(name=NAME, base=base, axes={"category": ("voc_part/cat",), "seed": tuple(range(trials))})
    sweeps.run_sweep(settings, SweepRequest(sweep=sweep), display, open_pool=opened)


def runs_of_orch(folder: Path) -> list[tuple[str, str]]:
    """Return job key and status of every MLflow run."""
    from orchestrator.ledger.mlflow_ledger import MlflowLedger
    from orchestrator.ledger.store import open_client
    from orchestrator.settings import Settings

    settings = Settings(home=folder / "orch")
    return [(run.key, run.status) for run in MlflowLedger(open_client(settings), settings.store_uri).job_runs()]


# -- the scenario -------------------------------------------------------------------------------------------------

SYSTEMS: dict[str, tuple[Callable[[Path, int, bool], None], Callable[[Path], list[tuple[str, str]]]]] = {
    "tune": (drive_tune, runs_of_tune),
    "orch": (drive_orch, runs_of_orch),
}


def measure(system: str, trials: int, folder: Path) -> Row:
    """Run the scenario with one system and count what was lost or repeated."""
    folder.mkdir()
    driver = _start(system, trials, folder, again=False)
    _wait(lambda: len(_ended(folder)) >= trials // 2, driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _wait(lambda: not _processes(folder))
    before, typed = _ended(folder), time.time()
    begun = {line["trial"] for line in notes(folder)}
    driver = _start(system, trials, folder, again=True)
    driver.wait(PATIENCE_SECONDS)
    _wait(lambda: not _processes(folder))
    after = [line for line in notes(folder) if line["at"] > typed]
    new = [line["at"] for line in after if line["trial"] not in begun]
    runs = SYSTEMS[system][1](folder)
    _tidy(folder)
    return Row(
        system=system,
        trials=trials,
        ended_before=len(before),
        ran_again=len({line["trial"] for line in after if line["what"] == "begins"} & before),
        lost=trials - len(_ended(folder)),
        runs=len(runs),
        doubled=sum(count > 1 for count in Counter(trial for trial, _ in runs).values()),
        stuck=sum(status == "RUNNING" for _, status in runs),
        first_new=min(new) - typed if new else float("nan"),
    )


def _start(system: str, trials: int, folder: Path, again: bool) -> subprocess.Popen[bytes]:
    words = ["--drive", system, "--trials", str(trials), "--folder", str(folder), *(["--again"] if again else [])]
    environment = {
        **os.environ,
        MARK: str(folder),
        "RAY_FOLDER": tempfile.mkdtemp(prefix=f"{RAY_PREFIX}{os.getpid()}-", dir="/tmp"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
    }
    with open(folder / "driver.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.lost_work", *words], env=environment, stdout=log, stderr=log
        )


def _tidy(folder: Path) -> None:
    """Delete the files that the killed driver's Ray left in /tmp."""
    for path in Path("/tmp").glob(f"{RAY_PREFIX}{os.getpid()}-*"):
        shutil.rmtree(path, ignore_errors=True)
    if (folder / "orch").exists():
        gc = [sys.executable, "-m", "orchestrator.cli.main", "gc"]
        subprocess.run(gc, env={**os.environ, "ORCH_HOME": str(folder / "orch")}, check=True, capture_output=True)


def _ended(folder: Path) -> set[str]:
    return {line["trial"] for line in notes(folder) if line["what"] == "ended"}


def _processes(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def _wait(holds: Callable[[], bool], driver: subprocess.Popen[bytes] | None = None) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if driver is not None and driver.poll() is not None:
            raise SystemExit(f"the driver exited early with code {driver.returncode}; see driver.log")
        if time.monotonic() > until:
            raise SystemExit(f"timed out after {PATIENCE_SECONDS:.0f} s; see driver.log")
        time.sleep(POLL_SECONDS)


def table(rows: list[Row]) -> str:
    """Return the results as a Markdown table."""
    names = {"tune": "Ray Tune + MLflow callback", "orch": "orch"}
    lines: list[tuple[str, Callable[[Row], str]]] = [
        ("trials that had ended when the driver was killed", lambda row: str(row.ended_before)),
        ("of those, run again", lambda row: str(row.ran_again)),
        ("lost", lambda row: str(row.lost)),
        ("MLflow runs in the end", lambda row: str(row.runs)),
        ("trials with several MLflow runs", lambda row: str(row.doubled)),
        ("MLflow runs that stay RUNNING", lambda row: str(row.stuck)),
        ("seconds until the first new trial", lambda row: f"{row.first_new:.1f}"),
    ]
    head = [
        f"| {rows[0].trials} trials | {' | '.join(names[row.system] for row in rows)} |",
        "|---" * (len(rows) + 1) + "|",
    ]
    return "\n".join([*head, *(f"| {what} | {' | '.join(show(row) for row in rows)} |" for what, show in lines)])


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=120, help="of the grid (default 120; the paper's has 296)")
    parser.add_argument("--system", choices=SYSTEMS, help="only this one")
    for hidden in ("--drive", "--folder", "--again"):
        parser.add_argument(hidden, help=argparse.SUPPRESS, **({"action": "store_true"} if hidden == "--again" else {}))
    options = parser.parse_args()
    if options.drive:
        SYSTEMS[options.drive][0](Path(options.folder), options.trials, options.again)
        return
    folder = Path(tempfile.mkdtemp(prefix="lost-work-"))
    rows = [measure(name, options.trials, folder / name) for name in ([options.system] if options.system else SYSTEMS)]
    print(table(rows))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
