"""Workers start early only where it is known that jobs will run, and no pool is left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.execution import early_start
from orchestrator.execution.early_start import EarlyPool, Outlook, outlook
from orchestrator.execution.selection import Which
from orchestrator.ledger.lease import Lease, here
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import StoredPlan
from orchestrator.services import sweeps
from orchestrator.settings import Settings
from schemas.errors import ResourceError, SweepBusy
from schemas.lifecycle import JobState
from schemas.sweep import Resources
from tests.support.doubles import Listener, ScriptedPool, plan_of

_S = JobState
RESUME, RETRY = Which(cancelled_with_sweep=True), Which(cancelled_with_sweep=True, failed=True)
PLANNED = plan_of(
    "smoke", categories=("cat", "cub-bird"), backbones=("alexnet",), sets={"weights.source": "random"}
).jobs
STORED = StoredPlan.of("s", "laptop", None, PLANNED, frozenset(), Resources(workers=2))


class Closing(ScriptedPool):
    """A pool that knows whether it was closed."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def ledger_with(*states: JobState) -> InMemoryLedger:
    """A ledger whose first jobs have these states."""
    ledger = InMemoryLedger()
    ledger.begin_sweep(STORED, 0.0)
    for job, state in zip(PLANNED, states, strict=False):
        ledger.add(job, "s", 0.0)
        for step in (_S.RUNNING, state):
            with suppress(Exception):
                ledger.move(job.key, step, 1.0)
        assert ledger.get(job.key).state is state
    return ledger


@pytest.mark.parametrize(
    ("states", "again", "expected"),
    [
        ((), RESUME, Outlook(4, False)),
        ((_S.SUCCEEDED, _S.RUNNING, _S.REQUEUED), RESUME, Outlook(3, False)),
        ((_S.SUCCEEDED,) * 4, RESUME, Outlook(0, False)),
        ((_S.SUCCEEDED, _S.FAILED), RESUME, Outlook(2, True)),
        ((_S.SUCCEEDED, _S.FAILED), RETRY, Outlook(0, True)),
        ((_S.SUCCEEDED, _S.CANCELLED), RESUME, Outlook(0, True)),
    ],
)
def test_the_jobs_that_will_run_are_counted_where_that_is_certain(
    tmp_path: Path, states: tuple[JobState, ...], again: Which, expected: Outlook
) -> None:
    assert outlook(Settings(home=tmp_path), ledger_with(*states), STORED, again) == expected


def test_nothing_starts_early_beside_a_live_driver_or_on_a_cluster(tmp_path: Path) -> None:
    ledger = ledger_with()
    ledger.set_lease("s", Lease(host=here(), pid=os.getpid(), since=0.0, sign_at=4e9))
    here_now = Settings(home=tmp_path)
    assert outlook(here_now, ledger, STORED, RESUME).left == 4  # a signature from the future is none
    assert outlook(Settings(home=tmp_path, ray_address="10.0.0.1:6379"), ledger, STORED, RESUME) == Outlook()
    assert outlook(Settings(home=tmp_path, tracking_uri="http://127.0.0.1:9"), ledger, STORED, RESUME) == Outlook()


def test_a_pool_that_was_opened_early_is_the_one_that_the_driver_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_start, "_import_mlflow", lambda: None)
    opened: list[Closing] = []

    def open_pool(settings: Settings, stored: StoredPlan, jobs: int) -> Closing:
        opened.append(Closing(slots=jobs))
        return opened[-1]

    with EarlyPool(open_pool) as pools:
        pools.begin(Settings(), STORED, 3)
        assert pools(Settings(), STORED, 3) is opened[0]
        later = pools(Settings(), STORED, 3)
    assert [later] == opened[1:]
    assert not any(pool.is_closed for pool in opened)
    with EarlyPool(open_pool) as pools:
        pools.begin(Settings(), STORED, 3)
    assert [pool.is_closed for pool in opened] == [False, False, True]


def test_why_ray_did_not_start_is_said_where_the_driver_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_start, "_import_mlflow", lambda: None)

    def broken(settings: Settings, stored: StoredPlan, jobs: int) -> Closing:
        raise ResourceError("no room")

    with EarlyPool(broken) as pools:
        pools.begin(Settings(), STORED, 3)
        with pytest.raises(ResourceError, match="no room"):
            pools(Settings(), STORED, 3)


def test_a_sweep_opens_its_pool_before_its_claim_and_closes_it_if_it_is_refused(
    new_home: Callable[[], Settings],
) -> None:
    settings = new_home()
    pool = Closing()
    sweep = sweeps.SweepSpec(grid="smoke", name="early")
    request = sweeps.requesting.SweepRequest(sweep=sweep, categories=("cat",), backbones=("alexnet",))
    with Locks(settings.lock_dir).sweep("early", now=0.0), pytest.raises(SweepBusy):
        sweeps.run_sweep(settings, request, Listener(), workers=1, open_pool=lambda *_: pool)
    assert pool.is_closed
    assert sweeps.run_sweep(settings, request, Listener(), workers=1, open_pool=lambda *_: ScriptedPool()).is_complete
    again = sweeps.run_sweep(
        settings, request, Listener(), workers=1, open_pool=lambda *_: pytest.fail("nothing is left to run")
    )
    assert again.ran == 0
