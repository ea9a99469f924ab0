"""Decides whether an attempt still has its job, and kills processes of earlier attempts on this machine.

An attempt can be replaced while its process still exists: on a suspended laptop, or cut off from a driver that counts
as dead. When such a process wakes, it must not write over its successor's files.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from schemas.base import Stored
from schemas.errors import Superseded

STATE_TAG, ATTEMPT_TAG = "orch.state", "orch.attempt"
"""Tags of a job's run; only drivers write them."""
RUNNING = "running"
LOOK_SECONDS = 0.5
"""Interval at which a process checks that its parent exists."""
DEATH_SECONDS = 10.0
"""Seconds to wait for a killed process to end; one that waits for its disk takes a while."""


class Holder(Stored):
    """The process that works on an attempt."""

    machine: str
    pid: int
    born: float
    """Start time in Unix seconds; together with the pid it identifies a process."""

    @classmethod
    def of_this_process(cls) -> Holder:
        """Return the holder for the calling process."""
        return cls(machine=machine_name(), pid=os.getpid(), born=psutil.Process().create_time())


def machine_name() -> str:
    """Return the scope in which pids are unique: the host and its PID namespace (a container has its own)."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return f"{socket.gethostname()}/{space}"


def end_holder(path: Path) -> int | None:
    """Kill the process that a holder file names, running or stopped, and wait for its end.

    Returns:
        Its pid; None if nothing was killed: no valid file, a process of another machine, an ended one, or this one.
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
            process.kill()
            _wait_for_end(process)
            return holder.pid
    return None


def _wait_for_end(process: psutil.Process) -> None:
    """Wait for a process to end or to become a zombie, which writes nothing and may never be reaped."""
    until = time.monotonic() + DEATH_SECONDS
    with suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
            time.sleep(LOOK_SECONDS / 50)


def check_tags(tags: Mapping[str, str], attempt: int, run_id: str) -> None:
    """Check that a run's tags name this attempt as the running one.

    Args:
        tags: tags of the run.
        attempt: this attempt.
        run_id: ID of the run, for the message.

    Raises:
        Superseded: another attempt has the job, or the job should not be running.
    """
    state, current = tags.get(STATE_TAG, RUNNING), tags.get(ATTEMPT_TAG, str(attempt))
    if state != RUNNING or current != str(attempt):
        raise superseded(attempt, f"run {run_id} is at attempt {current}, {state}")


def superseded(attempt: int, why: str) -> Superseded:
    """Return the error with which a replaced attempt ends."""
    return Superseded(
        f"Attempt {attempt} has lost its job ({why}), so it ends without writing anything more. "
        "No action is needed: `orch logs` shows the attempt that replaced it."
    )


def die_with_parent(end: Callable[[], object] | None = None, parent: int | None = None) -> threading.Thread:
    """Start a thread that ends this process when its parent process ends.

    Ray's workers do the same, but may take many seconds, during which a job would continue.

    Args:
        end: called when the parent has ended. Default: exit at once, without cleanup.
        parent: pid of the parent. Default: the current parent.

    Returns:
        The thread.
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
