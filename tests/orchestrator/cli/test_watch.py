"""`orch watch` draws a sweep of the store, or prints a line per change where there is no terminal."""

from __future__ import annotations

import json
import os
import time

import pytest

from orchestrator.cli import sweeps as commands
from orchestrator.cli.main import main
from orchestrator.ledger import opening
from orchestrator.ledger.lease import Lease, here
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import RunningJob, StoredPlan, SweepProgress
from orchestrator.services import sweeps
from schemas.lifecycle import JobState, StopReason
from tests.support.reports import done, sweep_of


@pytest.fixture(autouse=True)
def ledger(monkeypatch: pytest.MonkeyPatch) -> InMemoryLedger:
    planned, jobs = sweep_of("first", name="s")
    ledger = InMemoryLedger()
    ledger.begin_sweep(StoredPlan.of("s", "laptop", None, planned.jobs, planned.upstream_keys, planned.resources), 0.0)
    for spec, end in zip(jobs, (JobState.SUCCEEDED, JobState.FAILED, JobState.RUNNING), strict=False):
        record = done(spec).record
        assert record is not None
        ledger.add(spec, "s", 0.0)
        ledger.move(spec.key, JobState.RUNNING, 1.0)
        if end is JobState.SUCCEEDED:
            ledger.move(spec.key, end, 2.0, reason=StopReason.FINISHED, result=record.result)
        elif end is JobState.FAILED:
            ledger.move(spec.key, end, 2.0, reason=StopReason.OUT_OF_MEMORY)
    monkeypatch.setattr(opening, "open_ledger", lambda settings: ledger)
    monkeypatch.setenv("COLUMNS", "30")
    return ledger


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


def test_once_prints_the_matrix_with_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("watch", "s", "--once") == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("sweep s, ")
    assert lines[1:] == [
        "[##     ] 2/7 jobs",
        "a alexnet ordinary",
        "b alexnet interpretable",
        "             a    b",
        "voc-cat    .90 FAIL",
        "voc-dog      ·    ·",
        "voc-horse    ·    ·",
        "failed: out of memory (1)",
    ]


def test_of_a_very_large_sweep_it_says_that_only_some_jobs_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(commands, "DRAWN_UP_TO", 3)
    monkeypatch.setattr(sweeps, "SURVEYED", 2)
    assert run("watch", "s", "--once") == 0
    shown = capsys.readouterr().out
    assert "1 failed" in shown
    assert "Shown are the 2 most urgent of 7 jobs." in shown
    assert "voc-horse" not in shown


def test_what_runs_in_another_process_is_shown_with_phase_epoch_and_rate(
    ledger: InMemoryLedger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    now = time.time()
    (key,) = [key for key, record in ledger.jobs().items() if record.state is JobState.RUNNING]
    job = RunningJob(key=key, phase="training", epoch=3, epochs=10, epoch_seconds=2.0)
    progress = SweepProgress(at=now, running=(job,), low=600.0, high=1200.0)
    ledger.set_progress("s", progress)
    assert run("watch", "s", "--once") == 0
    assert "training" not in capsys.readouterr().out  # its driver is dead
    ledger.set_lease("s", Lease(host=here(), pid=os.getpid(), since=now, sign_at=now))
    assert run("watch", "s", "--once") == 0
    shown = capsys.readouterr().out
    assert "[######              ] 2/7 jobs, 10 min to 20 min left" in shown
    assert " 30%" in shown
    assert f"  {ledger.get(key).title}  training 3/10, 2.0 s an epoch" in shown
    assert run("status", "s", "--json") == 0
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert [one["progress"] for one in jobs if one["progress"]] == [job.model_dump()]


def test_without_a_terminal_a_line_is_printed_for_every_change(
    ledger: InMemoryLedger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (running,) = [key for key, record in ledger.jobs().items() if record.state is JobState.RUNNING]
    looks = iter(range(4))

    def look(seconds: float) -> None:
        number = next(looks, None)
        if number is None:
            raise KeyboardInterrupt
        if number == 1:
            ledger.move(running, JobState.FAILED, 3.0, reason=StopReason.DIVERGED)

    monkeypatch.setattr(commands.time, "sleep", look)
    assert run("watch", "s") == 130
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" s: ")[2] for line in lines] == [
        "4 new, 1 done, 1 failed, 1 lost",
        "4 new, 1 done, 2 failed",
    ]
    assert all(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S") for line in lines)
