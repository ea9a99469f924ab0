"""A sweep whose first jobs all fail alike is paused and names the failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.circuit_breaker import ALIKE, FIRST_ATTEMPTS, SAYS_NOTHING, Stop, common_cause
from orchestrator.execution.driver import Driver
from orchestrator.execution.work_orders import WorkerPaths
from orchestrator.ledger import opening
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import JobRecord, StoredPlan
from orchestrator.planning.diff import compare
from orchestrator.planning.request import SweepRequest
from orchestrator.services import sweeps
from orchestrator.settings import Settings
from schemas.errors import StoreUnreachable, SweepIncomplete
from schemas.lifecycle import JobState, StopReason
from schemas.sweep import SweepSpec
from tests.support.doubles import Listener, ScriptedPool, plan_of

R = StopReason
JOBS = plan_of("smoke", sets={"weights.source": "random"}).jobs


def bad(key: str, fingerprint: str = "f", reason: StopReason = R.CODE_RAISED) -> Stop:
    return Stop(key, reason, fingerprint)


GOOD = Stop("ok", R.FINISHED)


@pytest.mark.parametrize(
    ("stops", "pauses"),
    [
        ([bad("a"), bad("b"), bad("c")], True),
        ([bad("a"), bad("a"), bad("b")], True),  # a retry of the same failure counts
        ([bad("a"), bad("b")], False),  # too few
        ([bad("a"), bad("a"), bad("a")], False),  # the one job may be the cause
        ([bad("a"), bad("b", "g"), bad("c", "h")], False),  # different failures
        ([bad("a", "g"), bad("b"), bad("c"), bad("d")], True),
        ([GOOD, bad("a"), bad("b"), bad("c")], False),  # one has succeeded
        ([bad("a"), bad("b", "g"), bad("c", "h"), bad("d", "i"), bad("e", "j"), bad("a"), bad("b")], False),  # too late
        ([Stop("x", R.WORKER_LOST)] * 9 + [bad("a"), bad("b"), bad("c")], True),  # lost workers do not count
    ],
)
def test_which_failures_pause(stops: list[Stop], pauses: bool) -> None:
    cause = common_cause(stops)
    assert (cause is not None) is pauses
    assert cause is None or cause.fingerprint == "f"


@pytest.mark.parametrize("reason", sorted(SAYS_NOTHING))
def test_what_lies_outside_the_jobs_never_pauses(reason: StopReason) -> None:
    assert common_cause([bad(key, reason=reason) for key in "abcdefgh"]) is None


def drive(
    folder: Path, script: dict[str, list[StopReason]], ledger: InMemoryLedger | None = None
) -> tuple[Driver, ScriptedPool, Listener]:
    ledger, pool, display = ledger or InMemoryLedger(), ScriptedPool(script=script), Listener()
    ledger.begin_sweep(StoredPlan(name="s", profile="laptop", jobs=()), 0.0)
    ticks = iter(range(10_000))
    driver = Driver(
        sweep="s",
        planned=compare(JOBS, {}, lambda sweep: False),
        ledger=ledger,
        pool=pool,
        locks=Locks(folder),
        worker_paths=WorkerPaths("uri", "cache", "checkpoints", "logs", None),
        lease=Lease(host="h", pid=1, since=0.0, sign_at=0.0),
        display=display,
        clock=lambda: float(next(ticks)),
        driver_is_alive=lambda sweep: False,
    )
    driver.run()
    return driver, pool, display


def test_a_driver_spends_no_more_jobs_on_what_fails_alike(tmp_path: Path) -> None:
    driver, pool, display = drive(tmp_path, {job.title: [R.BAD_DATA] * 9 for job in JOBS})
    assert len(JOBS) > FIRST_ATTEMPTS >= ALIKE
    assert len(pool.started) == ALIKE
    assert "Scripted: ended by script: bad_data (fingerprint " in driver.paused_by
    assert f"Pausing: the first jobs all fail alike. {driver.paused_by}" in display.lines


def test_a_store_that_goes_away_as_the_sweep_is_paused_is_what_ends_it(tmp_path: Path) -> None:
    class Away(InMemoryLedger):
        failed = 0

        def get(self, key: str) -> JobRecord:
            if self.failed >= ALIKE:
                raise StoreUnreachable("away")
            return super().get(key)

        def move(self, key: str, to: JobState, now: float, **more: Any) -> JobRecord:
            moved = super().move(key, to, now, **more)
            self.failed += to is JobState.FAILED
            return moved

    driver, pool, _ = drive(tmp_path, {job.title: [R.BAD_DATA] * 9 for job in JOBS}, Away())
    assert (len(pool.started), driver.paused_by != "") == (ALIKE, True)


def test_a_driver_goes_on_when_only_some_fail(tmp_path: Path) -> None:
    driver, pool, _ = drive(tmp_path, {job.title: [R.BAD_DATA] for job in JOBS[1:]})
    assert (driver.paused_by, len(pool.started)) == ("", len(JOBS))


def test_the_end_of_a_paused_sweep_names_the_cause_and_what_to_type(new_home: Callable[[], Settings]) -> None:
    settings = new_home()
    request = SweepRequest(sweep=SweepSpec(grid="smoke"), name="broken", sets={"weights.source": "random"})
    pool = ScriptedPool(script={job.title: [R.BAD_DATA] for job in JOBS})
    report = sweeps.run_sweep(settings, request, Listener(), workers=1, open_pool=lambda *_: pool)
    with pytest.raises(SweepIncomplete) as ended:
        sweeps.raise_if_incomplete(report)
    said = str(ended.value)
    assert "its first jobs all fail alike: Scripted: ended by script: bad_data" in said
    assert "orch resume broken --failed" in said
    assert report.counts == {"failed": ALIKE, "new": len(JOBS) - ALIKE}
    records = opening.open_ledger(settings).jobs()
    assert not [record for record in records.values() if record.state is JobState.RUNNING]
