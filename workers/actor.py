"""The Ray actor that runs jobs, one at a time or as a pack.

Orders and results are JSON, so that a version mismatch fails clearly.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

from schemas.errors import OrchError, ResourceError
from schemas.order import Progress, WorkerFacts, WorkOrder
from schemas.packs import Packing
from workers.code_home import CodeHome, code_home, difference
from workers.loopback import bypass_proxies_for_loopback
from workers.secret_files import read_secret_files

if TYPE_CHECKING:
    from workers.training.packs import Packs

RAY_OPTIONS: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 3}
"""Ray must not retry: the driver decides every retry. One thread runs the job, two answer `progress` and `stop`. A
worker that may run a pack has one more thread for each further job."""


class JobWorker:
    """Runs jobs one after the other, or a pack in threads; torch and mlflow are imported once for all of them."""

    def __init__(self, driver_code: str = "", packing: str = "") -> None:
        """Listen for the signal that announces the end of this machine.

        Args:
            driver_code: the CodeHome of the driver as JSON; empty if there is no driver.
            packing: the Packing of the sweep as JSON; empty if each job trains alone.
        """
        self._driver_code = driver_code
        self._packing = packing
        self._packs: Packs | None = None
        self._stopping = threading.Event()
        self._preempted = threading.Event()
        self._interrupted: set[str] = set()
        self._progress: dict[str, Progress | None] = {}
        """Of each running job, by key."""
        if threading.current_thread() is threading.main_thread():  # Ray's own handler waits for the job's end
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def hello(self) -> str:
        """Check the code and import the libraries that every job needs.

        Returns:
            WorkerFacts as JSON, which also say why no job can run here.
        """
        problem, warning, places = "", "", 1
        try:
            if self._driver_code:
                warning = check_code(CodeHome.model_validate_json(self._driver_code))
            prepare()
            places = self._prepare_packs()
        except Exception as error:  # noqa: BLE001 - part of the answer, with the machine's name
            problem = str(error) if isinstance(error, OrchError) else f"{type(error).__name__}: {error}"
        return own_facts(problem, warning, places).model_dump_json()

    def _prepare_packs(self) -> int:
        """Return how many jobs may run here at the same time."""
        if not self._packing:
            return 1
        from workers.training.pack_probe import jobs_at_once
        from workers.training.packs import Packs

        places = jobs_at_once(Packing.model_validate_json(self._packing), gpu_share())
        self._packs = Packs() if places > 1 else None
        return places

    def run(self, order_json: str) -> str:
        """Run one job.

        Args:
            order_json: a WorkOrder.

        Returns:
            A JobResult as JSON.
        """
        from workers.job import run_job

        order = WorkOrder.model_validate_json(order_json)
        key = order.spec.key
        self._progress[key] = None

        def should_stop() -> bool:
            return self._stopping.is_set() or self._preempted.is_set() or key in self._interrupted

        try:
            result = run_job(order, self._note, should_stop, self._preempted.is_set, self._packs)
        finally:
            del self._progress[key]
            if not self._progress:  # also what was meant for a job that had ended
                self._interrupted.clear()
        return result.model_dump_json()

    def progress(self, job_key: str) -> str | None:
        """Return the Progress of a running job as JSON; None if it does not run."""
        progress = self._progress.get(job_key)
        return progress.model_dump_json() if progress else None

    def stop(self) -> None:
        """Stop the running jobs at their next batch, after saving a checkpoint, and every job sent later."""
        self._stopping.set()

    def interrupt(self, job_key: str) -> None:
        """Stop one job at its next batch, after saving a checkpoint, if it is running or sent next."""
        self._interrupted.add(job_key)

    def preempt(self) -> None:
        """Stop the running jobs as `stop` does, because this machine is taken away: they are to go on elsewhere."""
        self._preempted.set()

    def _on_sigterm(self, number: int, frame: object) -> None:
        self._preempted.set()
        if not self._progress:
            os._exit(128 + number)

    def _note(self, progress: Progress) -> None:
        self._progress[progress.job_key] = progress


def prepare() -> None:
    """Import the libraries that every job needs, and make this process end with its raylet.

    Raises:
        SpecError: a file that holds a credential cannot be read on this machine.
    """
    hide_gpus_of_others()  # before torch initialises CUDA
    bypass_proxies_for_loopback()
    read_secret_files()
    gc.disable()  # collecting garbage during the imports takes half a second and frees nothing
    try:
        import mlflow  # noqa: F401 - imported here so that the first job does not wait for it

        import workers.job  # noqa: F401
        from workers.checkpoints.fencing import die_with_parent
        from workers.tracking.outages import wait_briefly
    finally:
        gc.enable()
    gc.freeze()  # later collections need not search what was imported, half a million objects
    wait_briefly()
    if os.environ.get("RAY_RAYLET_PID") == str(os.getppid()):
        die_with_parent()  # without its raylet, no process can receive a result


def own_facts(problem: str = "", warning: str = "", places: int = 1) -> WorkerFacts:
    """Return where this process runs.

    Args:
        problem: why no job can run here; empty if jobs can.
        warning: what people should know although jobs can.
        places: number of jobs that may run here at the same time.
    """
    import ray

    has_ray = ray.is_initialized()
    return WorkerFacts(
        node=ray.get_runtime_context().get_node_id() if has_ray else "",
        host=socket.gethostname(),
        cores=os.cpu_count() or 1,
        gpus=len(ray.get_gpu_ids()) if has_ray else 0,
        problem=problem,
        warning=warning,
        places=places,
    )


def gpu_share() -> float:
    """Return the share of its GPU that this process may take, as Ray counts; 1 without Ray, or for whole GPUs."""
    import ray

    if not ray.is_initialized():
        return 1.0
    assigned = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
    return min(1.0, float(assigned.get("GPU", 0.0)) or 1.0)


def check_code(driver: CodeHome) -> str:
    """Check that this process runs the same code as its driver.

    Returns:
        A warning if it does not and the driver allows that; else an empty text.

    Raises:
        ResourceError: it does not; the message names the folders.
    """
    found = difference(driver, code_home())
    if found and not driver.may_differ:
        raise ResourceError(f"{found} Install the same orch on every machine of the cluster.")
    return found


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
