"""One driver per sweep, one worker per job."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Timer

import pytest
from filelock import FileLock

from orchestrator.ledger.claim import renew
from orchestrator.ledger.lease import LEASE_SECONDS, Lease
from orchestrator.ledger.locks import GLIMPSE_SECONDS, Locks
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import StoredPlan
from schemas.errors import StoreError, SweepBusy

LEASE = Lease(host="here", pid=7, since=0.0, sign_at=100.0)


def test_a_driven_sweep_is_refused_with_who_and_since_when(tmp_path: Path) -> None:
    refused = pytest.raises(SweepBusy, match=rf"process {os.getpid()} on .*since 19")
    with Locks(tmp_path).sweep("s", now=0.0), refused, Locks(tmp_path).sweep("s", now=1.0):
        pass


def test_a_sweep_can_be_taken_again_once_let_go_and_another_one_at_any_time(tmp_path: Path) -> None:
    with Locks(tmp_path).sweep("s", now=0.0), Locks(tmp_path).sweep("t", now=0.0):
        pass
    with Locks(tmp_path).sweep("s", now=2.0) as lease:
        assert (lease.pid, lease.since) == (os.getpid(), 2.0)


def test_a_job_belongs_to_one_driver_until_released(tmp_path: Path) -> None:
    mine, theirs = Locks(tmp_path), Locks(tmp_path)
    assert mine.take_job("k")
    assert not theirs.take_job("k")
    mine.release_job("k")
    assert theirs.take_job("k")
    theirs.release_all()
    assert mine.take_job("k")
    mine.release_all()


def test_who_only_looks_for_an_instant_whether_a_sweep_is_driven_refuses_nobody(tmp_path: Path) -> None:
    looker = FileLock(tmp_path / "s.lock", thread_local=False)
    looker.acquire()
    Timer(GLIMPSE_SECONDS / 10, looker.release).start()
    with Locks(tmp_path).sweep("s", now=1.0) as lease:
        assert lease.since == 1.0


def test_a_job_that_cannot_be_claimed_for_want_of_room_is_a_store_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileLock, "acquire", no_room)
    with pytest.raises(StoreError, match=r"Job k cannot be claimed .*No space left on device.*Make room"):
        Locks(tmp_path).take_job("k")


def test_a_claim_is_renewed_only_while_it_is_ones_own() -> None:
    ledger = InMemoryLedger()
    ledger.begin_sweep(StoredPlan(name="s", profile="laptop", jobs=()), 0.0)
    mine = renew(ledger, "s", LEASE, now=150.0)
    assert (mine.sign_at, mine.is_of(LEASE)) == (150.0, True)
    theirs = LEASE.model_copy(update={"host": "elsewhere", "since": 160.0})
    ledger.set_lease("s", theirs)
    with pytest.raises(SweepBusy, match="taken over by process 7 on elsewhere"):
        renew(ledger, "s", mine, now=170.0)
    record = ledger.sweep("s")
    assert record is not None
    assert record.lease == theirs


@pytest.mark.parametrize(
    ("now", "here", "pid_exists", "alive"),
    [
        (100.0, "here", True, True),
        (100.0, "here", False, False),  # its process is gone: no need to wait
        (100.0, "elsewhere", False, True),  # its process cannot be seen from here
        (100.0 + LEASE_SECONDS, "elsewhere", False, True),
        (100.1 + LEASE_SECONDS, "elsewhere", False, False),
        (100.1 + LEASE_SECONDS, "here", True, False),  # another process may have its number by now
    ],
)
def test_a_lease_lives_while_it_is_stamped(now: float, here: str, pid_exists: bool, alive: bool) -> None:
    assert LEASE.is_alive(now, here, lambda pid: pid_exists) is alive
