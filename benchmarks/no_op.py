"""A worker whose jobs do everything but compute: no images, no training, no measuring and no figures.

What is left is what orch adds to a job: the checks of the attempt, the run with its parameters, curve, metrics, table
and final checkpoint (of one number), the durable end and the log file, all by the code of `workers`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.order import WorkOrder
from schemas.results import CheckpointPointer, JobMetrics, JobResult
from workers.actor import JobWorker

EVENTS = "trials.jsonl"
START_TRIES = 5


def note(folder: Path, trial: str, what: str) -> None:
    """Append an event of a trial to the file of events."""
    line = json.dumps({"trial": trial, "what": what, "at": time.time()}) + "\n"
    with open(folder / EVENTS, "ab", buffering=0) as file:
        file.write(line.encode())


def notes(folder: Path) -> list[dict[str, Any]]:
    """Return all events."""
    path = folder / EVENTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class NoOpWorker(JobWorker):
    """The worker of orch, whose jobs do not compute. It notes when a job begins and when its end is durable."""

    def __init__(self, folder: str) -> None:
        """
        Args:
            folder: where events are noted.
        """
        super().__init__()
        self._folder = Path(folder)

    def hello(self) -> str:
        """See `JobWorker.hello`."""
        answer = super().hello()
        compute_nothing()
        return answer

    def run(self, order_json: str) -> str:
        """See `JobWorker.run`."""
        key = json.loads(order_json)["run_id"]
        note(self._folder, key, "begins")
        result = super().run(order_json)
        note(self._folder, key, "ended")
        return result


class UntrackedWorker(NoOpWorker):
    """A worker that answers at once and logs nothing."""

    def run(self, order_json: str) -> str:
        """See `JobWorker.run`."""
        order = WorkOrder.model_validate_json(order_json)
        note(self._folder, order.run_id, "begins")
        return finished(order).model_dump_json()


def finished(order: WorkOrder) -> JobResult:
    """Return the result of a job that left nothing behind."""
    from schemas.lifecycle import StopReason

    return JobResult(
        job_key=order.spec.key,
        attempt=order.attempt,
        stop_reason=StopReason.FINISHED,
        metrics=measured(),
        checkpoint=CheckpointPointer(path="none", epoch=1, sha256="0" * 64),
    )


def patiently(start: Callable[[], object]) -> None:
    """Start a Ray, again if need be: on a busy machine it gives itself up after 30 s."""
    import ray

    for left in reversed(range(START_TRIES)):
        try:
            start()
            return
        except Exception:  # of orch, or a plain one of Ray
            ray.shutdown()
            if not left:
                raise


def open_pool(folder: Path, kind: type[NoOpWorker], slots: int) -> Any:
    """Return a function that opens a private Ray with workers that note in `folder` what they do."""
    from orchestrator.execution.pool import WorkerPool
    from orchestrator.execution.ray_pool import RayPool
    from orchestrator.execution.ray_session import RaySession
    from orchestrator.execution.resources import needs_of
    from orchestrator.ledger.records import StoredPlan
    from orchestrator.settings import Settings
    from workers.actor import RAY_OPTIONS

    session = RaySession("local", cpus=slots, memory_gb=float(slots))

    class Slots(RayPool):
        def close(self) -> None:
            super().close()
            session.stop()

    def opened(settings: Settings, stored: StoredPlan, jobs: int) -> WorkerPool:
        import ray

        patiently(session.start)
        worker = ray.remote(**RAY_OPTIONS)(kind)
        return Slots(
            lambda: worker, session, slots, needs_of(stored), cores=slots, at_once=slots, arguments=(str(folder),),
            start_seconds=600.0, default_gpus=0.0,
        )  # fmt: skip

    return opened


def compute_nothing() -> None:
    """Replace the computing part of jobs in this process."""
    import workers.job

    workers.job._Job.run = _run  # type: ignore[assignment,method-assign]


def measured() -> JobMetrics:
    """Return as many metrics as a small job has."""
    return JobMetrics(
        test_accuracy=0.9, train_accuracy=1.0, chance_accuracy=0.5, location_instability=0.08, peak_spread=0.2,
        shuffled_instability=0.2, tracking_share=0.6, part_interpretability=0.2, measured_images=4, filters=16,
        landmark_instability={"head": 0.08, "neck": 0.09}, intervals={"location_instability": (0.07, 0.09)},
    )  # fmt: skip


def write_outcome(folder: Path, spec_json: str) -> None:
    """Write the files of a finished job, figures excepted: spec, metrics, a table of 16 filters."""
    from workers.evaluation.evaluate import FilterRow
    from workers.outcome import write_filters
    from workers.tracking.run_log import FILTERS_FILE, METRICS_FILE, SPEC_FILE

    (folder / SPEC_FILE).write_text(spec_json)
    (folder / METRICS_FILE).write_text(measured().model_dump_json(indent=2))
    rows = [
        FilterRow(number, "voc_part/cat", "", 0.08, {"head": 0.08, "neck": 0.09}, {"head": 4, "neck": 4}, True, 1.0,
                  0.2, 1.0, 0.5, 2.0)
        for number in range(16)
    ]  # fmt: skip
    write_filters(folder / FILTERS_FILE, rows)


def _run(job: Any) -> JobMetrics:
    """Do what `workers.job` does beside computing, in the same order."""
    import torch

    from workers.training.records import EpochRecord

    job._take_over()
    job._report("opening the run")
    job._log.bring_up_to_date(())
    records = [EpochRecord(1, 0.5, 0.1, 0.01, 1.0, 0.9, 0.9, 0.1, 0.1, 0.1, 0.001, 0.0)]
    job.checkpoint = job._store.save(1, {"weights": torch.zeros(1)})
    job._report("logging")
    job._store.keep_newest_only()
    with tempfile.TemporaryDirectory(prefix="orch-") as folder:
        write_outcome(Path(folder), job._spec.model_dump_json(indent=2))
        job.checkpoint = job._log.finish(
            records, measured(), Path(folder), job.checkpoint, lambda: job._report("logging")
        )
    return measured()
