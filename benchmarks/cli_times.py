"""CPU seconds of short commands, process start included, beside Python's own start and the import of typer.

    python -m benchmarks.cli_times [--jobs 200] [--home HOME]

The store is made as in `benchmarks.restart`. `orch explain` needs a trained network: with --home, that of the first
finished job of a home is used.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

from PIL import Image

from benchmarks.restart import NAME, make_store

CLI = (sys.executable, "-m", "orchestrator.cli.main")
AIMS = {"help": 0.3, "status": 0.5, "show": 1.0, "explain": 4.0}


def cpu_seconds(command: Sequence[str], home: Path) -> float:
    """Run a command and return its CPU seconds, those of its children included."""
    environment = {**os.environ, "ORCH_HOME": str(home)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
    return used.ru_utime + used.ru_stime


def finished_job(home: Path) -> str:
    """Return the key of the first finished job of a home that is not a pre-training."""
    query = """
        SELECT key.value FROM tags key JOIN tags state USING (run_uuid) JOIN tags title USING (run_uuid)
        WHERE key.key = 'orch.job_key' AND state.key = 'orch.state' AND state.value = 'succeeded'
        AND title.key = 'orch.title' AND title.value NOT LIKE 'pre-training%'
    """
    with closing(sqlite3.connect(f"{(home / 'mlflow.db').as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute(query).fetchone()
    if found is None:
        raise SystemExit(f"{home} has no finished job.")
    return str(found[0])


def commands(home: Path, trained: Path | None, folder: Path) -> dict[str, tuple[tuple[str, ...], Path]]:
    """Return the commands to time, and the home of each, by name."""
    found = {
        "python -c pass": ((sys.executable, "-c", "pass"), home),
        "import typer": ((sys.executable, "-c", "import typer"), home),
        "help": ((*CLI, "--help"), home),
        "status": ((*CLI, "status"), home),
        "status SWEEP": ((*CLI, "status", NAME), home),
        "show": ((*CLI, "show", finished_job(home)), home),
    }
    if trained is not None:
        picture = folder / "picture.png"
        Image.effect_noise((120, 120), 60).convert("RGB").save(picture)
        words = ("explain", finished_job(trained), str(picture), "--out", str(folder / "explained.png"))
        found["explain"] = ((*CLI, *words), trained)
    return found


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="number of jobs of the store (default 200)")
    parser.add_argument("--times", type=int, default=5, help="runs of each command (default 5)")
    parser.add_argument("--home", type=Path, help="a home with a finished job, for `orch explain`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orch-cli-") as name:
        home = Path(name) / "home"
        make_store(home, options.jobs, options.jobs - options.jobs // 50, options.jobs // 100)
        timed = commands(home, options.home.absolute() if options.home else None, Path(name))
        seconds: dict[str, list[float]] = {command: [] for command in timed}
        for _ in range(options.times):  # in turn, so that other work on the machine disturbs all alike
            for command, (words, of) in timed.items():
                seconds[command].append(cpu_seconds(words, of))
    typer = median(seconds["import typer"])
    print("| | CPU seconds, median | least | over `import typer` | aim |\n|---|---|---|---|---|")
    for command, all_of_it in seconds.items():
        middle, aim = median(all_of_it), AIMS.get(command.split()[0], "")
        print(f"| {command} | {middle:.2f} | {min(all_of_it):.2f} | {middle / typer:.1f} | {aim} |")


if __name__ == "__main__":
    main()
