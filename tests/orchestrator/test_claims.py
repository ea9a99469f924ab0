"""One driver per sweep, one worker per job."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.claims import Claims
from orchestrator.records import LEASE_SECONDS, Lease
from schemas.errors import SweepBusy

LEASE = Lease(host="here", pid=7, since=0.0, sign_at=100.0)


def test_a_driven_sweep_is_refused_with_who_and_since_when(tmp_path: Path) -> None:
    refused = pytest.raises(SweepBusy, match=rf"process {os.getpid()} on .*since 19")
    with Claims(tmp_path).sweep("s", now=0.0), refused, Claims(tmp_path).sweep("s", now=1.0):
        pass


def test_a_sweep_can_be_taken_again_once_let_go_and_another_one_at_any_time(tmp_path: Path) -> None:
    with Claims(tmp_path).sweep("s", now=0.0), Claims(tmp_path).sweep("t", now=0.0):
        pass
    with Claims(tmp_path).sweep("s", now=2.0) as lease:
        assert (lease.pid, lease.since) == (os.getpid(), 2.0)


def test_a_job_belongs_to_one_driver_until_released(tmp_path: Path) -> None:
    mine, theirs = Claims(tmp_path), Claims(tmp_path)
    assert mine.take_job("k")
    assert not theirs.take_job("k")
    mine.release_job("k")
    assert theirs.take_job("k")
    theirs.release_all()
    assert mine.take_job("k")
    mine.release_all()


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
