"""What a sweep saves where jobs that start from the same weights share the features of their frozen layers.

    python -m benchmarks.frozen_features                        # the laptop profile, VOC cats that orch draws
    python -m benchmarks.frozen_features --backbone vgg16 --epochs 12
    python -m benchmarks.frozen_features --memory 0             # as if the features were too large for memory

Five jobs of one category from one file of weights, an ordinary network and four interpretable ones, run one after
another: each once without and once with kept features, so that both see the same load of the machine. Every job is a
whole one, from its order to its logged result; images are prepared before. Their weights must be equal bit by bit.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from mlflow import MlflowClient

from interp_model.network import build_network
from orchestrator.planning.planner import NullResolver, plan
from orchestrator.planning.request import SweepRequest, define
from schemas.job import BackboneName, JobSpec
from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkOrder
from schemas.sweep import SweepSpec
from workers.checkpoints.loading import load_checkpoint
from workers.data.dataset import load_job_data
from workers.data.pushed.pulling import GIB
from workers.job import run_job
from workers.training import inputs
from workers.training.determinism import seed_torch

FIELDS = ("without", "with")


class Spent(NamedTuple):
    """Seconds of one job."""

    wall: float
    cpu: float
    features: float
    """Wall-clock seconds of computing features of frozen layers before and between the epochs."""


class Phases:
    """Adds up the seconds in which a job computes features."""

    def __init__(self) -> None:
        self.features = 0.0
        self._phase, self._since = "", time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Take the report of a phase."""
        now = time.monotonic()
        if self._phase.startswith("computing features"):
            self.features += now - self._since
        self._phase, self._since = progress.phase, now


def jobs_of(backbone: str, epochs: int | None, weights: Path) -> tuple[JobSpec, ...]:
    """Plan five jobs of the laptop profile that differ in variant and filter loss only."""
    base = {
        "category": "voc_part/cat",
        "model.backbone": backbone,
        "weights": {"source": "file", "path": str(weights)},
        **({} if epochs is None else {"train.epochs": epochs}),
    }
    losses = [{"model.variant": "interpretable", "filter_loss.weight": weight} for weight in (1e-4, 1e-3, 1e-2, 1e-1)]
    sweep = SweepSpec.model_validate(
        {"name": "frozen", "profile": "laptop", "base": base, "include": [{"model.variant": "ordinary"}, *losses]}
    )
    jobs = plan(define(SweepRequest(sweep=sweep)), NullResolver()).jobs
    assert len(jobs) == 5
    return jobs


def run(
    spec: JobSpec, folder: Path, way: str, client: MlflowClient, uri: str, experiment: str
) -> tuple[Spent, dict[str, torch.Tensor]]:
    """Run one job; return its cost and its final weights."""
    phases = Phases()
    order = WorkOrder(
        spec=spec,
        run_id=client.create_run(experiment).info.run_id,
        attempt=1,
        tracking_uri=uri,
        cache_dir=str(folder / "cache"),
        checkpoint_dir=str(folder / way),
        features_gb=10.0 if way == "with" else 0.0,
    )
    wall, cpu = time.monotonic(), time.process_time()
    result = run_job(order, phases, lambda: False)
    spent = Spent(time.monotonic() - wall, time.process_time() - cpu, phases.features)
    if result.stop_reason is not StopReason.FINISHED or result.checkpoint is None:
        raise SystemExit(f"{spec.title} did not finish: {result.failure}")
    return spent, load_checkpoint(result.checkpoint, spec.key)["network"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=get_args(BackboneName), default="alexnet")
    parser.add_argument("--epochs", type=int, help="epochs of each job; default: the profile's")
    parser.add_argument(
        "--memory", type=float, default=inputs.MEMORY_LIMIT / GIB,
        help="most GiB of features, and of measured maps, held in memory",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    inputs.MEMORY_LIMIT = int(given.memory * GIB)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with tempfile.TemporaryDirectory(prefix="orch-frozen-") as name:
        folder = Path(name)
        weights, uri = folder / "weights.pt", f"sqlite:///{folder / 'mlflow.db'}"
        (first, *_) = jobs_of(given.backbone, given.epochs, weights)
        seed_torch(0, 0, "weights")
        torch.save(build_network(first.model, first.n_outputs, from_scratch=True).state_dict(), weights)
        jobs = jobs_of(given.backbone, given.epochs, weights)
        client = MlflowClient(uri)
        experiment = client.create_experiment("frozen", artifact_location=str(folder / "artifacts"))
        load_job_data(
            first.data, first.evaluation, input_size=first.model.input_size, seed=0, cache_dir=folder / "cache",
            data_root=None,
        )  # fmt: skip
        totals = {way: Spent(0.0, 0.0, 0.0) for way in FIELDS}
        for number, spec in enumerate(jobs, start=1):
            found = {way: run(spec, folder, way, client, uri, experiment) for way in FIELDS}
            for way in FIELDS:
                totals[way] = Spent(*(a + b for a, b in zip(totals[way], found[way][0], strict=True)))
            (alone, kept) = (found[way][1] for way in FIELDS)
            same = all(torch.equal(value, kept[name]) for name, value in alone.items())
            print(f"job {number} of 5: {_line(found['without'][0], found['with'][0])}; same bits: {same}", flush=True)
            if not same:
                raise SystemExit("the weights differ")
        size = sum(path.stat().st_size for path in (folder / "cache/features").glob("*.features"))
        print(f"all five: {_line(totals['without'], totals['with'])}; {size / 1e6:.0f} MB kept")


def _line(without: Spent, kept: Spent) -> str:
    return (
        f"{without.wall:.1f} s without, {kept.wall:.1f} s with ({kept.wall / without.wall:.2f}); CPU {without.cpu:.1f} "
        f"and {kept.cpu:.1f} s ({kept.cpu / without.cpu:.2f}); features {without.features:.1f} and "
        f"{kept.features:.1f} s"
    )


if __name__ == "__main__":
    main()
