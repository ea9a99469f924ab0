"""Decides whether an attempt still has its job, and ends what earlier attempts left running on this machine.

An attempt can be replaced while its process still exists: stopped with its laptop, or cut off from a driver that was
taken for dead. It must not write over what its successor writes, whenever it wakes.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from schemas.base import Stored
from schemas.errors import Superseded

STATE_TAG, ATTEMPT_TAG = "orch.state", "orch.attempt"
"""Of a job's run, written by drivers alone."""
RUNNING = "running"
LOOK_SECONDS = 0.5
DEATH_SECONDS = 10.0
"""How long a killed process may take to be gone: one that waits for its disk takes a while."""


class Holder(Stored):
    """Which process works on an attempt."""

    machine: str
    pid: int
    born: float
    """Unix seconds; with the number it names a process for good."""

    @classmethod
    def of_this_process(cls) -> Holder:
        return cls(machine=machine_name(), pid=os.getpid(), born=psutil.Process().create_time())


def machine_name() -> str:
    """Process numbers mean something within it: the host, and the container where it is one."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return f"{socket.gethostname()}/{space}"


def end_holder(path: Path) -> int | None:
    """Kill the process that a file names as an attempt's holder, and wait until it is gone; a stopped one dies too.

    Returns:
        Its number; None where there was nothing to kill: no such file, another machine, gone, or this very process.
    """
    try:
        holder = Holder.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    if holder.machine != machine_name() or holder.pid == os.getpid():
        return None
    with suppress(psutil.Error):
        process = psutil.Process(holder.pid)
        if process.create_time() == holder.born and process.status() != psutil.STATUS_ZOMBIE:
            process.send_signal(signal.SIGKILL)
            _wait_for_end(process)
            return holder.pid
    return None


def _wait_for_end(process: psutil.Process) -> None:
    """A zombie is at an end too: it writes nothing, and who should collect it may be gone."""
    until = time.monotonic() + DEATH_SECONDS
    with suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
            time.sleep(LOOK_SECONDS / 50)


def check_tags(tags: dict[str, str], attempt: int, run_id: str) -> None:
    """
    Raises:
        Superseded: a run's tags say that another attempt has the job, or that nobody should be running it.
    """
    state, current = tags.get(STATE_TAG, RUNNING), tags.get(ATTEMPT_TAG, str(attempt))
    if state != RUNNING or current != str(attempt):
        raise superseded(attempt, f"run {run_id} is at attempt {current}, {state}")


def superseded(attempt: int, why: str) -> Superseded:
    return Superseded(
        f"Attempt {attempt} has lost its job ({why}), so it ends without writing anything more. "
        "Nothing is to be done: `orch logs` shows what the attempt that replaced it does."
    )


def die_with_parent(end: Callable[[], object] | None = None, parent: int | None = None) -> threading.Thread:
    """Watch for the process that started this one, and end this one at once when it is gone.

    Ray's own workers notice that too, but may take many seconds, in which a job would go on.

    Args:
        end: what to do then; leaves the process without cleaning up unless told otherwise.
        parent: whose end to wait for; that of the process that is the parent now.
    """
    parent = os.getppid() if parent is None else parent

    def watch() -> None:
        gone = threading.Event()
        while os.getppid() == parent:
            gone.wait(LOOK_SECONDS)
        (end or _leave)()

    thread = threading.Thread(target=watch, name="die-with-parent", daemon=True)
    thread.start()
    return thread


def _leave() -> NoReturn:
    os._exit(1)
