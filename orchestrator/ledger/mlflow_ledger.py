"""The ledger as MLflow runs: one parent run per sweep, one child run per job, found again by their tags.

State, reason and attempt are tags, mapped onto MLflow's statuses so that its own UI tells the truth. All
identifying tags are in the call that creates a run, so that a crash leaves no run that nobody can find.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

from orchestrator.ledger.base import (
    RUN_STATUS,
    RunStatus,
    first_record,
    is_repeated,
    known_sweep,
    moved,
    newest_first,
    records_of,
    unknown_job,
)
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.records import ControlRequest, JobRecord, JobRun, StoredPlan, SweepEntry, SweepRecord
from orchestrator.ledger.store import EXPERIMENT, reaching
from orchestrator.ledger.tags import (
    PLAN_FILE,
    PLAN_TAG,
    ROOT_TAG,
    TAG_LIMIT,
    fitting,
    has_begun,
    identity_tags,
    job_run,
    read_plan,
    record_of_run,
    state_tags,
    sweep_record,
    unusable_plan,
)
from schemas.errors import StoreError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = 1000
CALL_TAG = "orch.call"
"""Which call created a run."""
REQUEST_TAG = "orch.request."
NOTE = "mlflow.note.content"


@dataclass
class MlflowLedger:
    client: MlflowClient
    uri: str
    experiment: str = EXPERIMENT
    _run_ids: dict[str, str] = field(default_factory=dict)
    _sweep_ids: dict[str, str] = field(default_factory=dict)

    # -- jobs ---------------------------------------------------------------------------------------------------

    def jobs(self, keys: Collection[str] | None = None) -> dict[str, JobRecord]:
        records = records_of(self.job_runs())
        return {key: record for key, record in records.items() if keys is None or key in keys}

    def get(self, key: str) -> JobRecord:
        record = self._find(key)
        if record is None:
            raise unknown_job(key)
        return record

    def add(self, spec: JobSpec, sweep: str, now: float) -> JobRecord:
        run = self._only(_is_job(spec.key)) or self._create_job(spec, sweep, now)
        self._run_ids[spec.key] = run.info.run_id
        return record_of_run(run)

    def _create_job(self, spec: JobSpec, sweep: str, now: float) -> Run:
        """A run that was deleted in the UI leaves files under its attempts' numbers, so the new one counts on."""
        parent = known_sweep(self, sweep)
        gone = self._search(_is_job(spec.key), deleted=True)
        before = max((int(run.data.tags.get("orch.attempt", 0)) for run in gone), default=0)
        record = first_record(spec, sweep, now, run_id="", attempt=before)
        tags = {
            "orch.kind": "job",
            "orch.job_key": record.key,
            "orch.title": record.title,
            "orch.sweep": sweep,
            "orch.spec": fitting(record.spec_json, f"The spec of {record.title}"),
            "mlflow.parentRunId": parent.run_id,
            **identity_tags(spec),
            **state_tags(record),
        }
        return self._create(_is_job(record.key), tags, record.title, RUN_STATUS[record.state])

    def move(
        self,
        key: str,
        to: JobState,
        now: float,
        *,
        reason: StopReason | None = None,
        result: JobResult | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> JobRecord:
        before = self.get(key)
        record = before if is_repeated(before, to, now) else moved(
            before, to, now, reason=reason, result=result, facts=facts or {}
        )  # fmt: skip
        tags = state_tags(record) | {f"orch.{name}": value for name, value in (facts or {}).items() if name != "sweep"}
        with reaching(self.uri):
            self._set_tags(record.run_id, tags)
            if record.state.has_ended:
                self.client.set_terminated(record.run_id, RUN_STATUS[record.state], int(now * 1000))
            else:
                self.client.update_run(record.run_id, status=RUN_STATUS[record.state])
        return record

    def _find(self, key: str) -> JobRecord | None:
        with reaching(self.uri):
            if key in self._run_ids:
                return record_of_run(self.client.get_run(self._run_ids[key]))
        for run in self._runs(_is_job(key)):
            self._run_ids[key] = run.info.run_id
            return record_of_run(run)
        return None

    # -- sweeps -------------------------------------------------------------------------------------------------

    def begin_sweep(self, plan: StoredPlan, now: float) -> SweepRecord:
        run = self._only(_is_sweep(plan.name))
        if run is None:
            tags = {
                "orch.kind": "sweep",
                "orch.sweep": plan.name,
                "orch.profile": plan.profile,
                "orch.started_at": repr(now),
                "orch.jobs": str(len(plan.jobs)),
            }
            run = self._create(_is_sweep(plan.name), tags, plan.name, "RUNNING")
        known = self._sweep_record(run).plan
        if known is None:
            self._write_plan(run.info.run_id, plan)
        elif known.data_root != plan.data_root:
            with reaching(self.uri):
                self.client.set_tag(run.info.run_id, ROOT_TAG, plan.data_root or "")
        return known_sweep(self, plan.name)

    def sweep(self, name: str) -> SweepRecord | None:
        if "'" in name:  # would end the filter's string, and no sweep may be called so
            return None
        return next((self._sweep_record(run) for run in self._runs(_is_sweep(name))), None)

    def sweeps(self) -> list[SweepRecord]:
        return newest_first(self._sweep_record(run) for run in self._runs("tags.`orch.kind` = 'sweep'"))

    def stamp(self, sweep: str, lease: Lease | None) -> None:
        run_id = known_sweep(self, sweep).run_id
        with reaching(self.uri):
            self._set_tags(run_id, {"orch.lease": lease.model_dump_json() if lease else ""})
            if lease is not None:
                self.client.update_run(run_id, status="RUNNING")

    def conclude(self, sweep: str, note: str, metrics: Mapping[str, float], status: RunStatus) -> None:
        from mlflow.entities import Metric

        record = known_sweep(self, sweep)
        with reaching(self.uri):
            known = self.client.get_run(record.run_id).data.metrics
            changed = {name: value for name, value in metrics.items() if known.get(name) != value}
            stamp = int(record.started_at * 1000)
            if changed:
                points = [
                    Metric(name, value, stamp, int(metrics.get("jobs_done", 0))) for name, value in changed.items()
                ]
                self.client.log_batch(record.run_id, metrics=points)
            self._set_tags(record.run_id, {NOTE: note[:TAG_LIMIT]})
            self.client.set_terminated(record.run_id, status)

    # -- what people ask of a driver ----------------------------------------------------------------------------

    def ask(self, sweep: str, request: ControlRequest) -> None:
        with reaching(self.uri):
            self.client.set_tag(self._sweep_run_id(sweep), f"{REQUEST_TAG}{request.id}", request.model_dump_json())

    def requests(self, sweep: str) -> list[ControlRequest]:
        with reaching(self.uri):
            tags = self.client.get_run(self._sweep_run_id(sweep)).data.tags
        found = [
            ControlRequest.model_validate_json(value) for name, value in tags.items() if name.startswith(REQUEST_TAG)
        ]
        return sorted(found, key=lambda request: request.at)

    def answer(self, sweep: str, request: ControlRequest) -> None:
        if request in self.requests(sweep):
            with reaching(self.uri):
                self.client.delete_tag(self._sweep_run_id(sweep), f"{REQUEST_TAG}{request.id}")

    def _sweep_run_id(self, sweep: str) -> str:
        if sweep not in self._sweep_ids:
            self._sweep_ids[sweep] = known_sweep(self, sweep).run_id
        return self._sweep_ids[sweep]

    # -- what `orch fsck` looks at ------------------------------------------------------------------------------

    def job_runs(self) -> list[JobRun]:
        runs = [job_run(run) for run in self._runs("tags.`orch.kind` = 'job'")]
        for run in runs:
            self._run_ids.setdefault(run.key, run.run_id)
        return runs

    def sweep_runs(self) -> list[SweepEntry]:
        found = []
        for run in self._runs("tags.`orch.kind` = 'sweep'"):
            record, problem = self._sweep_record(run), ""
            try:
                _ = record.plan and record.plan.outlines
            except StoreError as error:
                record, problem = replace(record, read_plan=lambda: None), str(error)
            found.append(SweepEntry(record, run.info.status, problem))
        return found

    def drop_doubles(self, key: str) -> bool:
        before = len(self._runs(_is_job(key)))
        self._only(_is_job(key))
        return len(self._runs(_is_job(key))) < before

    def lift(self, sweep: str) -> None:
        self._only(_is_sweep(sweep))
        self.stamp(sweep, None)
        with reaching(self.uri):
            self.client.set_terminated(self._sweep_run_id(sweep), "KILLED")

    def repair_status(self, run: JobRun) -> None:
        if run.record is None:
            return
        status = RUN_STATUS[run.record.state]
        with reaching(self.uri):
            if run.record.state.has_ended:
                self.client.set_terminated(run.run_id, status, int(run.record.last_sign_at * 1000))
            else:
                self.client.update_run(run.run_id, status=status)

    def _sweep_record(self, run: Run) -> SweepRecord:
        return sweep_record(run.info.run_id, run.data.tags, lambda: self._read_plan(run))

    def _write_plan(self, run_id: str, plan: StoredPlan) -> None:
        """The file first, then the tag that vouches for it: a torn file is never taken for a plan."""
        text = plan.model_dump_json()
        with reaching(self.uri), TemporaryDirectory() as folder:
            file = Path(folder) / PLAN_FILE
            file.write_text(text, encoding="utf-8")
            self.client.log_artifact(run_id, str(file))
            self.client.set_tag(run_id, PLAN_TAG, hashlib.sha256(text.encode()).hexdigest())

    def _read_plan(self, run: Run) -> StoredPlan:
        with reaching(self.uri), TemporaryDirectory() as folder:
            if PLAN_FILE not in [file.path for file in self.client.list_artifacts(run.info.run_id)]:
                raise unusable_plan(run.data.tags["orch.sweep"], run.info.artifact_uri, "gone")
            content = Path(self.client.download_artifacts(run.info.run_id, PLAN_FILE, folder)).read_bytes()
        return read_plan(content, run.data.tags, run.info.artifact_uri)

    # -- MLflow -------------------------------------------------------------------------------------------------

    @property
    def _experiment_id(self) -> str:
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is None:
            raise StoreError(f"The store {self.uri} has no experiment {self.experiment!r}. Was it deleted in the UI? "
                             "Restore it there.")  # fmt: skip
        return str(experiment.experiment_id)

    def _create(self, condition: str, tags: Mapping[str, str], name: str, status: str) -> Run:
        """Make a run and give the one that counts of those that meet the condition, should there be others by now."""
        call = {**tags, CALL_TAG: uuid4().hex}
        with reaching(self.uri):
            made = self.client.create_run(self._experiment_id, tags=call, run_name=name)
            self.client.update_run(made.info.run_id, status=status)
        return self._only(condition, call[CALL_TAG]) or made

    def _only(self, condition: str, call: str = "") -> Run | None:
        """The run that counts of those that meet a condition.

        When the answer to a request is lost, MLflow's client sends it again, so that one call may leave several runs,
        the last of them at any time: those that bear the mark of the same call, or of `call`, and never began are
        deleted.
        """
        runs = self._runs(condition)
        if not runs:
            return None
        counting, *others = runs
        marks = {call, counting.data.tags.get(CALL_TAG, "")} - {""}
        with reaching(self.uri):
            for run in others:
                if run.data.tags.get(CALL_TAG) in marks and not has_begun(run.data.tags):
                    self.client.delete_run(run.info.run_id)
        return counting

    def _runs(self, condition: str) -> list[Run]:
        """Runs that meet a condition; of several for one job or sweep the one that counts comes first: one of which
        something came, or else the oldest."""
        return sorted(self._search(condition), key=lambda run: not has_begun(run.data.tags))

    def _search(self, condition: str, *, deleted: bool = False) -> Iterator[Run]:
        """Runs that meet a condition, oldest first, page by page; those in the UI's bin instead, if `deleted`."""
        from mlflow.entities import ViewType

        view, token = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY, None
        while True:
            with reaching(self.uri):
                page = self.client.search_runs(
                    [self._experiment_id], condition, view, PAGE, order_by=["start_time ASC"], page_token=token
                )
            yield from page
            token = page.token
            if not token:
                return

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _is_job(key: str) -> str:
    return f"tags.`orch.job_key` = '{key}'"


def _is_sweep(name: str) -> str:
    return f"tags.`orch.kind` = 'sweep' AND tags.`orch.sweep` = '{name}'"
