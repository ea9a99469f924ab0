"""Logs the networks of finished jobs as MLflow models, and registers the best of each category and backbone."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.ledger import store
from orchestrator.ledger.home import settle
from orchestrator.ledger.records import JobRecord
from orchestrator.ledger.tags import KEY_TAG, identity_tags
from orchestrator.services import figures, jobs
from orchestrator.services.choices import CRITERIA
from orchestrator.services.sweeps import sweep_status
from orchestrator.settings import Settings
from schemas.errors import SpecError, StoreError
from schemas.job import JobSpec, categories_label
from schemas.lifecycle import JobState
from schemas.order import ReportPhase
from schemas.results import MLFLOW_DECIMALS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

ALIAS = "best"
"""Alias of the registered version that counts: `models:/NAME@best`."""


@dataclass(frozen=True)
class PackedModel:
    """A network as MLflow has it."""

    key: str
    """Key of the job."""
    title: str
    """Title of the job."""
    model_id: str
    uri: str
    """What MLflow's commands take: `models:/m-...`, or `models:/NAME@best` of a registered one."""
    store: str
    """URI of the tracking store, without which MLflow's commands do not find the model."""
    is_new: bool
    """False if the model had been logged before."""
    version: int | None = None
    """Version in the registry; None if it is only logged."""


def log_model(settings: Settings, wanted: str, report: ReportPhase) -> PackedModel:
    """Log the network of a finished job as an MLflow model, unless its run has one.

    Args:
        settings: the store.
        wanted: the job's key, the start of it, or its title.
        report: called with the current phase.

    Raises:
        SpecError: the job is unknown, ambiguous or has not succeeded.
        StoreError: its checkpoint is missing or damaged, or the store cannot be written.
    """
    record = figures.finished(jobs.find_job(settings, wanted), settings)
    settle(settings)
    return _logged(settings, record, report)


def register_best(
    settings: Settings, sweep: str, by: str, report: ReportPhase, say: Callable[[str], None]
) -> list[PackedModel]:
    """Register the best network of each category and backbone of a sweep, as the version with the alias `best`.

    Networks that are not logged yet are logged. A network that is registered already gets no second version.

    Args:
        settings: the store.
        sweep: name of the sweep.
        by: one of `CRITERIA`.
        report: called with the current phase.
        say: called with a warning for each job that another version of orch planned; such jobs are left out.

    Raises:
        SpecError: no job of the sweep that can be rebuilt has that metric.
        StoreError: the store has no such sweep, or cannot be written; or a checkpoint is missing or damaged.
    """
    best = best_of(_succeeded(settings, sweep), by, say)
    if not best:
        raise SpecError(
            f"{sweep} has no network to register: no job that can be used has succeeded with a {by}. "
            f"`orch status {sweep}` shows its jobs."
        )
    settle(settings)
    return [_registered(settings, name, record, by, report) for name, record in best.items()]


def best_of(records: Iterable[JobRecord], by: str, say: Callable[[str], None]) -> dict[str, JobRecord]:
    """Return the best job by the name of its registered model, such as `voc-cat-alexnet`.

    Args:
        records: finished jobs; those without the metric are left out.
        by: one of `CRITERIA`. Of equal ones, the key decides.
        say: called with a warning for each job that another version of orch planned; such jobs are left out.
    """
    groups: dict[str, dict[tuple[float, str], JobRecord]] = {}
    for record in records:
        if (value := _metric(record, by)) is None:
            continue
        try:
            name = registered_name(figures.spec_of(record))
        except StoreError as error:
            say(f"warning: left out: {error}")
        else:
            groups.setdefault(name, {})[value, record.key] = record
    return {name: group[CRITERIA[by](group)] for name, group in groups.items()}


def registered_name(spec: JobSpec) -> str:
    """Return the name of the registered model for the categories and the backbone of a network.

    It ends with a digest of the outputs if there are several: `6 voc categories` may be different ones.
    """
    name = _slug(f"{categories_label(spec.data.categories, spec.loss)} {spec.model.backbone}", kept=".")
    if spec.data.is_single:
        return name
    outputs = "\n".join(sorted(spec.output_labels))
    return f"{name}-{hashlib.sha256(outputs.encode()).hexdigest()[:8]}"


def serve_command(model: PackedModel, port: int = 5002) -> str:
    """Return the command that answers requests with a model on this machine."""
    return (
        f"MLFLOW_TRACKING_URI={shlex.quote(model.store)} mlflow models serve --model-uri {shlex.quote(model.uri)} "
        f"--env-manager local --port {port}"
    )


def _succeeded(settings: Settings, sweep: str) -> list[JobRecord]:
    found = sweep_status(settings, sweep)
    upstream = found.record.plan.upstream_keys if found.record.plan else frozenset()
    records = [job.record for job in found.jobs if job.record is not None and job.spec.key not in upstream]
    return [record for record in records if record.state is JobState.SUCCEEDED]


def _metric(record: JobRecord, name: str) -> float | None:
    metrics = record.result.metrics if record.result else None
    value: float | None = getattr(metrics, name, None)
    return value


def _slug(text: str, kept: str = "") -> str:
    """Replace what MLflow's names may not have by dashes; the name of a registered model may also have dots."""
    return re.sub(rf"[^\w{kept}-]+", "-", text).strip("-")


def _logged(settings: Settings, record: JobRecord, report: ReportPhase) -> PackedModel:
    client = store.open_client(settings)
    with store.reaching(settings.store_uri):
        experiment = client.get_run(record.run_id).info.experiment_id
        known = _ready(client, experiment, record)
    if known is not None:
        return _answer(settings, record, known, is_new=False)
    with store.reaching(settings.store_uri):
        model = client.create_logged_model(
            experiment, name=_slug(record.title), source_run_id=record.run_id, tags=_tags(record)
        )
    try:
        _store_files(settings, client, record, model.model_id, report)
        with store.reaching(settings.store_uri):
            _link(client, record, model)  # before the model is ready: a ready one is never linked again
            client.finalize_logged_model(model.model_id, "READY")
    except BaseException:
        with suppress(StoreError), store.reaching(settings.store_uri):  # without the store, the model stays pending
            client.finalize_logged_model(model.model_id, "FAILED")
        raise
    return _answer(settings, record, model, is_new=True)


def _store_files(
    settings: Settings, client: MlflowClient, record: JobRecord, model_id: str, report: ReportPhase
) -> None:
    from interp_model.trained import TrainedNetwork
    from workers.models import packing

    report(f"{record.title}: loading the network")
    spec, found = figures.spec_of(record), figures.load_network(settings, record)
    network = TrainedNetwork(found.network, found.mean_SS3, spec.output_labels, spec.loss)
    with TemporaryDirectory(prefix="orch-") as scratch:
        report(f"{record.title}: exporting the network")
        packing.pack(network, Path(scratch) / "model", record.run_id, model_id)
        report(f"{record.title}: storing the model")
        with store.reaching(settings.store_uri):
            client.log_model_artifacts(model_id, str(Path(scratch) / "model"))


def _ready(client: MlflowClient, experiment: str, record: JobRecord) -> LoggedModel | None:
    """Return the job's model that was logged completely; None if there is none."""
    found = client.search_logged_models([experiment], filter_string=f"tags.`{KEY_TAG}` = '{record.key}'")
    return next((one for one in found if one.status == "READY" and one.source_run_id == record.run_id), None)


def _tags(record: JobRecord) -> dict[str, str]:
    return {KEY_TAG: record.key, "orch.sweep": record.sweep, **identity_tags(figures.spec_of(record))}


def _link(client: MlflowClient, record: JobRecord, model: LoggedModel) -> None:
    """Show the model in the job's run, and the job's numbers with the model."""
    from mlflow.entities import LoggedModelOutput, Metric

    epochs, seconds = record.result.epochs_done if record.result else 0, int(record.last_sign_at * 1000)
    client.log_outputs(record.run_id, [LoggedModelOutput(model.model_id, step=epochs)])
    points = [
        Metric(name, round(value, MLFLOW_DECIMALS), seconds, epochs, model_id=model.model_id)
        for name in CRITERIA
        if (value := _metric(record, name)) is not None
    ]
    client.log_batch(record.run_id, metrics=points)


def _registered(settings: Settings, name: str, record: JobRecord, by: str, report: ReportPhase) -> PackedModel:
    from mlflow.exceptions import MlflowException

    logged, client = _logged(settings, record, report), store.open_client(settings)
    with store.reaching(settings.store_uri):
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = _source(settings, client, logged.model_id)
        versions = client.search_model_versions(f"name = '{name}'")  # which have no `model_id` from a database
        version = next((one for one in versions if one.source == source), None)
        if version is None:
            version = client.create_model_version(
                name, source, record.run_id, model_id=logged.model_id,
                description=f"{record.title}, of sweep {record.sweep}: {by} {_metric(record, by):.4g}",
            )  # fmt: skip
        client.set_registered_model_alias(name, ALIAS, str(version.version))
    return PackedModel(
        record.key, record.title, logged.model_id, f"models:/{name}@{ALIAS}", logged.store, logged.is_new,
        int(version.version),
    )  # fmt: skip


def _source(settings: Settings, client: MlflowClient, model_id: str) -> str:
    """Return where the registry finds the files: a server resolves the model itself, MLflow's code here would not."""
    if settings.store_uri.startswith(("http://", "https://")):
        return f"models:/{model_id}"
    return str(client.get_logged_model(model_id).artifact_location)


def _answer(settings: Settings, record: JobRecord, model: LoggedModel, *, is_new: bool) -> PackedModel:
    return PackedModel(
        record.key, record.title, model.model_id, f"models:/{model.model_id}", settings.store_uri, is_new
    )
