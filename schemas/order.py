"""What the driver sends a worker with a job: where to read, write and log. None of it decides the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from schemas.base import Frozen
from schemas.job import JobSpec
from schemas.results import CheckpointPointer

ReportPhase = Callable[[str], None]
"""Called with the phase a job is in, often enough to stop it there: it may raise."""
ReportProgress = Callable[[str, int, int], None]
"""Called with what is being worked on, how many items of it are done, and how many there are."""


class WorkOrder(Frozen):
    spec: JobSpec
    run_id: str
    """The job's MLflow run, created by the driver; the worker logs into it and never changes its state."""
    attempt: int
    tracking_uri: str
    cache_dir: str
    """Prepared images, shared by all jobs of the machine."""
    checkpoint_dir: str
    """Root of all checkpoints; each job has the folder of its key."""
    log_dir: str | None = None
    """Root of all logs; each job has the folder of its key. None: none is kept."""
    data_root: str | None = None
    upstream: CheckpointPointer | None = None
    """Final checkpoint of `spec.upstream`."""
    upstream_run_id: str = ""
    """The run that keeps a copy of it."""
    threads: int = 1
    micro_batches: Annotated[int, Field(ge=1)] = 1
    """Into how many parts to cut each batch: what an attempt before this one had no memory for."""
    store_patience: float = 600.0
    """Seconds for which a tracking store that does not answer is borne."""


class Progress(Frozen):
    """What a busy worker says when asked."""

    job_key: str
    phase: str
    """Such as `preparing images`, `training`, `measuring`."""
    epoch: int = 0
    epochs: int = 0
