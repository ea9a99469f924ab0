"""What a worker receives with a job: where to read and write, and on how many threads to compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.ledger.records import JobRecord
from schemas.job import JobSpec
from schemas.order import WorkOrder


@dataclass(frozen=True)
class WorkerPaths:
    """Where the jobs of a sweep read and write."""

    tracking_uri: str
    cache_dir: str
    checkpoint_dir: str
    log_dir: str
    data_root: str | None
    object_store: str | None = None
    """URI of the object store that all machines share."""
    is_clustered: bool = False
    """Whether the workers are those of a cluster."""
    cache_gb: float = 50.0
    """Most GiB that pictures from the object store take on a machine."""
    features_gb: float = 10.0
    """Most GiB that features of frozen layers take on a machine."""
    system_metrics_seconds: float = 0.0
    """Seconds between two measurements of a machine that its jobs log; 0 logs none."""
    store_patience: float = 600.0
    """Seconds for which a worker waits for a store that does not answer."""


def absolute_uri(uri: str) -> str:
    """A store's URI as seen from any working folder: relative paths of SQLite files are made absolute."""
    scheme, slashes, path = uri.partition(":///")
    is_relative = scheme.split("+")[0] == "sqlite" and slashes and path and not Path(path).is_absolute()
    return f"{scheme}:///{Path(path).absolute()}" if is_relative else uri


def work_order(
    spec: JobSpec,
    record: JobRecord,
    upstream: JobRecord | None,
    paths: WorkerPaths,
    threads: int,
    micro_batches: int,
    *,
    alone: bool = False,
) -> WorkOrder:
    """Return the order for the next attempt of a job.

    Args:
        spec: The job.
        record: Its record, after the move to running.
        upstream: The record of the job whose weights it starts from; None if there is no such job.
        paths: Where to read and write.
        threads: Number of threads.
        micro_batches: Number of parts into which each batch is cut.
        alone: Whether it must not train in a pack.
    """
    return WorkOrder(
        spec=spec,
        run_id=record.run_id,
        attempt=record.attempt,
        tracking_uri=paths.tracking_uri,
        cache_dir=paths.cache_dir,
        checkpoint_dir=paths.checkpoint_dir,
        log_dir=paths.log_dir,
        data_root=paths.data_root,
        object_store=paths.object_store,
        is_clustered=paths.is_clustered,
        cache_gb=paths.cache_gb,
        features_gb=paths.features_gb,
        system_metrics_seconds=paths.system_metrics_seconds,
        upstream=upstream.result.checkpoint if upstream and upstream.result else None,
        upstream_run_id=upstream.run_id if upstream else "",
        threads=threads,
        micro_batches=micro_batches,
        alone=alone,
        store_patience=paths.store_patience,
    )
