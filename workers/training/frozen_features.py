"""Keeps features of frozen layers once per machine, under the digest of all that determines their bits.

A file holds the features of one split, float by float, and after them their SHA-256. It is whole or absent: it is
written under another name and renamed. Who uses it has it mapped and holds a shared lock.

Shape legend: N rows of features (images, and then their mirror images).
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from schemas.order import ReportPhase
from workers.file_locks import alone, lock_file, lock_of

_LOGGER = logging.getLogger("orch.job")

FOLDER, ENDING, PARTIAL = "features", ".features", ".partial"
"""Folder of a cache, end of the name of a file in it, and end of that of a file that is being written."""

Features = NDArray[np.float32]
_DIGEST_BYTES = hashlib.sha256().digest_size
_CHUNK = 2**24


@dataclass(frozen=True)
class FeatureStore:
    """The features that a machine keeps."""

    cache_dir: Path
    limit_bytes: int
    """Most bytes of all files, those in use included."""

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.cache_dir / FOLDER

    def get(
        self, name: str, shape: tuple[int, ...], batches: Iterable[Features], report: ReportPhase
    ) -> Features | None:
        """Return the features of a name, computed first if no job of this machine has done so.

        Args:
            name: determines every bit of the features; see `inputs.features_name`.
            shape: (N, ...).
            batches: the features of consecutive rows. They are read where the file is absent or damaged, by one process
                at a time.
            report: receives the phase while another process computes them; an error that it raises ends the wait.

        Returns:
            (N, ...), mapped; changes of it stay in this process. None if they cannot be kept here: they are larger
            than the limit, the rest is in use, or the disk is full.
        """
        path, size = self.folder / f"{name}{ENDING}", 4 * math.prod(shape)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(path, "computes features of the frozen layers", report):
                found = _open(path, shape)
                if found is None and self._reserve(path, size + _DIGEST_BYTES):
                    _write(path, batches)
                    found = _open(path, shape)
                return found
        except OSError as error:
            _LOGGER.warning("features of the frozen layers are not kept in %s: %s", self.folder, error)
            return None

    def _reserve(self, path: Path, size: int) -> bool:
        """Remove files, the longest unused first, until one more fits; then take its place on the disk."""
        from filelock import FileLock

        if size > self.limit_bytes:  # no room could be made for it
            _LOGGER.info("features of the frozen layers are not kept: they exceed ORCH_FEATURES_GB")
            return False
        with FileLock(self.folder / ".room.lock"):
            path.unlink(missing_ok=True)  # damaged
            _partial(path).unlink(missing_ok=True)  # of a killed process
            for left in abandoned(self.cache_dir):
                left.unlink(missing_ok=True)
            sizes = [found.stat().st_size for found in self.folder.glob(f".*{PARTIAL}")]
            kept = sorted(kept_features(self.cache_dir), key=lambda one: one.used_at)
            total = size + sum(sizes) + sum(one.size for one in kept)
            for one in kept:
                if total > self.limit_bytes and one.remove():
                    total -= one.size
            if total > self.limit_bytes:
                _LOGGER.info("features of the frozen layers are not kept: they exceed what is left of ORCH_FEATURES_GB")
                return False
            with open(_partial(path), "wb") as file:
                _allocate(file, size)
        return True


@dataclass(frozen=True)
class KeptFeatures:
    """A file of features."""

    path: Path
    size: int
    """Bytes."""
    used_at: float
    """Time of the last use, Unix seconds."""

    def remove(self) -> bool:
        """Delete the file, unless a process has it mapped. Returns whether it is gone."""
        try:
            with open(self.path, "rb") as file:
                lock_file(file, shared=False)
                self.path.unlink()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def kept_features(cache_dir: Path) -> Iterator[KeptFeatures]:
    """Yield the files of a cache in no order."""
    for path in (cache_dir / FOLDER).glob(f"*{ENDING}"):
        with suppress(OSError):
            found = path.stat()
            yield KeptFeatures(path, found.st_size, found.st_mtime)


def abandoned(cache_dir: Path) -> Iterator[Path]:
    """Yield the half-written files of processes that were killed."""
    from filelock import FileLock, Timeout

    for partial in (cache_dir / FOLDER).glob(f".*{PARTIAL}"):
        with suppress(Timeout), FileLock(lock_of(partial.with_name(partial.name[1 : -len(PARTIAL)])), timeout=0):
            yield partial


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}{PARTIAL}")


def _allocate(file: BinaryIO, size: int) -> None:
    """Take the space of a file, so that a full disk is found before anything is computed."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def _write(path: Path, batches: Iterable[Features]) -> None:
    partial = _partial(path)
    try:
        digest = hashlib.sha256()
        with open(partial, "r+b") as file:
            for features_N in batches:
                content = np.ascontiguousarray(features_N, dtype=np.float32).data
                digest.update(content)
                file.write(content)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _open(path: Path, shape: tuple[int, ...]) -> Features | None:
    """Map a file; None if it is absent or is not what was written."""
    size = 4 * math.prod(shape)
    try:
        with open(path, "rb") as file:
            lock_file(file, shared=True)  # kept as long as the mapping, which keeps the file open
            if os.fstat(file.fileno()).st_size != size + _DIGEST_BYTES or not _is_whole(file, size):
                _LOGGER.warning("%s is damaged: the features of the frozen layers are computed again", path)
                return None
            with suppress(OSError):  # a cache that may only be read
                os.utime(path)  # the time of the last use
            return np.memmap(file, np.float32, "c", 0, shape)
    except FileNotFoundError:
        return None


def _is_whole(file: BinaryIO, size: int) -> bool:
    digest, left = hashlib.sha256(), size
    while left and (content := file.read(min(_CHUNK, left))):
        digest.update(content)
        left -= len(content)
    return file.read(_DIGEST_BYTES) == digest.digest()
