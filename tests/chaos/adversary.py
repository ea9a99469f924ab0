"""Injects the faults of a round at their moments, and restarts the command after each failure until it succeeds."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import psutil

from tests.chaos.blows import Blow, Kind, Moment, Round
from tests.chaos.evidence import Run, processes_of
from tests.chaos.stage import LONGEST_SECONDS, POLL_SECONDS, Stage, Stuck, wait_for

WORKER = "ray::JobWorker"
MOST_COMMANDS = 25
OWN_ENDS = frozenset({0, 1, 4, 5})
"""Exit codes that a command may return under faults: done, not all done, store unreachable, no Ray."""
PAUSE_SECONDS = 1.0
"""Pause before a command that ended on its own is restarted."""


class Adversary:
    """Drives a sweep through the faults of one round."""

    def __init__(self, stage: Stage, plan: Round) -> None:
        self.stage, self.plan = stage, plan
        self.struck: list[str] = []
        self.seen: dict[str, Run] = {}
        """Each job as it was when it was first seen finished."""
        self.began = time.monotonic()

    def play(self) -> None:
        """Run the sweep to its end, injecting the faults.

        Raises:
            Stuck: a command hangs, returns an unexpected exit code, or restarting it does not help.
        """
        self.stage.drive()
        for blow in self.plan.blows:
            if not self._reach(blow.when):
                break
            self._strike(blow)
        while self._goes_on():
            time.sleep(POLL_SECONDS)

    # -- moments ------------------------------------------------------------------------------------------------

    def _reach(self, moment: Moment) -> bool:
        """Wait for a moment. Returns False if the sweep ended before it."""
        while not self._has_come(moment):
            if not self._goes_on():
                return False
            time.sleep(POLL_SECONDS)
        time.sleep(moment.delay)
        return self._goes_on()

    def _has_come(self, moment: Moment) -> bool:
        if moment.sign == "seconds":
            return time.monotonic() - self.began >= moment.count
        if moment.sign == "epochs":
            return self.stage.store.epochs() >= moment.count
        return len(self.stage.store.finished()) >= moment.count

    def _goes_on(self) -> bool:
        """Return False if the command has succeeded. A command that ended otherwise is restarted."""
        self._remember()
        code = self.stage.ended()
        if code is None:
            if time.monotonic() - self._typed_at > LONGEST_SECONDS:
                raise Stuck(f"`orch` is still running after {LONGEST_SECONDS:.0f} s")
            return True
        if code == 0:
            return False
        if code > 0 and code not in OWN_ENDS:
            raise Stuck(f"`orch` returned exit code {code}")
        self._type_again(PAUSE_SECONDS)
        return True

    def _type_again(self, pause: float = 0.0) -> None:
        if len(self.stage.drivers) >= MOST_COMMANDS:
            raise Stuck(f"not finished after {MOST_COMMANDS} commands; exit codes {self.stage.codes}")
        time.sleep(pause)
        self._typed_at = time.monotonic()
        self.stage.drive(self.plan.resumes)

    _typed_at = float("inf")

    def _remember(self) -> None:
        for key, run in self.stage.store.finished().items():
            self.seen.setdefault(key, run)

    # -- blows --------------------------------------------------------------------------------------------------

    def _strike(self, blow: Blow) -> None:
        strike: dict[Kind, Callable[[Blow], str]] = {
            Kind.KILL_DRIVER: self._kill_driver,
            Kind.KILL_WORKER: self._kill_worker,
            Kind.KILL_RAYLET: self._kill_raylet,
            Kind.FREEZE_WORKER: self._freeze_worker,
            Kind.WAKE_REPLACED: self._wake_replaced,
            Kind.SPOIL_CHECKPOINT: self._spoil_checkpoint,
            Kind.CUT_STORE: self._cut_store,
            Kind.CUT_OBJECTS: self._cut_objects,
            Kind.FILL_DISK: self._fill_disk,
        }
        self._remember()
        note = strike[blow.kind](blow)
        self.struck.append(f"{blow.kind}{f' ({note})' if note else ''}")

    def _kill_driver(self, blow: Blow) -> str:
        self.stage.kill_driver()
        self._type_again()
        return ""

    def _kill_worker(self, blow: Blow) -> str:
        worker = self._worker(blow)
        if worker is not None:
            worker.kill()
        return "" if worker else "no process left"

    def _kill_raylet(self, blow: Blow) -> str:
        self._wait_while_driven(lambda: bool(self.stage.children("raylet")))
        raylets = self.stage.children("raylet")
        for raylet in raylets:
            raylet.kill()
        return "" if raylets else "no process left"

    def _freeze_worker(self, blow: Blow) -> str:
        worker = self._worker(blow)
        if worker is None:
            return "no process left"
        worker.suspend()
        self._while_it_lasts(blow.lasts)
        return "" if _wake(worker) else "the worker had ended"

    def _wake_replaced(self, blow: Blow) -> str:
        worker = self._worker(blow)
        if worker is None:
            return "no process left"
        worker.suspend()
        self.stage.kill_driver()
        done = len(self.stage.store.finished())
        self._type_again()
        self._wait_while_driven(lambda: len(self.stage.store.finished()) > done)
        return "" if _wake(worker) else "the worker had ended with its Ray"

    def _spoil_checkpoint(self, blow: Blow) -> str:
        """Damage the newest checkpoint of an unfinished job."""
        self.stage.kill_driver()
        wait_for(lambda: not processes_of(self.stage.home), 60.0, "the Ray of a killed driver to end")
        finished = self.stage.store.finished()
        newest = [path for folder in sorted(self.stage.home.glob("checkpoints/*/")) if (path := _newest(folder))]
        victims = [path for path in newest if _job_of(path) not in finished]
        if victims:
            _spoil(victims[int(blow.pick * len(victims))], blow)
        self._type_again()
        return blow.spoiling if victims else "none yet"

    def _cut_store(self, blow: Blow) -> str:
        server = self.stage.server
        if server is not None:
            server.kill()
            self._while_it_lasts(blow.lasts)
            server.start()
            return f"server, {blow.lasts:.0f} s"
        if not self.stage.store.database.exists():
            return "not created yet"
        with closing(sqlite3.connect(self.stage.store.database, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._while_it_lasts(blow.lasts)
            connection.execute("ROLLBACK")
        return f"file, {blow.lasts:.0f} s"

    def _cut_objects(self, blow: Blow) -> str:
        objects, hangs = self.stage.objects, blow.pick < 0.5
        assert objects is not None
        objects.stop(hangs=hangs)
        self._while_it_lasts(blow.lasts)
        objects.start()
        return f"{'hangs' if hangs else 'refuses'}, {blow.lasts:.0f} s"

    def _fill_disk(self, blow: Blow) -> str:
        filler = self.stage.home / "filler"
        with suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        with suppress(OSError), open(filler, "ab", buffering=0) as file:
            while True:
                file.write(b"0" * 512)
        self._while_it_lasts(blow.lasts)
        filler.unlink()
        return f"{blow.lasts:.0f} s"

    def _worker(self, blow: Blow) -> psutil.Process | None:
        """A worker process. Waits while Ray starts; None if the sweep ends first."""
        self._wait_while_driven(lambda: bool(self.stage.children(WORKER)))
        workers = self.stage.children(WORKER)
        return workers[int(blow.pick * len(workers))] if workers else None

    def _wait_while_driven(self, holds: Callable[[], bool]) -> None:
        while not holds() and self._goes_on():
            time.sleep(POLL_SECONDS)

    def _while_it_lasts(self, seconds: float) -> None:
        """Wait while a fault lasts. Commands that end meanwhile are restarted under it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._goes_on():
            time.sleep(POLL_SECONDS)


def _wake(process: psutil.Process) -> bool:
    try:
        process.resume()
    except psutil.NoSuchProcess:
        return False
    return True


def _newest(folder: Path) -> Path | None:
    """The newest checkpoint of a job's latest attempt."""
    pointers = sorted(folder.glob("attempt-*/newest.json"), key=lambda path: int(path.parent.name.split("-")[1]))
    rows = json.loads(pointers[-1].read_text()) if pointers else []
    return pointers[-1].parent / Path(rows[0]["path"]).name if rows else None


def _job_of(checkpoint: Path) -> str:
    return checkpoint.parent.parent.name


def _spoil(path: Path, blow: Blow) -> None:
    content = bytearray(path.read_bytes())
    at = int(blow.pick * len(content))
    if blow.spoiling == "bit flipped":
        content[at] ^= 1 << int(blow.pick * 8)
    elif blow.spoiling == "torn":
        content[at:] = bytes(len(content) - at)  # zeros, as after a power cut before the pages were written
    else:
        del content[at:]
    path.write_bytes(content)
