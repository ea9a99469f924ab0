"""Runs a parser of foreign files in a child process with limited memory and time, so that no file can take orch down.

The C libraries behind MATLAB and HDF5 files trust lengths in a file, and damaged files can crash them; a crafted
pickle can claim any memory and time. The child is started once per process, takes one call after another, and is
replaced when a call ends it.
"""

from __future__ import annotations

import atexit
import os
import pickle
import resource
import subprocess
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import TypeVar

from schemas.errors import OrchError, WeightsError
from workers.code_home import command_of

T = TypeVar("T")

SPARE_BYTES = 1 << 30
"""Memory for a call beside four times the file's size, bytes."""
SPARE_SECONDS = 60.0
"""Time for a call beside the time for reading the file at `BYTES_PER_SECOND`."""
BYTES_PER_SECOND = 5_000_000
MAPPED_PAGES = Path("/proc/self/statm")
"""Begins with the pages that this process has mapped. Linux alone has it, and alone keeps to a limit of them."""
_LONGEST = 2000
"""Letters of a parser's message that are kept."""
_START = "from workers.training.confined import serve; serve(int(sys.argv[1]))"


class _Child:
    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        quiet = subprocess.DEVNULL
        # Not in the working folder of the moment, which may be removed while the child lives.
        self.process = subprocess.Popen(
            command_of(_START, str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
            cwd="/",
        )
        theirs.close()

    def stop(self) -> int:
        """End the process; return its exit code, which is negative for a signal."""
        self.connection.close()  # an idle child ends by itself
        try:
            return self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


_lock = threading.Lock()
_child: _Child | None = None


def call_confined(function: Callable[[Path], T], path: Path) -> T:
    """Return `function(path)`, computed in a child process.

    Args:
        function: function of a module; what it returns is pickled.
        path: the file that it reads.

    Raises:
        WeightsError: as the function; or it crashed, took too long or needed too much memory.
        ValueError: any other exception of the function, as text.
    """
    global _child
    size = path.stat().st_size
    with _lock:
        child = _child = _child or _start()
        answer = None
        try:
            child.connection.send((function, os.path.abspath(path), 4 * size + SPARE_BYTES))
            child.connection.recv_bytes()  # its modules are loaded, and its time starts
            if child.connection.poll(SPARE_SECONDS + size / BYTES_PER_SECOND):
                answer = pickle.loads(child.connection.recv_bytes())
        except (EOFError, OSError) as error:
            _child = None
            raise WeightsError(
                f"{path} is damaged: reading it ended the reader (exit code {child.stop()}). Copy it again."
            ) from error
        except BaseException:  # interrupted: the answer would be taken for that of the next call
            _child = None
            child.stop()
            raise
        if answer is None:
            _child = None
            child.stop()
            raise WeightsError(f"{path} is damaged: reading it did not end. Copy it again.")
    failure, value = answer
    if failure is not None:
        raise failure
    result: T = value
    return result


def _start() -> _Child:
    child = _Child()
    atexit.register(child.stop)
    return child


def serve(descriptor: int) -> None:
    """Answer calls until the other end is closed. Runs in the child."""
    import h5py  # noqa: F401 - imported before memory is limited
    import scipy.io  # noqa: F401

    connection: Connection = Connection(descriptor)
    while True:
        try:
            function, path, spare_bytes = connection.recv()
        except EOFError:
            return
        connection.send_bytes(b"")
        connection.send_bytes(_answer(function, Path(path), spare_bytes))


def _answer(function: Callable[[Path], object], path: Path, spare_bytes: int) -> bytes:
    usual, is_limited = resource.getrlimit(resource.RLIMIT_AS), MAPPED_PAGES.exists()
    try:
        if is_limited:
            _limit_memory(spare_bytes)
        return pickle.dumps((None, function(path)), protocol=pickle.HIGHEST_PROTOCOL)
    except OrchError as error:
        failure: Exception = error
    except Exception as error:  # noqa: BLE001 - parsers raise whatever they stumble over
        failure = ValueError(str(error)[:_LONGEST] or type(error).__name__)
        if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
            failure = WeightsError(
                f"{path} is damaged: it claims arrays that are much larger than the file. Copy it again."
            )
    finally:
        if is_limited:
            resource.setrlimit(resource.RLIMIT_AS, usual)
    return pickle.dumps((failure, None))


def _limit_memory(spare_bytes: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    mapped = int(MAPPED_PAGES.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (min([mapped + spare_bytes, *limits]), hard))
