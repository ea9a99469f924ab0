"""The Ray actor that runs jobs, one at a time: text in, text out, so that a worker of another version fails clearly."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

from schemas.order import Progress, WorkOrder

RAY_OPTIONS: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 3}
"""Ray retries nothing: every retry is the driver's decision. One thread runs the job while two answer questions."""


class JobWorker:
    """Lives as long as its slot; torch and mlflow are loaded once and not once per job."""

    def __init__(self) -> None:
        hide_gpus_of_others()  # before torch looks
        gc.disable()  # what is loaded stays, and looking through it for garbage again and again takes half a second
        import mlflow  # noqa: F401 - here and not in the first job

        import workers.job  # noqa: F401
        from workers.checkpoints.fencing import die_with_parent
        from workers.tracking.outages import wait_briefly

        gc.enable()
        wait_briefly()
        if os.environ.get("RAY_RAYLET_PID") == str(os.getppid()):
            die_with_parent()  # nobody is left who could ask for a result
        self._stopping = threading.Event()
        self._interrupted: str | None = None
        self._progress: Progress | None = None

    def run(self, order_json: str) -> str:
        """Run one job; a WorkOrder as JSON gives a JobResult as JSON."""
        from workers.job import run_job

        order = WorkOrder.model_validate_json(order_json)

        def should_stop() -> bool:
            return self._stopping.is_set() or self._interrupted == order.spec.key

        try:
            result = run_job(order, self._note, should_stop)
        finally:
            self._progress = self._interrupted = None
        return result.model_dump_json()

    def progress(self) -> str | None:
        """What the job that runs now is doing, as JSON; None when there is none."""
        progress = self._progress
        return progress.model_dump_json() if progress else None

    def stop(self) -> None:
        """End what runs now at its next batch, checkpoint saved, and whatever is sent after it: this worker is done."""
        self._stopping.set()

    def interrupt(self, job_key: str) -> None:
        """End this job at its next batch, checkpoint saved, if it is the one that runs or comes next."""
        self._interrupted = job_key

    def _note(self, progress: Progress) -> None:
        self._progress = progress


def hide_gpus_of_others() -> None:
    """In an actor that has no share of a GPU: Ray leaves every GPU of the machine visible to it.

    Not by a `runtime_env`: an actor with one cannot take a process that Ray has ready, and begins a second later.
    """
    import ray

    if ray.is_initialized() and not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def worker_class() -> Any:
    """JobWorker as a Ray actor class; `.options(num_cpus=..., num_gpus=...)` says what its slot takes."""
    import ray

    return ray.remote(**RAY_OPTIONS)(JobWorker)
