"""File locks of one machine: one driver per sweep, one worker per job. The system drops them with their process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.ledger.claim import busy
from orchestrator.ledger.lease import Lease, here
from schemas.errors import StoreError

GLIMPSE_SECONDS = 0.5
"""Lock timeout: how long a liveness check may hold a sweep's lock."""


@dataclass
class Locks:
    """The locks that this process holds. Not thread-safe: one object belongs to one thread."""

    folder: Path
    """Folder of the lock files."""
    _jobs: dict[str, FileLock] = field(default_factory=dict)

    @contextmanager
    def sweep(self, name: str, now: float) -> Iterator[Lease]:
        """Hold a sweep for this process; on exit, release it with all jobs.

        Args:
            name: Name of the sweep.
            now: Unix seconds, the start of the lease.

        Returns:
            A lease of this process, which the caller must still store in the ledger.

        Raises:
            SweepBusy: Another process of this machine drives the sweep. The message names it.
            StoreError: The lock file cannot be written.
        """
        holder = self.folder / f"{name}.holder.json"
        lock = FileLock(self.folder / f"{name}.lock")
        lease = Lease(host=here(), pid=os.getpid(), since=now, sign_at=now)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=GLIMPSE_SECONDS)
            holder.write_text(lease.model_dump_json(), encoding="utf-8")
        except Timeout:
            raise busy(name, _read_holder(holder)) from None
        except OSError as error:
            lock.release()
            raise _cannot_lock(f"Sweep {name!r}", self.folder, error) from error
        try:
            yield lease
        finally:
            holder.unlink(missing_ok=True)
            self.release_all()
            lock.release()

    def take_job(self, key: str) -> bool:
        """Try to lock a job for this process.

        Returns:
            False if another driver of this machine holds it.

        Raises:
            StoreError: The lock file cannot be written.
        """
        folder = self.folder / "jobs"
        lock = FileLock(folder / f"{key}.lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except OSError as error:
            raise _cannot_lock(f"Job {key}", folder, error) from error
        self._jobs[key] = lock
        return True

    def release_job(self, key: str) -> None:
        """Release a job. Does nothing if this object does not hold it."""
        if (lock := self._jobs.pop(key, None)) is not None:
            lock.release()

    def release_all(self) -> None:
        """Release every job."""
        for key in list(self._jobs):
            self.release_job(key)


def _cannot_lock(what: str, folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{what} cannot be claimed in {folder} ({error.strerror or error}). Make room or repair the permissions there."
    )


def _read_holder(path: Path) -> Lease | None:
    try:
        return Lease.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
