"""The Ray actor that runs jobs one at a time; orders and results are JSON, so that a version mismatch fails clearly."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

from schemas.errors import ResourceError
from schemas.order import Progress, WorkOrder
from workers.code_home import CodeHome, code_home, difference
from workers.loopback import bypass_proxies_for_loopback

RAY_OPTIONS: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 3}
"""Ray must not retry: the driver decides every retry. One thread runs the job, two answer `progress` and `stop`."""


class JobWorker:
    """Runs the jobs of one slot, one after the other; torch and mlflow are imported once for all of them."""

    def __init__(self, driver_code: str = "") -> None:
        """Import the libraries that every job needs.

        Args:
            driver_code: the CodeHome of the driver as JSON; empty if there is no driver.

        Raises:
            ResourceError: this process would run other code than its driver.
        """
        if driver_code:
            check_code(CodeHome.model_validate_json(driver_code))
        hide_gpus_of_others()  # before torch initialises CUDA
        bypass_proxies_for_loopback()
        gc.disable()  # collecting garbage during the imports takes half a second and frees nothing
        import mlflow  # noqa: F401 - imported here so that the first job does not wait for it

        import workers.job  # noqa: F401
        from workers.checkpoints.fencing import die_with_parent
        from workers.tracking.outages import wait_briefly

        gc.enable()
        wait_briefly()
        if os.environ.get("RAY_RAYLET_PID") == str(os.getppid()):
            die_with_parent()  # without its raylet, no process can receive a result
        self._stopping = threading.Event()
        self._interrupted: str | None = None
        self._progress: Progress | None = None

    def run(self, order_json: str) -> str:
        """Run one job.

        Args:
            order_json: a WorkOrder.

        Returns:
            A JobResult as JSON.
        """
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
        """Return the Progress of the running job as JSON; None if no job runs."""
        progress = self._progress
        return progress.model_dump_json() if progress else None

    def stop(self) -> None:
        """Stop the running job at its next batch, after saving a checkpoint, and every job sent later."""
        self._stopping.set()

    def interrupt(self, job_key: str) -> None:
        """Stop one job at its next batch, after saving a checkpoint, if it is running or sent next."""
        self._interrupted = job_key

    def _note(self, progress: Progress) -> None:
        self._progress = progress


def check_code(driver: CodeHome) -> None:
    """Check that this process runs the same code as its driver.

    Raises:
        ResourceError: it does not; the message names the folders.
    """
    if found := difference(driver, code_home()):
        raise ResourceError(f"{found} Install the same orch on every machine of the cluster.")


def hide_gpus_of_others() -> None:
    """Hide all GPUs from an actor that has no share of one: Ray leaves every GPU of the machine visible to it.

    A `runtime_env` would do the same, but such an actor cannot use a prestarted process and starts a second later.
    """
    import ray

    if ray.is_initialized() and not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def worker_class() -> Any:
    """Return JobWorker as a Ray actor class; set a slot's resources with `.options(num_cpus=..., num_gpus=...)`."""
    import ray

    return ray.remote(**RAY_OPTIONS)(JobWorker)
