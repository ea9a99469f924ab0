"""What a job logs to its MLflow run, and under which names; logging the same thing twice changes nothing.

Only the driver writes the run's status and its `orch.*` tags.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import StoreUnreachable
from schemas.job import JobSpec
from schemas.results import MLFLOW_DECIMALS, CheckpointPointer, JobMetrics, JobResult
from workers.checkpoints.ending import parse_end
from workers.checkpoints.fencing import check_tags
from workers.tracking import final_checkpoint
from workers.tracking.access import check_login, denial, is_denied, without_password
from workers.tracking.curves import EPOCHS_AT_ONCE, LAST_CURVE, points_of
from workers.tracking.embedded import EmbeddedRuns
from workers.tracking.job_log import LOG_FOLDER, LOGGER
from workers.tracking.logged import read_logged
from workers.tracking.outages import is_outage, store_errors
from workers.tracking.run_facts import dataset_input, surroundings
from workers.tracking.sessions import set_options_once

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from workers.training.records import EpochRecord

SUMMARY = (
    "test_accuracy", "train_accuracy", "location_instability", "part_interpretability", "peak_spread",
    "filters_left_out", "measured_images", "chance_accuracy", "shuffled_instability", "tracking_share",
    "random_instability", "centre_instability", "best_fixed_instability", "held_out_instability",
    "held_out_tracking_share", "consistency", "fixed_consistency", "near_share", "fixed_near_share", "stability",
)  # fmt: skip
"""Fields of JobMetrics that are logged as metrics; `metrics.json` has all of them."""

END_FOLDER = "results"
"""Artifact folder with one file per attempt that says how the attempt ended."""
SPEC_FILE, METRICS_FILE, FILTERS_FILE = "spec.json", "metrics.json", "tables/filters.csv"
GALLERY_FILE = "figures/filters.png"
"""The filters of a job as it draws them itself: Fig. 4 of the paper without receptive fields."""
FIGURE_FILES: Mapping[int, str] = {
    4: "figures/filters_and_fields.png", 5: "figures/receptive_fields.png", 6: "figures/part_distribution.png",
}  # fmt: skip
"""Artifacts by number of the paper's figure. Jobs log Fig. 6; receptive fields by occlusion, in Figs. 4 and 5, can take
longer than the training and are drawn on demand."""


class RunLog:
    """One job's run, which the driver has created.

    Every method that writes first checks that the run still belongs to this attempt, and raises Superseded if not. All
    methods raise StoreUnreachable during an outage, and AccessDenied if the store refuses this machine's credentials.
    """

    def __init__(self, tracking_uri: str, run_id: str, attempt: int | None = None) -> None:
        """Open the run.

        Args:
            tracking_uri: MLflow's tracking URI.
            run_id: ID of the run.
            attempt: the attempt that writes; None to only read.

        Raises:
            StoreUnreachable: the store does not answer.
            AccessDenied: the store does not accept this machine's credentials.
            Superseded: another attempt has the job.
        """
        from mlflow import MlflowClient

        self._uri = tracking_uri
        self._run_id = run_id
        self._attempt = attempt
        self._embedded = EmbeddedRuns(tracking_uri)
        with self._reaching_store():
            check_login(tracking_uri)
            self._client: MlflowClient = MlflowClient(tracking_uri)
            set_options_once(self._client, flush=attempt is None)
            self._seen = read_logged(self._client, self._embedded, run_id, LAST_CURVE)
            self._check_tags(self._seen.tags)
        self._last_epoch = self._seen.last_step
        self._metrics = dict(self._seen.metrics)
        """Last values of the metrics; only this attempt changes them."""

    def _check(self) -> None:
        """Check that the run still belongs to this attempt, by the newest tags; the embedded store gives them at once.

        Raises:
            Superseded: another attempt has the job.
        """
        tags = self._embedded.tags(self._run_id)
        self._check_tags(self._client.get_run(self._run_id).data.tags if tags is None else tags)

    def _check_tags(self, tags: Mapping[str, str]) -> None:
        if self._attempt is not None:
            check_tags(tags, self._attempt, self._run_id)

    def log_spec(self, spec: JobSpec) -> None:
        """Log every field of the spec as a parameter, the data set, and where this attempt computes.

        MLflow's parameters are immutable, so the path of a weights file that moved between attempts keeps its first
        value.
        """
        from mlflow.entities import Param, RunTag

        params, seen = flatten(spec.model_dump(mode="json")), self._seen
        with self._reaching_store():
            self._check()
            fresh = [Param(name, value) for name, value in params.items() if name not in seen.params]
            tags = [RunTag(name, value) for name, value in surroundings().items() if seen.tags.get(name) != value]
            if fresh or tags:
                self._client.log_batch(self._run_id, params=fresh, tags=tags)
            if not seen.has_data_set:
                self._log_data_set(spec)

    def _log_data_set(self, spec: JobSpec) -> None:
        """Log the data set as the run's input, unless the store refuses it: no job fails because a page lacks it.

        MLflow looks for the data set and then adds it, so it refuses one of two jobs that add the same at once. The
        second time it is there.
        """
        for is_last in (False, True):
            try:
                self._client.log_inputs(self._run_id, [dataset_input(spec)])
                return
            except store_errors() as error:
                if is_denied(error) or is_outage(error):
                    raise
                if is_last:
                    LOGGER.warning("the run does not show its data set: %s", error)

    def log_epochs(self, records: Iterable[EpochRecord]) -> None:
        """Log the metrics of those epochs that the store does not have yet."""
        fresh = self._fresh(records)
        for start in range(0, len(fresh), EPOCHS_AT_ONCE):
            some = fresh[start : start + EPOCHS_AT_ONCE]
            with self._reaching_store():
                self._check()
                self._client.log_batch(self._run_id, metrics=points_of(some))
            self._last_epoch = some[-1].epoch

    def _fresh(self, records: Iterable[EpochRecord]) -> list[EpochRecord]:
        return [record for record in records if record.epoch > self._last_epoch]

    def log_outcome(self, records: Sequence[EpochRecord], metrics: JobMetrics, folder: Path) -> None:
        """Log what is left of a finished job: its last epoch, the summary as rounded metrics, and files.

        Metrics that the run has already are not logged again: an earlier attempt may have died after logging them.

        Args:
            records: all epochs.
            metrics: the job's metrics.
            folder: every file in it becomes an artifact under its relative path.
        """
        from mlflow.entities import Metric

        self.log_epochs(records[:-1])
        last = self._fresh(records)
        now, step = int(time.time() * 1000), last[-1].epoch if last else self._last_epoch
        values = {name: getattr(metrics, name) for name in SUMMARY}
        values |= {f"location_instability.{name}": value for name, value in metrics.landmark_instability.items()}
        values |= {
            f"{name}.{end}": value
            for name, interval in metrics.intervals.items()
            for end, value in zip(("low", "high"), interval, strict=True)
        }
        values |= {f"part_association.{name}": value for name, value in metrics.part_association.items()}
        rounded = {name: round(float(value), MLFLOW_DECIMALS) for name, value in values.items() if value is not None}
        with self._reaching_store():
            self._check()
            points = points_of(last) + [
                Metric(name, value, now, step) for name, value in rounded.items() if self._metrics.get(name) != value
            ]
            if points:
                self._client.log_batch(self._run_id, metrics=points)
                self._metrics |= rounded
                self._last_epoch = step
            self._embedded.flush()  # before the attempt's end is on the disk
        with self._reaching_store(files=True):
            self._files.log_artifacts(str(folder))

    def log_checkpoint(self, checkpoint: CheckpointPointer) -> CheckpointPointer:
        """Keep the final checkpoint among the files of the run, and return where it is; see `final_checkpoint.keep`."""
        with self._reaching_store(files=True):
            self._check()
            uri = self._seen.artifact_uri
            kept = final_checkpoint.keep(self._client, self._run_id, uri, checkpoint)
            self._check()  # an attempt that was replaced while it uploaded deletes nothing of its successor
            final_checkpoint.delete_others(uri, checkpoint)
            return kept

    def log_system(self, values: Mapping[str, float]) -> None:
        """Log how busy the machine is. The step is the number of seconds since the run was created."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with self._reaching_store():
            self._check()
            step = max(0, now - self._seen.start_time) // 1000
            self._client.log_batch(self._run_id, metrics=[Metric(name, it, now, step) for name, it in values.items()])

    def log_log(self, path: Path) -> None:
        """Log an attempt's log file as an artifact below `logs/`."""
        with self._reaching_store(files=True):
            self._check()
            self._files.log_artifact(str(path), LOG_FOLDER)

    def log_end(self, result: JobResult) -> None:
        """Log how this attempt ended, for a driver that does not hear of it."""
        with self._reaching_store(files=True), tempfile.TemporaryDirectory(prefix="orch-") as folder:
            self._check()
            path = Path(folder, _end_file(result.attempt))
            path.parent.mkdir()
            path.write_text(result.model_dump_json())
            self._files.log_artifact(str(path), END_FOLDER)

    def fetch_end(self, job_key: str, attempt: int) -> JobResult | None:
        """Return how an attempt ended; None if the run does not say."""
        with self._reaching_store(files=True), tempfile.TemporaryDirectory(prefix="orch-") as folder:
            kept = self._client.list_artifacts(self._run_id, END_FOLDER)
            if _end_file(attempt) not in [file.path for file in kept]:
                return None
            path = self._client.download_artifacts(self._run_id, _end_file(attempt), folder)
            return parse_end(Path(path).read_bytes(), job_key, attempt)

    def fetch_checkpoint(self, checkpoint: CheckpointPointer, folder: Path) -> Path | None:
        """Return the run's final checkpoint, whole or not; None if it has none. See `final_checkpoint.fetch`."""
        with self._reaching_store(files=True):
            return final_checkpoint.fetch(self._client, self._run_id, self._seen.artifact_uri, checkpoint, folder)

    @cached_property
    def _files(self) -> Any:
        """MLflow's repository of the run's artifacts; MLflow's client would read the run once more to find them."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self._seen.artifact_uri, tracking_uri=self._uri)

    @contextmanager
    def _reaching_store(self, *, files: bool = False) -> Iterator[None]:
        try:
            yield
        except store_errors() as error:
            if is_denied(error):
                raise denial(self._uri, error) from error
            if not is_outage(error):
                raise
            raise self._unreachable(error, files) from error

    def _unreachable(self, error: Exception, files: bool) -> StoreUnreachable:
        what, runs = f"run {self._run_id}", "it runs and is writable"
        if files:
            what, runs = f"the files of {what}", "it and the object store behind it run"
        return StoreUnreachable(
            without_password(f"The tracking store {self._uri} cannot be used for {what} ({error}). ")
            + f"Check that {runs}, then run `orch resume`."
        )


def _end_file(attempt: int) -> str:
    return f"{END_FOLDER}/attempt-{attempt}.json"


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested fields to dotted names: `{"train": {"epochs": 5}}` becomes `{"train.epochs": "5"}`."""
    flat: dict[str, str] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            flat[f"{prefix}{name}"] = ", ".join(str(item) for item in value)
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
