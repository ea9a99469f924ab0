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

from orchestrator.ledger.base import Ledger, LedgerReader
from orchestrator.ledger.lease import Lease, here
from schemas.errors import StoreError, SweepBusy

GLIMPSE_SECONDS = 0.5
"""For which a sweep may be held by somebody who only looks whether it is driven."""


@dataclass
class Locks:
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
            lock.acquire(timeout=GLIMPSE_SECONDS)
            holder.write_text(lease.model_dump_json(), encoding="utf-8")
        except Timeout:
            raise busy(name, _read_holder(holder)) from None
        except OSError as error:
            lock.release()
            raise StoreError(
                f"Sweep {name!r} cannot be claimed in {self.folder} ({error.strerror or error}). "
                "Make room or repair the permissions there."
            ) from error
        try:
            yield lease
        finally:
            holder.unlink(missing_ok=True)
            self.release_all()
            lock.release()

    def take_job(self, key: str) -> bool:
        """True when no other driver of this machine runs the job; it is ours then until released.

        Raises:
            StoreError: there is no room for the lock, or no permission.
        """
        folder = self.folder / "jobs"
        lock = FileLock(folder / f"{key}.lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except OSError as error:
            raise StoreError(
                f"Job {key} cannot be claimed in {folder} ({error.strerror or error}). "
                "Make room or repair the permissions there."
            ) from error
        self._jobs[key] = lock
        return True

    def release_job(self, key: str) -> None:
        if (lock := self._jobs.pop(key, None)) is not None:
            lock.release()

    def release_all(self) -> None:
        for key in list(self._jobs):
            self.release_job(key)


def check_claim(ledger: LedgerReader, name: str, lease: Lease) -> None:
    """
    Raises:
        SweepBusy: another driver took the sweep over while this one did not sign, as on a laptop that slept.
    """
    record = ledger.sweep(name)
    other = record.lease if record is not None else None
    if other is not None and not other.is_of(lease):
        raise SweepBusy(
            f"Sweep {name!r} was taken over by process {other.pid} on {other.host} while this one did not sign its "
            "claim. Jobs that ran here were ended, and nothing was written over: watch it with "
            f"`orch status {name} --watch`."
        )


def renew(ledger: Ledger, name: str, lease: Lease, now: float) -> Lease:
    """Sign a claim that is still one's own.

    Raises:
        SweepBusy: it is not.
    """
    check_claim(ledger, name, lease)
    signed = lease.model_copy(update={"sign_at": now})
    ledger.stamp(name, signed)
    return signed


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
