"""An object store in a folder that all machines mount."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ObjectConflict, ObjectDamaged, ObjectMissing, StoreError
from workers.files import open_atomically, sha256_of, write_atomically
from workers.objects.base import (
    ABSENT,
    Absent,
    ObjectInfo,
    OnBytes,
    check_key,
    check_source,
    damaged,
    finish_download,
    partial_of,
)

LOCK = ".lock"
"""File in the store's folder that is locked while a record is compared and written."""


@dataclass(frozen=True)
class FolderObjects:
    """Objects as files below `root`; see `ObjectStore`. Files whose names begin with a dot are no objects."""

    root: Path

    @property
    def where(self) -> str:
        """The folder's URI."""
        return self.root.as_uri()

    def put(self, key: str, source: Path, sha256: str, on_bytes: OnBytes | None = None) -> None:
        """Copy a file into the store; see `ObjectStore.put`."""
        check_source(source, sha256)
        target = self._path(key)
        with self._reaching(), open(source, "rb") as original, open_atomically(target) as copy:
            shutil.copyfileobj(original, copy)
            if on_bytes is not None:
                on_bytes(copy.tell(), copy.tell())

    def get(self, key: str, target: Path, sha256: str | None = None, on_bytes: OnBytes | None = None) -> None:
        """Copy a file out of the store; see `ObjectStore.get`."""
        path = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_of(target, "folder")
        with self._reaching():
            if not path.is_file():
                raise ObjectMissing(f"There is no object {key} in {self.where}.")
        try:
            shutil.copyfile(path, partial)
            if sha256 is not None and (found := sha256_of(partial)) != sha256:
                raise damaged(self.where, key, found, sha256)
        except (OSError, ObjectDamaged):
            partial.unlink(missing_ok=True)
            raise
        if on_bytes is not None:
            on_bytes(partial.stat().st_size, partial.stat().st_size)
        finish_download(partial, target)

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return a record and its version; see `ObjectStore.read`."""
        with self._reaching():
            try:
                content = self._path(key).read_bytes()
            except FileNotFoundError:
                return None
        return content, _version(content)

    def write(self, key: str, content: bytes, expected: str | Absent | None = None) -> str:
        """Store a record; see `ObjectStore.write`."""
        with self._reaching():
            self.root.mkdir(parents=True, exist_ok=True)
        with self._reaching(), self._locked():
            found = self.read(key)
            is_expected = (found is None) if expected is ABSENT else (found is not None and found[1] == expected)
            if expected is not None and not is_expected:
                raise ObjectConflict(f"The object {key} of {self.where} was changed by another process.")
            write_atomically(self._path(key), content)
        return _version(content)

    def size(self, key: str) -> int | None:
        """Return the size of an object; see `ObjectStore.size`."""
        with self._reaching():
            path = self._path(key)
            return path.stat().st_size if path.is_file() else None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects of a prefix; see `ObjectStore.list`."""
        with self._reaching():
            below = (self.root / prefix).parent if prefix and not prefix.endswith("/") else self.root / prefix
            found = {
                str(path.relative_to(self.root)): path.stat()
                for folder, _, names in os.walk(below)
                for path in (Path(folder) / name for name in names if not name.startswith("."))
            }
        for key in sorted(found):
            if key.startswith(prefix):
                yield ObjectInfo(key, found[key].st_size, found[key].st_mtime)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; see `ObjectStore.delete`."""
        with self._reaching():
            for key in keys:
                path = self._path(key)
                path.unlink(missing_ok=True)
                with suppress(OSError):  # the folder has other objects
                    path.parent.rmdir()

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        with FileLock(self.root / LOCK):
            yield

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"The object store {self.where} cannot be used ({error.strerror or error}). Check that the folder is "
                "mounted and that this machine may write there."
            ) from error


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
