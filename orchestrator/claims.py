"""Who may drive a sweep or run a job on this machine: file locks that die with their holder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.records import Lease, here
from schemas.errors import StoreError, SweepBusy


@dataclass
class Claims:
    folder: Path
    _jobs: dict[str, FileLock] = field(default_factory=dict)

    @contextmanager
    def sweep(self, name: str, now: float) -> Iterator[Lease]:
        """Hold a sweep for this process.

        Raises:
            SweepBusy: another process of this machine drives it; the message says which and since when.
        """
        holder = self.folder / f"{name}.holder.json"
        lock = FileLock(self.folder / f"{name}.lock")
        lease = Lease(host=here(), pid=os.getpid(), since=now, sign_at=now)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            holder.write_text(lease.model_dump_json(), encoding="utf-8")
        except Timeout:
            raise busy(name, _read_holder(holder)) from None
        except OSError as error:
            lock.release()
            raise StoreError(
                f"Sweep {name!r} cannot be claimed in {self.folder} ({error.strerror or error}). "
                "Make room or mend the permissions there."
            ) from error
        try:
            yield lease
        finally:
            holder.unlink(missing_ok=True)
            self.release_all()
            lock.release()

    def take_job(self, key: str) -> bool:
        """True when no other driver of this machine runs the job; it is ours then until released."""
        folder = self.folder / "jobs"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._jobs[key] = lock
        return True

    def release_job(self, key: str) -> None:
        if (lock := self._jobs.pop(key, None)) is not None:
            lock.release()

    def release_all(self) -> None:
        for key in list(self._jobs):
            self.release_job(key)


def taken_over(name: str, lease: Lease) -> SweepBusy:
    return SweepBusy(
        f"Sweep {name!r} was taken over by process {lease.pid} on {lease.host} while this one did not sign its claim. "
        f"Jobs that ran here were ended, and nothing was written over: watch it with `orch status {name} --watch`."
    )


def busy(name: str, lease: Lease | None) -> SweepBusy:
    if lease is None:
        return SweepBusy(f"Sweep {name!r} is being started by another process. Look again with `orch status {name}`.")
    since = datetime.fromtimestamp(lease.since).strftime("%Y-%m-%d %H:%M:%S")
    return SweepBusy(
        f"Sweep {name!r} is already driven by process {lease.pid} on {lease.host}, since {since}. "
        f"Watch it with `orch status {name} --watch`; `orch pause {name}` lets it end in order."
    )


def _read_holder(path: Path) -> Lease | None:
    try:
        return Lease.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
