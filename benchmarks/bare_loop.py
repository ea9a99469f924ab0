"""What orchestration and tracking add to a sweep: the same networks trained by a plain loop in two processes.

The loop does what a script would: it trains the pre-training network on both cores, then two processes train and
measure every other network each, with the same functions and kept features, and keep the results in memory: no
scheduler, run, checkpoint, table or figure. Then `orch sweep` runs the same jobs with two workers. Each starts with
empty folders. The ratio of the times is the price of the whole; the share of idle slots is what no job used of the two
workers, from the end of the pre-training to that of the last job. Target: a ratio of at most 1.10, less than 5 % idle.

    python -m benchmarks.bare_loop                                          # 74 networks of generated animals
    python -m benchmarks.bare_loop --category cat,dog,fox,lion --rounds 2
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch

from interp_model.network import build_network
from orchestrator.planning.planner import NullResolver, plan
from orchestrator.planning.request import SweepRequest, define
from schemas.job import JobSpec, RandomWeights
from schemas.results import CheckpointPointer, JobMetrics
from schemas.sweep import SweepSpec
from workers.checkpoints.store import CheckpointStore
from workers.data.dataset import load_job_data
from workers.evaluation.evaluate import evaluate
from workers.training.determinism import make_deterministic, seed_torch
from workers.training.frozen_features import FeatureStore
from workers.training.inputs import Inputs
from workers.training.starting_weights import load_starting_weights
from workers.training.trainer import Trainer

GRID, NAME = "all-categories", "bare"
TARGET = 1.10
MOST_IDLE = 0.05
SLOTS = 2
GIGABYTES = 10
"""Most that kept features take."""


def jobs_of(categories: Sequence[str]) -> tuple[JobSpec, ...]:
    """Plan the sweep, pre-training first."""
    request = SweepRequest(sweep=SweepSpec(grid=GRID), profile="laptop", categories=tuple(categories))
    return plan(define(request), NullResolver()).jobs


def train(spec: JobSpec, folder: Path, upstream: CheckpointPointer | None) -> tuple[Trainer, JobMetrics]:
    """Train and measure one network as a script would."""
    data = load_job_data(
        spec.data, spec.evaluation, input_size=spec.model.input_size, seed=spec.seed, cache_dir=folder / "cache",
        data_root=None, processes=torch.get_num_threads(),
    )  # fmt: skip
    seed_torch(spec.seed, 0, "weights")
    network = build_network(spec.model, spec.n_outputs, from_scratch=isinstance(spec.weights, RandomWeights))
    load_starting_weights(network, spec, upstream)
    if spec.train.freeze_below is not None:
        network.freeze_below(spec.train.freeze_below)
    store = FeatureStore(folder / "cache", GIGABYTES * 2**30)
    learned, test, measured = (
        Inputs(network, split, data.mean_SS3, torch.device("cpu"), store=store)
        for split in (data.train, data.test, data.measured)
    )
    trainer = Trainer(spec, network, learned, test)
    learned.keep_features(horizontal_flip=spec.train.horizontal_flip, report=ignore)
    test.keep_features(horizontal_flip=False, report=ignore)
    measured.map_batches(ignore)
    while trainer.epoch < spec.train.epochs:
        trainer.run_epoch(on_step=lambda: None)
    return trainer, evaluate(trainer, data, learned, test, measured, ignore).metrics


def ignore(phase: str) -> None:
    """Take no notice of a phase."""


def process(part: int, categories: Sequence[str], folder: Path) -> None:
    """Do what one of the loop's processes does: part 0 is the pre-training, part 1 and 2 are halves of the rest."""
    make_deterministic(SLOTS if part == 0 else 1)  # as orch does: the pre-training has no other job beside it
    first, *rest = jobs_of(categories)
    place = folder / "upstream.json"
    if part == 0:
        trainer, _ = train(first, folder, None)
        store = CheckpointStore(folder / "checkpoints", first.key)
        saved = store.save(trainer.epoch, trainer.state_dict(is_final=True))
        place.write_text(saved.model_dump_json())
        return
    upstream = CheckpointPointer.model_validate_json(place.read_text())
    results = {spec.title: train(spec, folder, upstream)[1] for spec in rest[part - 1 :: SLOTS]}
    (folder / f"results-{part}.json").write_text(
        json.dumps({title: metrics.location_instability for title, metrics in results.items()})
    )


class Run(NamedTuple):
    """One run of the sweep's jobs."""

    seconds: float
    instability: dict[str, float]
    """Title of a job -> location instability."""
    idle: float = 0.0
    """Share of the two slots that no job used."""


def bare_loop(categories: Sequence[str], folder: Path) -> Run:
    """Train the networks in a loop, and time it from the start of the first process to the end of the last."""
    command = [sys.executable, "-m", "benchmarks.bare_loop", f"--category={','.join(categories)}", f"--folder={folder}"]
    started = time.monotonic()
    subprocess.run([*command, "--part", "0"], check=True)
    halves = [subprocess.Popen([*command, "--part", str(part)]) for part in range(1, SLOTS + 1)]
    ends = [half.wait() for half in halves]
    if any(ends):
        raise SystemExit("a process of the loop failed")
    seconds = time.monotonic() - started
    found = [json.loads((folder / f"results-{part}.json").read_text()) for part in range(1, SLOTS + 1)]
    return Run(seconds, {title: value for results in found for title, value in results.items()})


def with_orch(categories: Sequence[str], folder: Path) -> Run:
    """Run the sweep of the same jobs with two workers, and time the command."""
    chosen = ["--category", ",".join(categories)] if categories else []
    command = [sys.executable, "-m", "orchestrator.cli.main", "sweep", "--grid", GRID, "--profile", "laptop"]
    environment = os.environ | {"ORCH_HOME": str(folder)}
    started = time.monotonic()
    subprocess.run(
        [*command, *chosen, "--name", NAME, "--workers", str(SLOTS)],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.monotonic() - started
    columns = ["title", "pretraining", "seconds", "location_instability"]
    frame = f"orch.sweep('{NAME}').to_frame()[{columns}]"
    code = f"import json, orch; print(json.dumps({frame}.to_dict('records')))"  # pandas' JSON would round
    asked = [sys.executable, "-c", code]
    answer = subprocess.run(asked, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    jobs = [job for job in json.loads(answer.stdout) if not job["pretraining"]]
    idle = 1 - sum(job["seconds"] for job in jobs) / (SLOTS * window(folder))
    return Run(seconds, {job["title"]: job["location_instability"] for job in jobs}, idle)


def window(folder: Path) -> float:
    """Return the seconds from the end of the pre-training to the end of the last job."""
    query = "select end_time from runs join tags using (run_uuid) where tags.key = 'orch.job_key'"
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        ends = [float(end) for (end,) in database.execute(query)]
    return (max(ends) - min(ends)) / 1000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--category", default="", help="Only these categories, with commas.")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--part", type=int, help="Be one of the loop's processes.")
    parser.add_argument("--folder", type=Path, help="Folder of a process of the loop.")
    options = parser.parse_args(arguments)
    categories = [name for name in options.category.split(",") if name]
    if options.part is not None:
        process(options.part, categories, options.folder)
        return
    for number in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory(prefix="orch-bare-") as folder:
            bare = bare_loop(categories, Path(folder))
        with tempfile.TemporaryDirectory(prefix="orch-bare-") as folder:
            tracked = with_orch(categories, Path(folder))
        same = "equal" if bare.instability == tracked.instability else "different"
        print(
            f"round {number}: {len(bare.instability)} networks, {same} results; loop {bare.seconds:.0f} s, "
            f"orch {tracked.seconds:.0f} s: ratio {tracked.seconds / bare.seconds:.2f} (target: at most {TARGET:g}), "
            f"idle slots {tracked.idle:.1%} (target: less than {MOST_IDLE:.0%})",
            flush=True,
        )


if __name__ == "__main__":
    main()
