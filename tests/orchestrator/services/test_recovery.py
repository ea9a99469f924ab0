"""The recovery commands on a real store: what they print, what they change, and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from orchestrator.execution.sweep_outcome import SweepOutcome
from orchestrator.ledger import opening, store
from orchestrator.ledger.lease import Lease, here
from orchestrator.ledger.locks import Locks
from orchestrator.ledger.records import Waiting
from orchestrator.planning.diff import PlanStatus
from orchestrator.planning.request import SweepRequest
from orchestrator.services import sweeps
from orchestrator.services.jobs import find_job
from orchestrator.settings import Settings
from schemas.lifecycle import JobState, StopReason
from schemas.sweep import SweepSpec
from tests.support.doubles import Listener, ScriptedPool
from workers.tracking.job_log import log_path
from workers.tracking.run_log import SPEC_FILE

ROOT = Path(__file__).parents[3]
S, R = JobState, StopReason
ORDINARY, INTERPRETABLE = "voc-cat alexnet ordinary", "voc-cat alexnet interpretable"


class Bench:
    """One store. Each sweep has another seed, one pre-training job, and two jobs that start from it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def request(self, name: str, seed: int, **sets: Any) -> SweepRequest:
        fields = {"seed": seed, "weights.seed": seed} | {field.replace("__", "."): v for field, v in sets.items()}
        return SweepRequest(
            sweep=SweepSpec(grid="smoke"), name=name, categories=("cat",), backbones=("alexnet",), sets=fields
        )

    def sweep(self, name: str, seed: int, script: Mapping[str, list[StopReason]] | None = None) -> SweepOutcome:
        pool = ScriptedPool(script={f"{title} seed {seed}": reasons for title, reasons in (script or {}).items()})
        request = self.request(name, seed)
        return sweeps.run_sweep(self.settings, request, Listener(), workers=1, open_pool=lambda *_: pool)

    def key(self, name: str, title: str) -> str:
        return next(job.spec.key for job in sweeps.sweep_status(self.settings, name).jobs if title in job.spec.title)

    def counts(self, name: str) -> dict[str, int]:
        return sweeps.sweep_status(self.settings, name).counts

    def move(self, key: str, *states: JobState, sweep: str = "") -> None:
        ledger = opening.open_ledger(self.settings)
        for state in states:
            ledger.move(key, state, time.time(), facts={"sweep": sweep} if sweep else {})

    def log(self, key: str, attempt: int, text: str) -> None:
        path = log_path(self.settings.log_dir, key, attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(scope="module")
def bench(new_home: Callable[[], Settings]) -> Bench:
    return Bench(new_home())


class Terminal:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def type(self, *words: str) -> int:
        """Run a command, keep what it prints, and return its exit code."""
        with pytest.raises(SystemExit) as end:
            main(list(words))
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err
        return int(end.value.code or 0)

    def answer(self, *words: str) -> Any:
        assert self.type(*words, "--json") == 0
        return json.loads(self.out)


@pytest.fixture
def terminal(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    for name in ("DATA_ROOT", "PROFILE", "TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(f"ORCH_{name}", raising=False)
    monkeypatch.setenv("ORCH_HOME", str(bench.settings.root))
    return Terminal(capsys)


def test_a_failure_is_explained_put_back_and_gone(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("fails", 1, {ORDINARY: [R.OUT_OF_MEMORY] * 9})
    key = bench.key("fails", ORDINARY)
    bench.log(key, 4, "epoch 1\nthe last line\n")
    assert terminal.type("why", "fails") == 0
    assert f"1 job failed in 4 attempts: {R.OUT_OF_MEMORY}, fingerprint " in terminal.out
    assert "Scripted: ended by script: out_of_memory" in terminal.out
    assert "the last line" in terminal.out
    assert "next: " in terminal.out
    assert "`orch requeue fails --failed --reason out_of_memory`" in terminal.out
    (cause,) = terminal.answer("why", key)["causes"]
    assert (cause["attempts"], [job["key"] for job in cause["jobs"]]) == (4, [key])

    assert terminal.type("requeue", "fails", "--failed", "--reason", "diverged") == 2
    assert f"No job of sweep 'fails' matches. There are 1 failed (out_of_memory): {ORDINARY} seed 1." in terminal.err
    assert terminal.type("requeue", "fails", "--failed", "--reason", "out_of_memory", "--category", "cat") == 0
    assert "1 job is put back. It starts from the last checkpoint, if any, with: orch resume fails" in (terminal.out)
    assert bench.counts("fails") == {"done": 2, "interrupted": 1}
    assert terminal.type("why", "fails") == 0  # what went wrong is still known
    assert "1 job put back or stopped: out_of_memory, fingerprint " in terminal.out
    assert "Scripted: ended by script: out_of_memory" in terminal.out
    assert "the last line" in terminal.out
    assert "next: `orch resume fails` continues" in terminal.out
    assert terminal.type("requeue", "fails", "--failed") == 2


def test_a_sweep_that_is_all_done_has_nothing_to_explain_cancel_or_pause(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("fine", 2)
    for command, said in (
        ("why", "sweep fine: no failures, every job is done"),
        ("cancel", "sweep fine has nothing to cancel: every job is done"),
        ("pause", "sweep fine has no driver, so there is nothing to pause: every job is done"),
    ):
        assert terminal.type(command, "fine") == 0
        assert said in terminal.out


def test_a_cancelled_job_is_left_out_until_it_is_put_back(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("partly", 3, {INTERPRETABLE: [R.BAD_DATA]})
    key = bench.key("partly", INTERPRETABLE)
    assert terminal.type("requeue", "partly", "--failed", "--from-scratch") == 0
    assert "It starts from scratch with: orch resume partly" in terminal.out
    done = terminal.answer("cancel", f"{INTERPRETABLE} seed 3")
    assert (done["sweep"], done["changed"], done["left"]) == ("partly", [f"{INTERPRETABLE} seed 3"], 1)
    assert terminal.type("cancel", key) == 0
    assert "it is cancelled already" in terminal.out
    assert terminal.type("cancel", bench.key("partly", ORDINARY)) == 0
    assert "it has succeeded" in terminal.out
    assert bench.counts("partly") == {"done": 2, "cancelled": 1}
    assert terminal.answer("requeue", "partly", "--cancelled")["jobs"][0]["stop_reason"] == "cancelled_by_user"


def test_a_job_that_was_cancelled_with_its_sweep_can_be_cancelled_for_good(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("twice", 12, {ORDINARY: [R.BAD_DATA], INTERPRETABLE: [R.BAD_DATA]})
    assert terminal.type("requeue", "twice", "--failed") == 0
    assert terminal.type("cancel", "twice") == 0
    assert terminal.answer("cancel", bench.key("twice", ORDINARY))["changed"] == [f"{ORDINARY} seed 12"]
    assert bench.sweep("twice", 12).counts == {"done": 2, "cancelled": 1}


def test_of_two_jobs_with_one_title_the_one_that_can_be_is_cancelled(bench: Bench, terminal: Terminal) -> None:
    for name, epochs, reason in (("closed", 2, R.FINISHED), ("open", 3, R.BAD_DATA)):
        pool = ScriptedPool(script={f"{ORDINARY} seed 13": [reason]})
        request = bench.request(name, 13, train__epochs=epochs)
        sweeps.run_sweep(bench.settings, request, Listener(), workers=1, open_pool=lambda *_, pool=pool: pool)
    assert terminal.type("requeue", "open", "--failed") == 0
    assert terminal.type("cancel", "alexnet 13") == 2  # words that fit jobs of other titles too
    assert "fits 5 jobs" in terminal.err
    assert terminal.answer("cancel", f"{ORDINARY} seed 13")["sweep"] == "open"


def test_a_job_that_waits_is_new_whatever_other_sweeps_have_done(bench: Bench, terminal: Terminal) -> None:
    for name, epochs, reason in (("near", 2, R.FINISHED), ("far", 3, R.BAD_DATA)):
        pool = ScriptedPool(script={"pre-training alexnet on 37 categories seed 14": [reason]})
        request = bench.request(name, 14, train__epochs=epochs, weights__epochs=epochs)
        sweeps.run_sweep(bench.settings, request, Listener(), workers=1, open_pool=lambda *_, pool=pool: pool)
    assert bench.counts("far") == {"failed": 1, "blocked": 2}
    assert terminal.type("requeue", "far", "--failed") == 0
    assert bench.counts("far") == {"interrupted": 1, "new": 2}


def test_a_job_whose_driver_died_is_shown_as_lost(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("dead", 15, {ORDINARY: [R.BAD_DATA]})
    key = bench.key("dead", ORDINARY)
    bench.move(key, S.REQUEUED, S.QUEUED, S.RUNNING)
    assert terminal.type("show", key) == 0
    assert "lost: running when its driver died, attempt 2" in terminal.out
    assert terminal.answer("show", key)["is_lost"] is True
    assert terminal.type("show", bench.key("dead", INTERPRETABLE)) == 0
    assert "lost" not in terminal.out


def test_a_cancelled_sweep_goes_on_when_its_command_is_typed_again(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("typed", 11, {ORDINARY: [R.BAD_DATA]})
    assert terminal.type("requeue", "typed", "--failed") == 0
    assert terminal.type("cancel", "typed") == 0
    assert f"sweep typed: 1 job is cancelled: {ORDINARY} seed 11." in terminal.out
    assert "Go on with: orch resume typed" in terminal.out
    assert bench.counts("typed") == {"done": 2, "cancelled": 1}
    assert bench.sweep("typed", 11).counts == {"done": 3}


def test_a_driven_sweep_cannot_be_put_back_or_begun_again(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("held", 4, {ORDINARY: [R.DIVERGED]})
    with Locks(bench.settings.lock_dir).sweep("held", 0.0):
        for words in (["requeue", "held", "--failed"], ["resume", "held"]):
            assert terminal.type(*words) == 6
            assert f"already driven by process {os.getpid()} on {here()}, since " in terminal.err
            assert "stop it in order with `orch pause held`" in terminal.err


def test_a_job_that_two_sweeps_have_under_one_title_must_be_named_by_its_key(bench: Bench, terminal: Terminal) -> None:
    for name, epochs in (("twin-a", 2), ("twin-b", 3)):
        request = bench.request(name, 5, train__epochs=epochs)
        sweeps.run_sweep(bench.settings, request, Listener(), workers=1, open_pool=lambda *_: ScriptedPool())
    for command in ("why", "cancel", "logs", "show"):
        assert terminal.type(command, f"{ORDINARY} seed 5") == 2
        assert "fits 2 jobs" in terminal.err
        assert "(twin-a)" in terminal.err
        assert "(twin-b)" in terminal.err
        assert "Give the key" in terminal.err


def test_names_that_there_are_not_are_refused_with_those_there_are(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("known", 6)
    for words, code in (
        (["resume", "knwon"], 4),
        (["requeue", "knwon", "--failed"], 4),
        (["pause", "knwon"], 4),
        (["why", "knwon"], 2),
        (["cancel", "knwon"], 2),
    ):
        assert terminal.type(*words) == code
        assert "known" in terminal.err
    assert terminal.type("logs", f"{ORDINARY} sed 6") == 2
    assert f"Did you mean '{ORDINARY} seed 6'?" in terminal.err
    assert terminal.type("requeue", "known") == 2
    assert "`--failed`, `--cancelled`" in terminal.err
    assert terminal.type("pause", "it's") == 4
    assert 'No sweep is called "it\'s"' in terminal.err


def test_a_job_that_is_planned_and_has_not_begun_says_so(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("blocked", 10, {"pre-training alexnet on 37 categories": [R.BAD_DATA]})
    key = bench.key("blocked", ORDINARY)
    for command in ("logs", "show"):
        assert terminal.type(command, key) == 2
        assert f"{ORDINARY} seed 10 ({key}) has not begun yet. `orch status blocked`" in terminal.err
    assert terminal.type("why", key) == 0
    assert "resolve that one first" in terminal.out


def test_a_log_is_printed_as_it_was_written(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("logged", 7)
    key = bench.key("logged", ORDINARY)
    assert terminal.type("logs", key) == 2
    assert f"{ORDINARY} seed 7 ({key}) has no log" in terminal.err
    bench.log(key, 1, "one [bold]\ntwo\n")
    assert terminal.type("logs", key) == 0
    assert terminal.out == "one [bold]\ntwo\n"
    assert terminal.answer("logs", key)["lines"] == ["one [bold]", "two"]
    assert terminal.type("logs", key, "--follow") == 0  # it has ended, so there is no more to come
    assert terminal.out == "one [bold]\ntwo\n"
    assert terminal.type("logs", key, "--attempt", "9") == 2
    assert "Attempts with a log: 1." in terminal.err
    assert terminal.type("logs", key, "--follow", "--json") == 2


def test_fsck_ends_with_4_until_all_is_mended(terminal: Terminal, new_home: Callable[[], Settings]) -> None:
    home = Bench(new_home())
    home.sweep("torn", 8, {ORDINARY: [R.BAD_DATA]})
    key = home.key("torn", ORDINARY)
    home.move(key, S.REQUEUED, S.QUEUED, S.RUNNING)
    done = home.key("torn", INTERPRETABLE)
    store.open_client(home.settings).log_text(find_job(home.settings, done).run_id, "{}", SPEC_FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCH_HOME", str(home.settings.root))
        assert terminal.type("fsck") == 4, terminal.out
        assert "attempt 2 runs without a driver" in terminal.out
        assert "3 problems found. `orch fsck --repair` repairs them." in terminal.err
        assert terminal.type("fsck", "--repair") == 0  # results that no scripted worker wrote are missing, so run again
        assert terminal.out.count(" requeued\n") == 3
        assert "To run the requeued jobs: orch resume torn" in terminal.out
        assert terminal.answer("fsck") == {"clean": True, "findings": []}
        assert home.counts("torn") == {"interrupted": 3}


def test_gc_only_deletes_when_told_to(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("kept", 9)
    kept, waste = (bench.settings.checkpoint_dir / key for key in (bench.key("kept", ORDINARY), "0123456789ab"))
    for folder in (kept, waste):
        folder.mkdir(parents=True)
        (folder / "x").write_bytes(bytes(2000))
    assert terminal.type("gc", "--dry-run") == 0
    assert "checkpoints of no known job" in terminal.out
    assert waste.exists()
    assert str(waste) in [one["path"] for one in terminal.answer("gc")["found"]]
    assert (waste.exists(), kept.exists()) == (False, True)


def test_where_there_is_no_store_nothing_is_checked_deleted_or_made(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "none"))
    for words in (["fsck"], ["gc"], ["why", "x"], ["cancel", "x"], ["pause", "x"], ["resume", "x"]):
        assert terminal.type(*words) == 4, words
        assert "There is no" in terminal.err
    assert not (tmp_path / "none").exists()


# -- orch plan against the store --------------------------------------------------------------------------------------


def status_of(bench: Bench, request: SweepRequest, title: str) -> tuple[PlanStatus, str]:
    (job,) = [job for job in sweeps.plan_sweep(bench.settings, request).jobs if title in job.spec.title]
    return job.status, job.why


@pytest.fixture(scope="module")
def planned(bench: Bench) -> tuple[str, str]:
    """A sweep with a failed job; the keys of its two category jobs."""
    bench.sweep("planned", 20, {ORDINARY: [R.DIVERGED]})
    return bench.key("planned", ORDINARY), bench.key("planned", INTERPRETABLE)


def test_a_plan_knows_what_is_new_done_failed_and_changed(bench: Bench, planned: tuple[str, str]) -> None:
    again = bench.request("again", 20)
    assert status_of(bench, again, ORDINARY) == (PlanStatus.FAILED, "Scripted: ended by script: diverged")
    done = "in sweep planned, accuracy 0.900 (chance 0.500)"
    assert status_of(bench, again, INTERPRETABLE) == (PlanStatus.DONE, done)
    changed = bench.request("again", 20, train__epochs=7)
    assert status_of(bench, changed, INTERPRETABLE) == (PlanStatus.CHANGED, "train.epochs 2 -> 7")
    assert status_of(bench, bench.request("again", 21), ORDINARY) == (PlanStatus.NEW, "")


def test_why_and_status_say_why_jobs_have_no_worker(bench: Bench, planned: tuple[str, str], terminal: Terminal) -> None:
    ledger, now, reason = opening.open_ledger(bench.settings), time.time(), "2 jobs wait: the cluster is full."
    ledger.set_lease("planned", Lease(host="another machine", pid=1, since=now, sign_at=now))
    ledger.set_waiting("planned", Waiting(reason=reason, since=now))
    for command in ("why", "status"):
        assert terminal.type(command, "planned") == 0
        assert reason in terminal.out
        assert terminal.answer(command, "planned")["waiting"]["reason"] == reason
    ledger.set_lease("planned", None)  # of a driver that died: nobody waits
    assert terminal.answer("why", "planned")["waiting"] is None
    ledger.set_waiting("planned", None)


def test_a_plan_knows_what_runs_what_was_lost_and_what_was_cancelled(bench: Bench, planned: tuple[str, str]) -> None:
    key, again = planned[0], bench.request("again", 20)
    ledger = opening.open_ledger(bench.settings)
    bench.move(key, S.REQUEUED, S.QUEUED, S.RUNNING, sweep="planned")
    now = time.time()
    ledger.set_lease("planned", Lease(host="another machine", pid=1, since=now, sign_at=now))
    assert status_of(bench, again, ORDINARY) == (PlanStatus.RUNNING, "in sweep planned")
    ledger.set_lease("planned", None)
    assert status_of(bench, again, ORDINARY) == (PlanStatus.LOST, "its driver died in attempt 2")
    bench.move(key, S.CANCELLED)
    assert status_of(bench, again, ORDINARY) == (PlanStatus.CANCELLED, "by the user")
    bench.move(key, S.REQUEUED)
    assert status_of(bench, again, ORDINARY)[0] is PlanStatus.INTERRUPTED


def test_a_changed_spec_under_a_name_that_is_taken_is_refused_field_by_field(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("taken", 22)
    words = ["--grid", "smoke", "--name", "taken", "--category", "cat", "--backbone", "alexnet", "--set", "seed=22",
             "--set", "weights.seed=22", "--set", "train.epochs=5", "--set", "train.momentum=0.5"]  # fmt: skip
    for command in ("plan", "sweep"):
        assert terminal.type(command, *words) == 2
        assert "  train.epochs 2 -> 5 (2 jobs)\n" in terminal.err
        assert "  train.momentum 0.9 -> 0.5 (2 jobs)\n" in terminal.err
        assert "another name (`--name`), or continue the old one: `orch resume taken`" in terminal.err


@pytest.mark.parametrize(("script", "code"), [({}, 0), ({ORDINARY: [R.DIVERGED]}, 1)])
def test_the_exit_code_tells_how_a_sweep_ended_also_when_nobody_reads(
    bench: Bench, script: dict[str, list[StopReason]], code: int
) -> None:
    bench.sweep(f"unread-{code}", 20 + code, script)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "orchestrator.cli.main", "resume", f"unread-{code}"]
    environment = {**os.environ, "ORCH_HOME": str(bench.settings.root)}
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment, cwd=ROOT, timeout=100)
    os.close(write)
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr


def test_resuming_a_finished_sweep_runs_nothing(bench: Bench, terminal: Terminal) -> None:
    bench.sweep("over", 23)
    assert terminal.type("resume", "over") == 0
    assert "nothing to run, 3 of 3 are done" in terminal.out + terminal.err
