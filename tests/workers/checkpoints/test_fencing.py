"""A replaced attempt whose process was stopped writes nothing over its successor; tested with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from schemas.errors import Superseded
from schemas.lifecycle import StopReason
from schemas.results import CheckpointPointer, JobResult
from tests.support.desk import Desk
from tests.support.lives import start, wait_until_stopped
from tests.support.toy import toy_spec
from workers.checkpoints import fencing
from workers.checkpoints.fencing import Holder, check_tags, die_with_parent, end_holder
from workers.checkpoints.published import is_whole
from workers.checkpoints.store import CheckpointStore
from workers.job import run_job
from workers.tracking.curves import CURVES
from workers.tracking.run_log import RunLog

if TYPE_CHECKING:
    from tests.conftest import Store

ELSEWHERE = "another-machine/1"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(store: Store, new_run: Callable[[], str], tmp_path: Path, cache: Path) -> Desk:
    return Desk(store, new_run(), tmp_path, cache)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()  # type: ignore[union-attr]


def holder_of(process: subprocess.Popen[bytes], path: Path, **changes: object) -> Path:
    holder = Holder(machine=fencing.machine_name(), pid=process.pid, born=psutil.Process(process.pid).create_time())
    path.write_text(holder.model_copy(update=changes).model_dump_json())
    return path


MOMENTS = [
    ("training", 5),
    ("writing a checkpoint", 2),
    ("publishing a checkpoint", 3),
    ("checking whose run it is", 4),
    ("writing points", 3),
    ("logging", 1),
    ("writing files", 1),
    ("keeping the final checkpoint", 1),
]
"""Where an attempt is stopped: within an epoch, around a checkpoint, between checking its run and writing to it."""


def everything(desk: Desk, result: JobResult) -> dict[str, object]:
    """Return everything that the winning attempt has written."""
    client = desk.store.client
    names = [item.path for item in client.list_artifacts(desk.run_id)]
    assert result.checkpoint is not None
    assert is_whole(result.checkpoint)
    return {
        "curves": {curve: client.get_metric_history(desk.run_id, curve) for curve in CURVES.values()},
        "artifacts": names,
        "metrics": desk.file("metrics.json"),
        "final": Path(result.checkpoint.path).read_bytes(),
        "files": sorted(str(path) for path in (desk.folder / "checkpoints" / result.job_key).rglob("*")),
        "tags": client.get_run(desk.run_id).data.tags,
    }


def unlike(one: dict[str, object], other: dict[str, object]) -> list[str]:
    return [name for name in one if str(one[name]) != str(other[name])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "machine"), [*((moment, "") for moment in MOMENTS[::3]), *((moment, ELSEWHERE) for moment in MOMENTS)]
)
def test_an_attempt_that_slept_cannot_overwrite_the_one_that_replaced_it(
    desk: Desk, moment: tuple[str, int], machine: str
) -> None:
    """On the same machine the successor kills it first. On another machine it wakes and finds that it was replaced."""
    spec = toy_spec("ordinary", train__epochs=3)
    process, result_file = start(desk.order(spec, 1), moment, signal.SIGSTOP)
    wait_until_stopped(process)
    store = CheckpointStore(desk.folder / "checkpoints", spec.key)
    if machine:  # as if its pid belonged to another machine
        holder = Holder.model_validate_json(store.holder.read_text())
        store.holder.write_text(holder.model_copy(update={"machine": machine}).model_dump_json())
    result = run_job(desk.order(spec, 2), lambda _: None, lambda: False)
    assert result.stop_reason is StopReason.FINISHED, result.failure
    before = everything(desk, result)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    if machine:
        woken = JobResult.model_validate_json(result_file.read_text())
        allowed = may_slip(moment)
        assert woken.stop_reason is StopReason.SUPERSEDED or allowed, woken.failure
    else:
        assert process.exitcode == -signal.SIGKILL
        assert any(f"Process {process.pid} was still working on attempt 1" in problem for problem in result.problems)
        allowed = []
    after = everything(desk, result)
    assert set(unlike(before, after)) <= set(allowed), {name: (before[name], after[name]) for name in ("files", "tags")}
    for curve in CURVES.values():
        steps = [step for step, _ in desk.points(curve)]
        assert steps == [1, 2, 3] or "curves" in allowed


def may_slip(moment: tuple[str, int]) -> list[str]:
    """Return what an attempt on another machine can still write if it was stopped between its check and its write.

    MLflow has no conditional writes, so points of an epoch may be logged twice. Checkpoint files go to the attempt's
    own folder, and no pointer that counts lists them.
    """
    slips = {
        "checking whose run it is": ["curves"],
        "writing points": ["curves"],
        "publishing a checkpoint": ["files"],
    }
    return slips.get(moment[0], [])


def test_a_successor_ends_a_stopped_process_and_says_so(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    store = CheckpointStore(tmp_path, "0123456789ab")
    store.folder.mkdir(parents=True)
    sleeper.send_signal(signal.SIGSTOP)
    holder_of(sleeper, store.holder)
    taken = CheckpointStore(tmp_path, store.job_key, 2).take_over()
    assert sleeper.wait(30) == -signal.SIGKILL
    assert taken.problems == (f"Process {sleeper.pid} was still working on attempt 1 and was killed.",)


@pytest.mark.parametrize("changes", [{"machine": ELSEWHERE}, {"born": 1.0}, {"pid": os.getpid()}, {"pid": 2**22 + 1}])
def test_no_other_process_is_ended(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], changes: dict[str, object]
) -> None:
    """A pid may have been reused, or belong to another machine or to this process."""
    assert end_holder(holder_of(sleeper, tmp_path / "holder", **changes)) is None
    assert sleeper.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_holder_that_cannot_be_read_names_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "holder").write_text(text)
    assert end_holder(tmp_path / "holder") is None
    assert end_holder(tmp_path / "missing") is None


def test_a_later_attempt_is_never_ended_by_an_earlier_one(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    late = CheckpointStore(tmp_path, "0123456789ab", 3)
    late.take_over()
    holder_of(sleeper, late.holder)
    with pytest.raises(Superseded, match="attempt 3 has taken over"):
        CheckpointStore(tmp_path, "0123456789ab", 2).take_over()
    assert sleeper.poll() is None


def test_an_attempt_that_ended_in_order_holds_nothing(desk: Desk) -> None:
    spec = toy_spec("ordinary", train__epochs=1)
    result = run_job(desk.order(spec, 1), lambda _: None, lambda: False)
    assert isinstance(result.checkpoint, CheckpointPointer)
    assert not list((desk.folder / "checkpoints").rglob("holder*"))
    assert list((desk.folder / "checkpoints").rglob("result.json"))


@pytest.mark.parametrize(
    ("tags", "passes"),
    [
        ({"orch.state": "running", "orch.attempt": "2"}, True),
        ({}, True),
        ({"orch.state": "running", "orch.attempt": "3"}, False),
        ({"orch.state": "requeued", "orch.attempt": "2"}, False),
        ({"orch.state": "cancelled", "orch.attempt": "2"}, False),
        ({"orch.state": "succeeded", "orch.attempt": "2"}, False),
    ],
)
def test_a_run_is_written_only_while_it_is_this_attempts(tags: dict[str, str], passes: bool) -> None:
    if passes:
        check_tags(tags, 2, "r")
    else:
        with pytest.raises(Superseded, match="has lost its job"):
            check_tags(tags, 2, "r")


def test_every_way_to_write_into_a_run_looks_first(desk: Desk, tmp_path: Path) -> None:
    spec = toy_spec("ordinary", train__epochs=1)
    order = desk.order(spec, 1)
    run = RunLog(order.tracking_uri, order.run_id, 1)
    desk.order(spec, 2)  # as a driver does when it starts the next attempt
    before = desk.store.client.get_run(desk.run_id)
    (tmp_path / "file").write_text("text")
    record = _record()
    result = run_job(desk.order(spec, 3), lambda _: None, lambda: False)
    assert result.metrics is not None
    assert result.checkpoint is not None
    numbers = result.metrics
    for write in (
        lambda: run.log_spec(spec),
        lambda: run.log_epochs([record]),
        lambda: run.log_outcome((), numbers, tmp_path),
        lambda: run.log_checkpoint(result.checkpoint),
        lambda: run.log_log(tmp_path / "file"),
        lambda: run.log_end(result),
        lambda: RunLog(order.tracking_uri, order.run_id, 1),
    ):
        with pytest.raises(Superseded):
            write()
    assert before.data.metrics == {}
    assert "file" not in [item.path for item in desk.store.client.list_artifacts(desk.run_id)]


def _record() -> object:
    from tests.support.toy import run_epochs, toy_trainer

    return run_epochs(toy_trainer(toy_spec("ordinary")), 1).records[0]


def test_a_job_that_was_replaced_ends_as_superseded_and_keeps_its_log_to_itself(desk: Desk) -> None:
    spec = toy_spec("ordinary", train__epochs=3)
    order = desk.order(spec, 1)
    seen: list[int] = []

    def replaced() -> bool:
        if 1 in seen and 2 not in seen:
            seen.append(2)
            desk.order(spec, 2)
            CheckpointStore(desk.folder / "checkpoints", spec.key, 2).take_over()
        return False

    result = run_job(order, lambda progress: seen.append(progress.epoch), replaced)
    assert result.stop_reason is StopReason.SUPERSEDED
    assert "logs" not in [item.path for item in desk.store.client.list_artifacts(desk.run_id)]
    log = (desk.folder / "logs" / spec.key / "attempt-1.log").read_text()
    assert "Attempt 1 has lost its job" in log


def test_a_process_whose_parent_ends_ends_too(tmp_path: Path) -> None:
    """Like a worker whose raylet was killed."""
    child = "from workers.checkpoints.fencing import die_with_parent; import sys, os; t = die_with_parent(); print(os.getpid()); sys.stdout.flush(); t.join()"  # noqa: E501
    parent = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); p.wait()"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    worker = psutil.Process(pid)
    process.kill()
    process.wait()
    gone, _ = psutil.wait_procs([worker], timeout=30)
    process.stdout.close()
    assert gone or worker.status() == psutil.STATUS_ZOMBIE


def test_a_process_whose_parent_lives_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fencing, "LOOK_SECONDS", 0.01)
    ended = threading.Event()
    thread = die_with_parent(ended.set)
    assert not ended.wait(5 * fencing.LOOK_SECONDS)
    monkeypatch.setattr(os, "getppid", lambda: -1)
    assert ended.wait(30)
    thread.join()
