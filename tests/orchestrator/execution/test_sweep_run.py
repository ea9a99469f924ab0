"""A sweep from claim to results on a real store, with a scripted pool instead of Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import pytest

from orchestrator.execution.pool import WorkerPool
from orchestrator.execution.sweep_outcome import SweepOutcome
from orchestrator.ledger import opening
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import JobRecord, Standing, StoredPlan
from orchestrator.planning.diff import PlanStatus
from orchestrator.planning.request import SweepRequest
from orchestrator.services import jobs, sweeps
from orchestrator.settings import Settings
from schemas.errors import Interrupted, ResourceError, SpecError, SweepBusy, SweepIncomplete
from schemas.job import RECIPE_VERSION
from schemas.lifecycle import JobState, StopReason
from schemas.order import WorkOrder
from schemas.sweep import SweepSpec
from tests.support.doubles import Listener, ScriptedPool, plan_of

ORDINARY, INTERPRETABLE = "voc-cat alexnet ordinary", "voc-cat alexnet interpretable"


class Ending(InMemoryLedger):
    """A ledger whose sweep ends right after the jobs were read."""

    def jobs(self, keys: Collection[str] | None = None) -> dict[str, JobRecord]:
        found = super().jobs(keys)
        self.set_lease("s", None)
        return found

    def standings(self) -> dict[str, Standing]:
        found = super().standings()
        self.set_lease("s", None)
        return found


def test_a_job_of_a_sweep_that_ends_while_one_looks_is_not_shown_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, planned = Ending(), plan_of("smoke", categories=("cat",), backbones=("alexnet",))
    plan = StoredPlan.of("s", "laptop", None, planned.jobs, planned.upstream_keys, planned.resources)
    monkeypatch.setattr(opening, "open_reader", lambda settings: ledger)
    ledger.begin_sweep(plan, 0.0)
    ledger.add(planned.jobs[0], "s", 0.0)
    ledger.move(planned.jobs[0].key, JobState.RUNNING, 0.0)
    now = time.time()
    looks = (lambda: sweeps.sweep_status(Settings(home=tmp_path), "s"),
             lambda: sweeps.list_sweeps(Settings(home=tmp_path))[0])  # fmt: skip
    for look in looks:
        ledger.set_lease("s", Lease(host="elsewhere", pid=1, since=now, sign_at=now))
        assert look().counts == {"running": 1, "new": 2}
        assert look().counts == {"lost": 1, "new": 2}


class Bench:
    """One store, and sweeps of one pre-training job and two jobs that start from its weights."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings.model_validate({"home": home})
        self.pool = ScriptedPool()
        self.display = Listener()

    def request(self, name: str, seed: int, epochs: int = 2) -> SweepRequest:
        sets = {"seed": seed, "weights.seed": seed, "train.epochs": epochs}
        return SweepRequest(
            sweep=SweepSpec(grid="smoke"), name=name, categories=("cat",), backbones=("alexnet",), sets=sets
        )

    def open_pool(self, settings: Settings, stored: StoredPlan, jobs: int) -> WorkerPool:
        return self.pool

    def sweep(
        self, name: str, seed: int, script: Mapping[str, list[StopReason]] | None = None, *, epochs: int = 2
    ) -> SweepOutcome:
        self.pool = ScriptedPool(script={f"{title} seed {seed}": reasons for title, reasons in (script or {}).items()})
        return sweeps.run_sweep(
            self.settings, self.request(name, seed, epochs), self.display, workers=1, open_pool=self.open_pool
        )

    def resume(self, name: str, *, failed: bool = False) -> SweepOutcome:
        self.pool = ScriptedPool()
        return sweeps.resume_sweep(self.settings, name, self.display, failed=failed, open_pool=self.open_pool)

    def run_status(self, name: str) -> str:
        from mlflow import MlflowClient

        record = sweeps.sweep_status(self.settings, name).record
        assert record.lease is None
        return str(MlflowClient(self.settings.store_uri).get_run(record.run_id).info.status)


@pytest.fixture(scope="module")
def bench(new_home: Callable[[], Settings]) -> Bench:
    return Bench(new_home().root)


def test_a_sweep_runs_once_and_then_never_again(bench: Bench) -> None:
    report = bench.sweep("once", seed=1)
    assert (report.counts, report.ran, bench.run_status("once")) == ({"done": 3}, 3, "FINISHED")
    sweeps.raise_if_incomplete(report)
    again = bench.sweep("once", seed=1)
    assert (again.ran, bench.pool.started) == (0, [])
    assert again.table == report.table


def test_another_sweep_reuses_what_is_finished(bench: Bench) -> None:
    bench.sweep("first", seed=2)
    assert bench.sweep("second", seed=2).ran == 0
    plan = sweeps.plan_sweep(bench.settings, bench.request("third", seed=2))
    assert [job.why.startswith("in sweep first") for job in plan.jobs] == [True] * 3


def test_a_failure_is_reported_and_tried_again_only_on_request(bench: Bench) -> None:
    report = bench.sweep("fails", seed=3, script={ORDINARY: [StopReason.DIVERGED]})
    assert report.counts == {"done": 2, "failed": 1}
    assert bench.run_status("fails") == "FAILED"
    with pytest.raises(SweepIncomplete, match="resume fails --failed"):
        sweeps.raise_if_incomplete(report)
    assert bench.resume("fails").ran == 0
    assert bench.resume("fails", failed=True).counts == {"done": 3}
    assert bench.pool.started == [f"{ORDINARY} seed 3"]


def test_a_run_that_is_refused_puts_no_failed_job_back(bench: Bench) -> None:
    bench.sweep("refused", seed=8, script={ORDINARY: [StopReason.DIVERGED]})
    with pytest.raises(ResourceError, match="9999 workers"):
        sweeps.resume_sweep(bench.settings, "refused", bench.display, workers=9999, failed=True)
    assert sweeps.sweep_status(bench.settings, "refused").counts == {"done": 2, "failed": 1}


def test_a_sweep_that_another_version_would_compute_differently_is_not_gone_on_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.sweep("before", seed=21)
    monkeypatch.setattr(sweeps, "RECIPE_VERSION", RECIPE_VERSION + 1)
    with pytest.raises(SpecError, match=f"recipe {RECIPE_VERSION}, now {RECIPE_VERSION + 1}.*--name"):
        bench.resume("before")
    assert sweeps.sweep_status(bench.settings, "before").counts == {"done": 3}


def test_breaking_off_leaves_a_sweep_that_can_be_resumed(bench: Bench) -> None:
    def break_off(order: WorkOrder) -> None:
        raise KeyboardInterrupt

    pool = ScriptedPool()
    pool.on_start = break_off
    request = bench.request("broken-off", seed=4)
    report = sweeps.run_sweep(bench.settings, request, bench.display, workers=1, open_pool=lambda *_: pool)
    assert report.counts == {"interrupted": 1, "new": 2}
    assert bench.run_status("broken-off") == "KILLED"
    with pytest.raises(Interrupted, match="orch resume broken-off"):
        sweeps.raise_if_incomplete(report)
    assert bench.resume("broken-off").counts == {"done": 3}


def test_a_sweep_that_another_machine_takes_over_keeps_that_ones_claim(bench: Bench) -> None:
    """Another driver takes the sweep over right after its claim, and when the last job ends."""
    now = time.time()
    other = Lease(host="elsewhere", pid=7, since=now, sign_at=now)

    def take_over() -> None:
        opening.open_ledger(bench.settings).set_lease("overtaken", other)

    class Overtaken(Listener):
        def say(self, line: str) -> None:
            if "Starting the workers" in line:
                take_over()

    bench.pool = ScriptedPool()
    request = bench.request("overtaken", 11)
    with pytest.raises(SweepBusy, match="taken over by process 7 on elsewhere"):
        sweeps.run_sweep(bench.settings, request, Overtaken(), workers=1, open_pool=bench.open_pool)
    assert (bench.pool.started, bench.pool.closed) == ([], True)
    assert sweeps.sweep_status(bench.settings, "overtaken").record.lease == other
    opening.open_ledger(bench.settings).set_lease("overtaken", None)
    bench.pool = ScriptedPool()
    bench.pool.close = take_over  # type: ignore[method-assign]
    sweeps.run_sweep(bench.settings, request, bench.display, workers=1, open_pool=bench.open_pool)
    assert sweeps.sweep_status(bench.settings, "overtaken").record.lease == other
    opening.open_ledger(bench.settings).set_lease("overtaken", None)


def test_slots_that_do_not_open_leave_no_claim_behind(bench: Bench) -> None:
    def refuse(*_: object) -> WorkerPool:
        raise ResourceError("no room")

    with pytest.raises(ResourceError, match="no room"):
        sweeps.run_sweep(bench.settings, bench.request("no-room", 5), bench.display, workers=1, open_pool=refuse)
    assert bench.run_status("no-room") == "FAILED"
    assert bench.sweep("no-room", seed=5).counts == {"done": 3}


def test_a_name_that_means_other_jobs_is_refused_with_the_difference(bench: Bench) -> None:
    bench.sweep("taken", seed=6)
    with pytest.raises(SpecError, match=r"train\.epochs 2 -> 3"):
        bench.sweep("taken", seed=6, epochs=3)
    assert bench.run_status("taken") == "FINISHED"


def test_a_sweep_that_is_driven_is_refused(bench: Bench) -> None:
    with Locks(bench.settings.lock_dir).sweep("held", now=0.0), pytest.raises(SweepBusy, match="already driven"):
        bench.sweep("held", seed=7)


def test_a_large_sweep_is_surveyed_with_all_its_counts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.sweep("large", seed=31, script={INTERPRETABLE: [StopReason.BAD_DATA]})
    whole = sweeps.sweep_status(bench.settings, "large")
    assert sweeps.sweep_status(bench.settings, "large", up_to=3) == whole
    monkeypatch.setattr(sweeps, "SURVEYED", 2)
    part = sweeps.sweep_status(bench.settings, "large", up_to=2)
    assert part.counts == whole.counts
    failed = next(job for job in whole.jobs if job.status is PlanStatus.FAILED)
    assert part.jobs == [failed, next(job for job in whole.jobs if job != failed)]
    assert part.jobs[0].spec.model_dump() == failed.spec.model_dump()


def test_a_job_is_found_by_key_title_or_words(bench: Bench) -> None:
    bench.sweep("found", seed=8)
    record = jobs.find_job(bench.settings, f"{INTERPRETABLE} seed 8")
    assert jobs.find_job(bench.settings, record.key[:8]) == record
    assert jobs.find_job(bench.settings, "interpretable 8 alexnet") == record
    with pytest.raises(SpecError, match="Give the key"):
        jobs.find_job(bench.settings, "alexnet seed")


def test_sweeps_are_listed_with_their_counts(bench: Bench) -> None:
    bench.sweep("listed", seed=9, script={INTERPRETABLE: [StopReason.BAD_DATA]})
    listed = {status.record.name: status for status in sweeps.list_sweeps(bench.settings)}["listed"]
    assert (listed.counts, listed.is_driven) == ({"done": 2, "failed": 1}, False)
