"""Sweeps as MLflow runs: plan and lease are tags, the results a note and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.ledger.base import RunStatus, unknown_sweep
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.mlflow_runs import SWEEPS, MlflowRuns, is_sweep
from orchestrator.ledger.notes import note_tags
from orchestrator.ledger.plan_tags import PLAN_FILE, ROOT_TAG, plan_tags, read_names, read_plan
from orchestrator.ledger.records import StoredPlan, SweepEntry, SweepProgress, SweepRecord, Waiting, newest_first
from orchestrator.ledger.tags import PROGRESS_TAG, WAITING_TAG, progress_tag, sweep_record
from schemas.errors import StoreError
from schemas.results import MLFLOW_DECIMALS

if TYPE_CHECKING:
    from mlflow.entities import Run

TAGS_AT_ONCE = 100
"""Tags per request: MLflow's limit."""


@dataclass
class MlflowSweeps:
    """The part of `MlflowLedger` that reads and writes the runs of sweeps."""

    runs: MlflowRuns
    _run_ids: dict[str, str] = field(default_factory=dict)

    def sweep(self, name: str) -> SweepRecord | None:
        """See `LedgerReader.sweep`."""
        if "'" in name:  # it would end the string in the search condition, and sweep names cannot contain it
            return None
        return next((self._record(run) for run in self.runs.find(is_sweep(name))), None)

    def sweeps(self) -> list[SweepRecord]:
        """See `LedgerReader.sweeps`."""
        return newest_first(self._record(run) for run in self.runs.find(SWEEPS))

    def known(self, name: str) -> SweepRecord:
        """Return a sweep.

        Raises:
            StoreError: No sweep has that name.
        """
        record = self.sweep(name)
        if record is None:
            raise unknown_sweep(name, self.sweeps())
        return record

    def run_id(self, name: str) -> str:
        """Return the id of a sweep's run, which is read once.

        Raises:
            StoreError: No sweep has that name.
        """
        if name not in self._run_ids:
            self._run_ids[name] = self.known(name).run_id
        return self._run_ids[name]

    def begin(self, plan: StoredPlan, now: float) -> SweepRecord:
        """See `LedgerWriter.begin_sweep`."""
        run = self.runs.only(is_sweep(plan.name))
        if run is None:
            tags = {
                "orch.kind": "sweep",
                "orch.sweep": plan.name,
                "orch.profile": plan.profile,
                "orch.started_at": repr(now),
                "orch.jobs": str(len(plan.jobs)),
            }
            run = self.runs.create(is_sweep(plan.name), tags, plan.name)
        stored = self._record(run).plan
        if stored is None:
            self._write_plan(run.info.run_id, plan)
        elif stored.data_root != plan.data_root:
            with self.runs.reaching():
                self.runs.client.set_tag(run.info.run_id, ROOT_TAG, plan.data_root or "")
        return self.known(plan.name)

    def set_lease(self, name: str, lease: Lease | None) -> None:
        """See `LedgerWriter.set_lease`."""
        run_id = self.known(name).run_id
        self.runs.set_tags(run_id, {"orch.lease": lease.model_dump_json() if lease else ""})
        if lease is not None:
            self.runs.set_status(run_id, "RUNNING")

    def set_waiting(self, name: str, waiting: Waiting | None) -> None:
        """See `LedgerWriter.set_waiting`."""
        self.runs.set_tags(self.run_id(name), {WAITING_TAG: waiting.model_dump_json() if waiting else ""})

    def set_progress(self, name: str, progress: SweepProgress | None) -> None:
        """See `LedgerWriter.set_progress`."""
        self.runs.set_tags(self.run_id(name), {PROGRESS_TAG: progress_tag(progress)})

    def conclude(self, name: str, note: str, metrics: Mapping[str, float], status: RunStatus) -> None:
        """See `LedgerWriter.conclude_sweep`."""
        from mlflow.entities import Metric

        record = self.known(name)
        with self.runs.reaching():
            data = self.runs.client.get_run(record.run_id).data
            logged = data.metrics
            timestamp, step = int(record.started_at * 1000), int(metrics.get("jobs_done", 0))
            rounded = {key: round(value, MLFLOW_DECIMALS) for key, value in metrics.items()}
            changed = [
                Metric(key, value, timestamp, step) for key, value in rounded.items() if logged.get(key) != value
            ]
            if changed:
                self.runs.client.log_batch(record.run_id, metrics=changed)
            self.runs.set_tags(record.run_id, note_tags(data.tags, note))
            self.runs.client.set_terminated(record.run_id, status)

    def entries(self) -> list[SweepEntry]:
        """See `LedgerRepairer.sweep_runs`."""
        found = []
        for run in self.runs.find(SWEEPS):
            record, problem = self._record(run), ""
            try:
                _ = record.plan and record.plan.outlines
            except StoreError as error:
                record, problem = replace(record, read_plan=lambda: None, read_names=tuple), str(error)
            found.append(SweepEntry(record, run.info.status, problem))
        return found

    def release_dead_driver(self, name: str) -> None:
        """See `LedgerRepairer.release_dead_driver`."""
        self.runs.only(is_sweep(name))
        self.set_lease(name, None)
        with self.runs.reaching():
            self.runs.client.set_terminated(self.run_id(name), "KILLED")

    def _record(self, run: Run) -> SweepRecord:
        tags = run.data.tags
        return sweep_record(run.info.run_id, tags, lambda: self._read_plan(run), lambda: read_names(tags))

    def _write_plan(self, run_id: str, plan: StoredPlan) -> None:
        """Write the plan and then the tag with its digest, so that half of a plan never counts as one."""
        *parts, digest = plan_tags(plan).items()
        for start in range(0, len(parts), TAGS_AT_ONCE):
            self.runs.set_tags(run_id, dict(parts[start : start + TAGS_AT_ONCE]))
        self.runs.set_tags(run_id, dict([digest]))

    def _read_plan(self, run: Run) -> StoredPlan:
        artifacts = self.runs.here.uri(run.info.artifact_uri)
        return read_plan(run.data.tags, self.runs.here, artifacts, lambda: self._fetch_plan(run.info.run_id))

    def _fetch_plan(self, run_id: str) -> bytes | None:
        """Read the file in which an earlier version of orch kept the plan."""
        with self.runs.reaching(), TemporaryDirectory() as folder:
            if PLAN_FILE not in [file.path for file in self.runs.client.list_artifacts(run_id)]:
                return None
            return Path(self.runs.client.download_artifacts(run_id, PLAN_FILE, folder)).read_bytes()
