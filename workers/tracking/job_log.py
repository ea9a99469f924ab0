"""A job's log: one file per attempt, with its progress, warnings and how it ended.

Jobs in other threads of the process have logs of their own. What threads say that are no job's is in all logs.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import Interrupted, StoreError
from schemas.order import WorkOrder

if TYPE_CHECKING:
    from workers.training.records import EpochRecord

LOGGER = logging.getLogger("orch.job")
LOGGER.setLevel(logging.INFO)
LOG_FOLDER = "logs"
"""Artifact folder of the logs in a run."""
UPLOADING_THREAD = "upload"
"""Name of the threads that log beside the job. What libraries say in them is left out: it would make the log grow."""
FORMAT = "%(asctime)s %(levelname)s %(message)s"

_LOCK = threading.Lock()
_JOB_THREADS: Counter[int] = Counter()
"""Threads of this process in which a job runs, with the number of contexts that say so."""


def log_path(log_dir: Path, job_key: str, attempt: int) -> Path:
    """Return the log file of one attempt."""
    return log_dir / job_key / f"attempt-{attempt}.log"


@contextmanager
def job_thread() -> Iterator[None]:
    """Keep what this thread says out of the logs of other jobs."""
    own = threading.get_ident()
    with _LOCK:
        _JOB_THREADS[own] += 1
        logging.captureWarnings(True)
    try:
        yield
    finally:
        with _LOCK:
            _JOB_THREADS[own] -= 1
            if not _JOB_THREADS[own]:
                del _JOB_THREADS[own]
            if not _JOB_THREADS:
                logging.captureWarnings(False)


@contextmanager
def job_log(order: WorkOrder) -> Iterator[None]:
    """Write the log records of this process, warnings of libraries included, to the attempt's file.

    Args:
        order: the job; without a `log_dir`, no file is written.

    Raises:
        StoreError: the file cannot be written.
    """
    if order.log_dir is None:
        yield
        return
    handler = _open(log_path(Path(order.log_dir), order.spec.key, order.attempt))
    root, own = logging.getLogger(), threading.get_ident()
    handler.addFilter(lambda record: record.thread == own or record.thread not in _JOB_THREADS)
    root.addHandler(handler)
    try:
        with job_thread():
            where = f"process {os.getpid()} on {socket.gethostname()}, {order.threads} threads"
            LOGGER.info("attempt %d of %s (%s) in %s", order.attempt, order.spec.title, order.spec.key, where)
            yield
            LOGGER.info("finished")
    except Interrupted as error:
        LOGGER.info("stopped: %s", error)
        raise
    except BaseException:
        LOGGER.exception("stopped by an error")
        raise
    finally:
        root.removeHandler(handler)
        with suppress(OSError):  # on a full disk the end of the log is lost, but the job continues
            handler.close()


def _open(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"The log {path} cannot be written ({error.strerror or error}). Make room or repair the permissions there."
        ) from error
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(lambda record: record.threadName != UPLOADING_THREAD)
    return handler


def log_epoch(record: EpochRecord, epochs: int, chance: float) -> None:
    """Log one line about an epoch.

    Args:
        record: the epoch.
        epochs: number of epochs of the job.
        chance: accuracy of the best constant answer on the held-out images.
    """
    interpretable = f", filter loss {record.filter_loss:.4f}, lambda {record.lambda_:.3g}" if record.lambda_ else ""
    LOGGER.info(
        "epoch %d/%d: task loss %.4f%s, accuracy %.3f in training and %.3f on held-out images, chance %.3f (%.1f s)",
        record.epoch, epochs, record.task_loss, interpretable, record.train_accuracy, record.validation_accuracy,
        chance, record.seconds,
    )  # fmt: skip
