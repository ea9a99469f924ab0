"""Jobs as MLflow runs: state, reason and attempt are tags, and MLflow's status follows the state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.ledger.base import RUN_STATUS, unknown_job
from orchestrator.ledger.job_moves import first_record, is_repeated, moved
from orchestrator.ledger.mlflow_runs import JOBS, MlflowRuns, is_job
from orchestrator.ledger.records import JobRecord, JobRun, records_of
from orchestrator.ledger.tags import KEY_TAG, fitting, identity_tags, job_run, record_of_run, state_tags
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass
class MlflowJobs:
    """The part of `MlflowLedger` that reads and writes the runs of jobs."""

    runs: MlflowRuns
    _run_ids: dict[str, str] = field(default_factory=dict)

    def all(self, keys: Collection[str] | None = None) -> dict[str, JobRecord]:
        """See `LedgerReader.jobs`."""
        records = records_of(self.entries())
        return {key: record for key, record in records.items() if keys is None or key in keys}

    def get(self, key: str) -> JobRecord:
        """See `LedgerWriter.get`."""
        return record_of_run(self._run(key), self.runs.here)

    def find(self, key: str) -> JobRecord | None:
        """Return the job's record and delete duplicates of its run; None if the job has no run."""
        return self._remember(key, self.runs.only(is_job(key)))

    def create(self, spec: JobSpec, sweep: str, parent: str, now: float) -> JobRecord:
        """Create the job's run below the run of its sweep. MLflow's status of it is right from its first move on.

        A run that was deleted in MLflow's UI has left files that bear its attempts' numbers, so the new one continues
        the count.

        Args:
            spec: As in `LedgerWriter.add`.
            sweep: Likewise.
            parent: The id of the sweep's run.
            now: Unix seconds.
        """
        deleted = self.runs.deleted(is_job(spec.key))
        before = max((int(run.data.tags.get("orch.attempt", 0)) for run in deleted), default=0)
        record = first_record(spec, sweep, now, run_id="", attempt=before)
        tags = {
            "orch.kind": "job",
            KEY_TAG: record.key,
            "orch.title": record.title,
            "orch.sweep": sweep,
            "orch.spec": fitting(record.spec_json, f"The spec of {record.title}"),
            "mlflow.parentRunId": parent,
            **identity_tags(spec),
            **state_tags(record),
        }
        run = self.runs.create(is_job(record.key), tags, record.title)
        self._run_ids[record.key] = run.info.run_id
        return record_of_run(run, self.runs.here)

    def move(
        self,
        key: str,
        to: JobState,
        now: float,
        *,
        reason: StopReason | None,
        result: JobResult | None,
        facts: Mapping[str, str],
    ) -> JobRecord:
        """See `LedgerWriter.move`. A repeated move writes the same again, in case the status was not written."""
        run = self._run(key)
        before = record_of_run(run, self.runs.here)
        record = before if is_repeated(before, to, now) else moved(
            before, to, now, reason=reason, result=result, facts=facts
        )  # fmt: skip
        tags = state_tags(record) | {f"orch.{name}": value for name, value in facts.items() if name != "sweep"}
        self.runs.set_tags(record.run_id, tags)
        if not _has_status(run, record):
            self._write_status(record, now)
        return record

    def entries(self) -> list[JobRun]:
        """See `LedgerRepairer.job_runs`."""
        found = [job_run(run, self.runs.here) for run in self.runs.find(JOBS)]
        for run in found:
            self._run_ids.setdefault(run.key, run.run_id)
        return found

    def deleted_keys(self) -> frozenset[str]:
        """See `LedgerRepairer.deleted_jobs`."""
        return frozenset(run.data.tags.get(KEY_TAG, "") for run in self.runs.deleted(JOBS, everywhere=True))

    def delete_duplicates(self, key: str) -> bool:
        """See `LedgerRepairer.delete_duplicate_runs`."""
        before = len(self.runs.find(is_job(key)))
        self.runs.only(is_job(key))
        return len(self.runs.find(is_job(key))) < before

    def repair_status(self, run: JobRun) -> None:
        """See `LedgerRepairer.repair_status`."""
        if run.record is not None:
            self._write_status(run.record, run.record.last_sign_at)

    def _run(self, key: str) -> Run:
        if key in self._run_ids:
            return self.runs.get(self._run_ids[key])
        for run in self.runs.find(is_job(key)):
            self._run_ids[key] = run.info.run_id
            return run
        raise unknown_job(key)

    def _write_status(self, record: JobRecord, now: float) -> None:
        self.runs.set_status(record.run_id, RUN_STATUS[record.state], now if record.state.has_ended else None)

    def _remember(self, key: str, run: Run | None) -> JobRecord | None:
        if run is None:
            return None
        self._run_ids[key] = run.info.run_id
        return record_of_run(run, self.runs.here)


def _has_status(run: Run, record: JobRecord) -> bool:
    """Return whether MLflow's status of a run is already that of the job, which goes on."""
    return run.info.status == RUN_STATUS[record.state] and not record.state.has_ended
