"""One function per command. Nothing here prints, except a running sweep through its display."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator import store
from orchestrator.compare import PlannedJob, check_same_sweep, compare
from orchestrator.disk import check_all_data, resolver_for
from orchestrator.display import Display
from orchestrator.ledger import InMemoryLedger, Ledger, known_sweep
from orchestrator.planner import PlannedSweep, plan
from orchestrator.records import JobRecord, StoredPlan, SweepRecord
from orchestrator.request import SweepRequest, define
from orchestrator.settings import Settings
from orchestrator.sweeprun import Liveness, OpenPool, SweepReport, SweepRun, open_ray_pool
from orchestrator.tables import ResultTable, result_table
from schemas.base import did_you_mean
from schemas.errors import Interrupted, SpecError, StoreError, SweepIncomplete
from schemas.sweep import Resources


@dataclass(frozen=True)
class Plan:
    sweep: PlannedSweep
    data_root: str | None
    jobs: list[PlannedJob]

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(job.status.value for job in self.jobs))


@dataclass(frozen=True)
class UiPages:
    jobs: str
    sweeps: str
    moved: bool
    """The wanted port was busy, so another one is used."""


@dataclass(frozen=True)
class SweepStatus:
    record: SweepRecord
    is_driven: bool
    jobs: list[PlannedJob]

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(job.status.value for job in self.jobs))


def open_ledger(settings: Settings) -> Ledger:
    """The ledger to read: an empty one where there is no store yet, so that reading makes none."""
    if not store.exists(settings):
        return InMemoryLedger()
    from orchestrator.mlflow_ledger import MlflowLedger

    return MlflowLedger(store.open_client(settings), settings.store_uri)


def plan_sweep(settings: Settings, request: SweepRequest) -> Plan:
    """What `orch sweep` would do, against what the store has. Touches nothing."""
    planned = _plan(settings, request)
    check_all_data(planned.jobs, request.data_root, _existing_cache(settings))
    ledger = open_ledger(settings)
    existing = ledger.sweep(planned.name)
    if existing is not None and existing.plan is not None:
        check_same_sweep(existing.plan, planned.jobs)
    jobs = compare(planned.jobs, ledger.jobs(), Liveness(ledger))
    return Plan(planned, request.data_root, jobs)


def run_sweep(
    settings: Settings, request: SweepRequest, display: Display, *, workers: int | None = None,
    open_pool: OpenPool = open_ray_pool,
) -> SweepReport:  # fmt: skip
    """Run what is not yet done of a sweep, and report all of it."""
    planned = _plan(settings, request)
    stored = StoredPlan(
        name=planned.name,
        profile=planned.profile,
        data_root=request.data_root,
        jobs=tuple(job.model_dump(mode="json") for job in planned.jobs),
        upstream_keys=planned.upstream_keys,
        resources=planned.resources,
    )
    return SweepRun(settings, _with_workers(stored, workers), display, open_pool=open_pool).execute()


def resume_sweep(
    settings: Settings, name: str, display: Display, *, workers: int | None = None, retry_failed: bool = False,
    open_pool: OpenPool = open_ray_pool,
) -> SweepReport:  # fmt: skip
    """Run what is left of a sweep as it was planned; with `retry_failed`, what failed as well."""
    ledger = open_ledger(settings)
    record = known_sweep(ledger, name)
    if record.plan is None:
        raise StoreError(f"Sweep {name!r} was stopped before it was planned. Start it again with `orch sweep`.")
    return SweepRun(settings, _with_workers(record.plan, workers), display, retry_failed, open_pool).execute()


def list_sweeps(settings: Settings) -> list[SweepStatus]:
    """Every sweep of the store, newest first."""
    ledger = open_ledger(settings)
    records = ledger.jobs()
    alive = Liveness(ledger)
    return [_status(sweep, records, alive) for sweep in ledger.sweeps()]


def sweep_status(settings: Settings, name: str) -> SweepStatus:
    ledger = open_ledger(settings)
    record = known_sweep(ledger, name)
    return _status(record, ledger.jobs(), Liveness(ledger))


def sweep_table(status: SweepStatus) -> ResultTable:
    upstream = status.record.plan.upstream_keys if status.record.plan else frozenset()
    return result_table([job.record for job in status.jobs if job.record], upstream)


def find_job(settings: Settings, wanted: str) -> JobRecord:
    """The one job whose key starts with `wanted`, or whose title is or holds it.

    Raises:
        SpecError: no job fits, or several; the message lists them.
    """
    records = open_ledger(settings).jobs()
    word = wanted.strip().lower()
    found = (
        [record for key, record in records.items() if key.startswith(word)]
        or [record for record in records.values() if record.title.lower() == word]
        or [record for record in records.values() if set(word.split()) <= set(record.title.lower().split())]
    )
    if not found:
        titles = [record.title for record in records.values()]
        advice = did_you_mean(word, titles) if titles else "None has begun yet."
        raise SpecError(f"No job fits {wanted!r}. {advice} `orch status SWEEP` lists the keys.")
    if len(found) > 1:
        listed = "; ".join(f"{r.key} {r.title} ({r.sweep})" for r in found[:12])
        raise SpecError(f"{wanted!r} fits {len(found)} jobs: {listed}. Give the key.")
    return found[0]


def artifact_uri(settings: Settings, record: JobRecord) -> str:
    client = store.open_client(settings)
    with store.reaching(settings.store_uri):
        return str(client.get_run(record.run_id).info.artifact_uri)


def serve_ui(settings: Settings, port: int, on_ready: Callable[[UiPages], None]) -> None:
    """Run MLflow's UI until the user stops it; `on_ready` hears where it is."""
    from orchestrator import ui

    if not store.exists(settings):
        raise StoreError(f"There is no store at {settings.database} yet. `orch sweep --grid smoke` makes one.")
    experiment_id = ui.share_views(store.open_client(settings), settings.store_uri)
    chosen = ui.free_port(port)
    base = f"http://{ui.HOST}:{chosen}"
    pages = UiPages(
        jobs=ui.page(base, experiment_id, ui.JOBS), sweeps=ui.page(base, experiment_id, ui.SWEEPS), moved=chosen != port
    )
    ui.serve(settings, chosen, lambda: on_ready(pages))


def raise_if_incomplete(report: SweepReport) -> None:
    """
    Raises:
        Interrupted: the user stopped the sweep.
        SweepIncomplete: it ended, but some jobs did not succeed.
    """
    if report.is_complete:
        return
    left = ", ".join(f"{number} {status}" for status, number in report.counts.items() if status != "done")
    if report.interrupted:
        raise Interrupted(f"sweep {report.name} was stopped ({left}). Go on with: orch resume {report.name}")
    raise SweepIncomplete(
        f"some jobs of sweep {report.name} did not succeed ({left}). `orch status {report.name}` says why; "
        f"`orch resume {report.name} --failed` tries them again."
    )


def show_data(categories: tuple[str, ...], data_root: str | None, out: Path, per_category: int, size: int) -> Path:
    """Write a contact sheet of generated animals, or of photographs where there is a data root."""
    from workers.data.contact_sheet import generated_sheet, photograph_sheet, write_contact_sheet

    if data_root is None:
        sheet = generated_sheet(categories, per_category=per_category, size=size)
    else:
        sheet = photograph_sheet(categories, Path(data_root), per_category=per_category, size=size)
    write_contact_sheet(out, sheet)
    return out


def _plan(settings: Settings, request: SweepRequest) -> PlannedSweep:
    return plan(define(request), resolver_for(settings, request.data_root))


def _with_workers(stored: StoredPlan, workers: int | None) -> StoredPlan:
    if workers is None:
        return stored
    resources = Resources.model_validate({**stored.resources.model_dump(), "workers": workers})
    return stored.model_copy(update={"resources": resources})


def _existing_cache(settings: Settings) -> Path | None:
    return settings.cache_dir if settings.cache_dir.is_dir() else None


def _status(sweep: SweepRecord, records: dict[str, JobRecord], alive: Liveness) -> SweepStatus:
    jobs = compare(sweep.plan.specs, records, alive) if sweep.plan else []
    return SweepStatus(sweep, alive(sweep.name), jobs)
