"""What the driver sends to a worker with a job: locations and limits, none of which changes the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from schemas.base import Frozen
from schemas.job import JobSpec
from schemas.results import CheckpointPointer

ReportPhase = Callable[[str], None]
"""Callback that receives the current phase of a job. It is called often and may raise to stop the job."""
ReportProgress = Callable[[str, int, int], None]
"""Callback that receives the name of a task, the number of finished items and their total number."""


class WorkOrder(Frozen):
    """One attempt of a job, as the driver sends it to a worker."""

    spec: JobSpec
    """The job."""
    run_id: str
    """The job's MLflow run. The driver creates it; the worker logs into it and never changes its state."""
    attempt: int
    """Number of the attempt, counted from 1."""
    tracking_uri: str
    """URI of the MLflow tracking store."""
    cache_dir: str
    """Folder of prepared images, shared by all jobs of the machine."""
    checkpoint_dir: str
    """Root folder of all checkpoints; each job has a subfolder named by its key."""
    log_dir: str | None = None
    """Root folder of all logs, with a subfolder per job; None writes no log."""
    data_root: str | None = None
    """Folder of the photographs' data sets; None for generated images."""
    object_store: str | None = None
    """URI of the object store that all machines share, `s3://BUCKET/PREFIX`; None if checkpoints stay on the disk."""
    is_clustered: bool = False
    """Whether the driver's Ray is a cluster, whose nodes may have folders of their own."""
    cache_gb: float = 50.0
    """Most GiB that pictures from the object store take on the worker's machine, those in use excepted."""
    features_gb: float = 10.0
    """Most GiB that features of frozen layers take on the worker's machine."""
    system_metrics_seconds: float = 0.0
    """Seconds between two measurements of the worker's machine that are logged to the run; 0 logs none."""
    upstream: CheckpointPointer | None = None
    """Final checkpoint of `spec.upstream`."""
    upstream_run_id: str = ""
    """MLflow run that keeps a copy of the upstream checkpoint."""
    threads: int = 1
    """Number of CPU threads."""
    micro_batches: Annotated[int, Field(ge=1)] = 1
    """Number of micro-batches per batch; above 1 after an attempt that ran out of memory."""
    alone: bool = False
    """Whether the job must not train in a pack."""
    store_patience: float = 600.0
    """Seconds to wait for a tracking store that does not respond."""


class Progress(Frozen):
    """Answer of a busy worker to a progress request."""

    job_key: str
    """Key of the running job."""
    phase: str
    """Current phase, such as `preparing images`, `training` or `measuring`."""
    epoch: int = 0
    """Number of finished epochs."""
    epochs: int = 0
    """Total number of epochs."""


class WorkerFacts(Frozen):
    """First answer of a worker: where it runs."""

    node: str
    """Id of the node of Ray."""
    host: str
    """Name of the machine."""
    cores: int = 1
    """Number of cores of the machine."""
    gpus: int = 0
    """Number of GPUs that the worker may use."""
    places: int = 1
    """Number of jobs of one pack that it may run at the same time."""
    problem: str = ""
    """Why it cannot work there; empty if it can."""
    warning: str = ""
    """What people should know although it can work there; the driver shows it once."""
