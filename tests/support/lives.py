"""Runs jobs in separate processes that receive a real SIGKILL or SIGSTOP at a chosen moment.

The processes are forked from one that has imported torch and mlflow, so each starts fast.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil

from schemas.order import Progress, WorkOrder
from schemas.results import JobResult

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["workers.job", "mlflow.store.tracking.sqlalchemy_store", "torch._dynamo", "torch._inductor.config", __name__]
)
PATIENCE = 120.0

Moment = tuple[str, int]
"""A place in the job, and the number of the visit to it."""

PHASES = ("opening the run", "training", "measuring accuracy", "measuring filters", "logging")
"""Places that are phases of a job; `_before` lists the others."""


def live(
    order: WorkOrder,
    moment: Moment | None,
    number: int = signal.SIGKILL,
    megabytes: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> JobResult | None:
    """Run a job in a separate process to its end.

    Args:
        order: the job.
        moment: when the process kills itself; None to let it finish.
        number: the signal.
        megabytes: address space that the process may add once it trains; None for no limit.
        environment: variables that the process has in addition.

    Returns:
        The result; None if a moment is given.
    """
    process, result_file = start(order, moment, number, megabytes, environment)
    process.join(PATIENCE)
    if moment is not None:
        ended = result_file.read_text() if result_file.is_file() else "no result"
        assert process.exitcode == -number, f"{moment} never came: exit code {process.exitcode}, {ended}"
        return None
    assert process.exitcode == 0
    return JobResult.model_validate_json(result_file.read_text())


def start(
    order: WorkOrder,
    moment: Moment | None,
    number: int = signal.SIGKILL,
    megabytes: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[ForkServerProcess, Path]:
    """Start a job in a separate process; return the process and the file that will hold the result."""
    folder = Path(order.checkpoint_dir)
    folder.mkdir(parents=True, exist_ok=True)
    result_file = folder / f"result-of-attempt-{order.attempt}.json"
    arguments = (order.model_dump_json(), moment, number, megabytes, str(result_file), dict(environment or {}))
    process = CONTEXT.Process(target=_work, args=arguments)
    process.start()
    return process, result_file


def wait_until_stopped(process: ForkServerProcess) -> None:
    """Wait until a process has stopped itself, by polling: its parent is the fork server, not this process."""
    until = time.monotonic() + PATIENCE
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert process.is_alive(), "it ended instead of stopping"
        assert time.monotonic() < until
        time.sleep(0.01)


def _work(
    order_json: str,
    moment: Moment | None,
    number: int,
    megabytes: int | None,
    result_file: str,
    environment: dict[str, str],
) -> None:
    os.environ.update(environment)
    from workers.job import run_job

    order = WorkOrder.model_validate_json(order_json)
    if moment is None:
        result = run_job(order, lambda progress: _limit(progress, megabytes), lambda: False)
    else:
        where, left = moment
        strike = _Strike(left, number)
        if where not in PHASES:
            _before(where, strike)
        result = run_job(order, lambda progress: _at_phase(progress, where, strike), lambda: False)
    Path(result_file).write_text(result.model_dump_json())


def _limit(progress: Progress, megabytes: int | None) -> None:
    if megabytes is None or progress.phase != "training":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + megabytes * 2**20, hard))


class _Strike:
    """Sends a signal to this process at the chosen call."""

    def __init__(self, left: int, number: int) -> None:
        self.left, self.number = left, number

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


def _at_phase(progress: Progress, where: str, strike: Callable[[], None]) -> None:
    if progress.phase == where:
        strike()


def _before(where: str, strike: _Strike) -> None:
    """Send the signal before a function runs, or halfway through it."""
    import mlflow
    import torch
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    import workers.job
    from workers.checkpoints.store import CheckpointStore
    from workers.tracking import final_checkpoint
    from workers.tracking.run_log import RunLog

    client = mlflow.MlflowClient
    places: dict[str, tuple[Any, str]] = {
        "writing a checkpoint": (torch, "save"),
        "publishing a checkpoint": (CheckpointStore, "_publish"),
        "checking whose run it is": (RunLog, "_check"),
        "writing points": (client, "log_batch"),
        "writing files": (LocalArtifactRepository, "log_artifacts"),
        "uploading the log": (LocalArtifactRepository, "log_artifact"),
        "keeping the final checkpoint": (final_checkpoint, "keep"),
        "writing the end": (workers.job, "write_end"),
        "leaving the checkpoint to the run": (workers.job, "leave_to_run"),
        "deleting the attempt's own": (CheckpointStore, "delete_final"),
    }
    owner, name = places[where]
    real = getattr(owner, name)

    def struck(*arguments: Any, **named: Any) -> Any:
        if where == "writing a checkpoint" and strike.left == 1:
            arguments[1].write(b"half of it")
            arguments[1].flush()
        strike()
        return real(*arguments, **named)

    def struck_after(*arguments: Any, **named: Any) -> Any:
        answer = real(*arguments, **named)
        strike()
        return answer

    setattr(owner, name, struck_after if where == "checking whose run it is" else struck)
