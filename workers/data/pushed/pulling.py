"""Decides where a job's photographs come from: this machine, or the object store, from which they are pulled once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from schemas.categories import DATASETS, category_of
from schemas.errors import DataAbsent, ObjectDamaged, ObjectMissing, StoreError
from schemas.job import RECIPE_VERSION, DataSpec
from schemas.order import ReportPhase
from workers.data.checks import data_digest
from workers.data.data_root import DataRoot
from workers.data.prepared.image_sets import FOLDER, IMAGES, INFO
from workers.data.pushed.description import (
    SHARDS,
    DescribedRoot,
    Description,
    Head,
    SetOnStore,
    Shard,
    description_key,
    head_key,
    set_record_key,
)
from workers.file_locks import lock_file
from workers.files import sha256_of, write_atomically
from workers.objects.base import ObjectStore, open_objects
from workers.objects.waiting import patiently

AT_ONCE = 4
"""Shards that are transferred at the same time."""
PULLED = "pulled.json"
"""File that marks a set as pulled: it can be pulled again, so it may be removed."""
DESCRIPTIONS = "descriptions"
"""Folder of a cache directory with the descriptions that were pulled."""
GIB = 2**30


@dataclass(frozen=True)
class SharedData:
    """The object store as a source of photographs."""

    store: ObjectStore
    patience: float
    """Seconds to wait for a store that does not answer."""
    cache_bytes: int
    """Most bytes that pulled pictures take on this machine, except those that running jobs use."""

    @classmethod
    def at(cls, uri: str | None, patience: float, cache_gb: float) -> SharedData | None:
        """Return the photographs in an object store; None without one.

        Args:
            uri: as `open_objects` takes it.
            patience: seconds to wait for a store that does not answer.
            cache_gb: most GiB that pulled pictures take on this machine.
        """
        return cls(open_objects(uri), patience, int(cache_gb * GIB)) if uri else None


def open_root(
    data: DataSpec, data_root: Path | None, cache_dir: Path | None, shared: SharedData | None, report: ReportPhase
) -> DataRoot:
    """Return where the photographs of a job are: under the data root if its data sets are there, else in the store.

    Raises:
        DataAbsent: this machine has no such photographs, and the object store has no copy.
        StoreUnreachable: the object store did not answer for too long.
    """
    try:
        root = DataRoot.open(data_root, cache_dir)
        check_present(data, root)
        return root
    except DataAbsent as absent:
        if shared is None:
            raise DataAbsent(
                f"{socket.gethostname()} lacks the data of {', '.join(data.categories)}. {_first(absent)} "
                "On a cluster, set ORCH_DATA_ROOT on each node, or set ORCH_OBJECT_STORE and run: "
                f"orch data push {_dataset(data)}"
            ) from absent
        return PulledRoot(data, cache_dir, shared, report, absent)


def _first(error: DataAbsent) -> str:
    """Return the first sentence of a message: the others advise a person at the command line."""
    return f"{str(error).partition('. ')[0].rstrip('.')}."


def check_present(data: DataSpec, root: DataRoot) -> None:
    """Check that a root has the data sets of a job, and the folder of negatives if it needs that.

    Raises:
        DataAbsent: it has not.
    """
    for dataset in dict.fromkeys(category_of(name).dataset for name in data.categories):
        if root.reader(dataset) is None:
            raise DataAbsent(f"The data root {root.place} has no {dataset}.")
    if data.negatives == "folder":
        root.records(root.negative_stock(data.categories[0]))


def _dataset(data: DataSpec) -> str:
    return category_of(data.categories[0]).dataset


class PulledRoot(DescribedRoot):
    """A description from the object store, whose pictures are pulled when a job opens them."""

    def __init__(
        self, data: DataSpec, cache_dir: Path | None, shared: SharedData, report: ReportPhase, why: DataAbsent
    ) -> None:
        self._shared, self._dataset, self._why = shared, _dataset(data), _first(why)
        self.sizes: tuple[int, ...] = ()
        """Sides of the pictures that were pushed; empty if unknown, for a description that counts no more."""
        kept = self._find_kept(data, cache_dir)
        found = kept or patiently(lambda: self._find(data, cache_dir), shared.patience, report)
        if found.recipe != RECIPE_VERSION:
            raise self._absent("has a copy by another version of orch")
        super().__init__(found, shared.store.where, cache_dir)

    def check_size(self, size: int) -> None:
        """Check that pictures of a size were pushed.

        Raises:
            DataAbsent: they were not.
        """
        if self.sizes and size not in self.sizes:
            have = ", ".join(map(str, self.sizes))
            raise self._absent(f"has pictures of {have} pixels, and the job takes {size}", f" --size {size}")

    def fetch_set(self, key: str, folder: Path, report: ReportPhase) -> bool:
        """Pull a prepared set into a folder; what an earlier process pulled of it is kept.

        Raises:
            DataAbsent: the store does not have it, or not as it was pushed.
        """
        record = patiently(lambda: self._read_record(key), self._shared.patience, report)
        assert self.cache_dir is not None
        make_room(self.cache_dir, record.bytes, self._shared.cache_bytes)
        patiently(lambda: self._pull(key, record, folder, report), self._shared.patience, report)
        return True

    def _find_kept(self, data: DataSpec, cache_dir: Path | None) -> Description | None:
        """Return the description of a planned job that another job has left on this machine, which needs no store."""
        if not data.digest or cache_dir is None:
            return None
        for path in sorted((cache_dir / DESCRIPTIONS).glob("*.json")):
            with contextlib.suppress(OSError, ValidationError):
                kept = Description.model_validate_json(path.read_bytes())
                if self._digest(data, kept) == data.digest:
                    return kept
        return None

    def _find(self, data: DataSpec, cache_dir: Path | None) -> Description:
        """Return the description that counts or, for a job that was planned by an earlier one, that one."""
        head = read_head(self._shared.store, self._dataset)
        if head is None:
            raise self._absent("has no copy of it")
        self.sizes = tuple(sorted(map(int, head.sizes)))
        newest = self._read_description(head.description)
        if not data.digest or self._digest(data, newest) == data.digest:
            return self._keep(newest, head.description, cache_dir)
        for one in self._shared.store.list(description_key("x").removesuffix("x.json")):
            older = self._read_description(Path(one.key).stem)
            if self._digest(data, older) == data.digest:
                self.sizes = ()
                return self._keep(older, Path(one.key).stem, cache_dir)
        raise self._absent(f"has other data than the sweep was planned with (digest {data.digest})")

    def _keep(self, found: Description, digest: str, cache_dir: Path | None) -> Description:
        if cache_dir is not None:
            from filelock import FileLock

            folder = cache_dir / DESCRIPTIONS
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(folder / ".lock"):
                    write_atomically(folder / f"{digest}.json", found.encoded)
            except OSError as error:
                raise StoreError(
                    f"{cache_dir} cannot be written ({error.strerror}). Make room or repair the permissions there."
                ) from error
        return found

    def _digest(self, data: DataSpec, description: Description) -> str:
        return data_digest(data, DescribedRoot(description, self._shared.store.where, None))

    def _read_description(self, digest: str) -> Description:
        content = self._shared.store.read(description_key(digest))
        if content is None or hashlib.sha256(content[0]).hexdigest()[:16] != digest:
            raise self._absent("has a damaged copy")
        try:
            return Description.model_validate_json(content[0])
        except ValidationError:
            raise self._absent("has a copy by another version of orch") from None

    def _read_record(self, key: str) -> SetOnStore:
        content = self._shared.store.read(set_record_key(key))
        if content is None:
            size = key.partition("px-")[0].rpartition("-")[2]
            raise self._absent(f"has no pictures {key}", f" --size {size}")
        try:
            return SetOnStore.model_validate_json(content[0])
        except ValidationError:
            raise self._absent("has a damaged copy") from None

    def _pull(self, key: str, record: SetOnStore, folder: Path, report: ReportPhase) -> None:
        """Download the shards that a folder lacks, several at a time, each to its place in the array."""
        total, done = sum(shard.bytes for shard in record.images), 0

        def tell() -> None:
            report(f"pulling {key}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

        tell()
        images = folder / IMAGES
        images.touch()
        missing = []
        with open(images, "r+b") as file:
            for start, shard in _places(record.images):
                file.seek(start)
                if hashlib.sha256(file.read(shard.bytes)).hexdigest() == shard.sha256:
                    done += shard.bytes
                else:
                    missing.append((start, shard))
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="orch-pull") as threads:
                waiting = iter(missing)
                running = {self._start(threads, folder, one): one for one in islice(waiting, AT_ONCE)}
                try:
                    while running:
                        for future in wait(running, timeout=1.0, return_when=FIRST_COMPLETED).done:
                            start, shard = running.pop(future)
                            path = future.result()
                            file.seek(start)
                            file.write(path.read_bytes())
                            file.flush()
                            path.unlink()
                            done += shard.bytes
                            running |= {self._start(threads, folder, one): one for one in islice(waiting, 1)}
                        tell()
                finally:
                    for future in running:
                        future.cancel()
            file.truncate(total)
            os.fsync(file.fileno())
        info = self._shard(folder, record.info)
        os.replace(info, folder / INFO)
        write_atomically(folder / PULLED, json.dumps({"bytes": record.bytes, "from": self._shared.store.where}))

    def _start(self, threads: ThreadPoolExecutor, folder: Path, one: tuple[int, Shard]) -> Future[Path]:
        return threads.submit(self._shard, folder, one[1])

    def _shard(self, folder: Path, shard: Shard) -> Path:
        """Download a shard. A damaged one is of no use to anybody: it is removed, so that it is pushed again."""
        target, key = folder / f"{shard.sha256}.shard", SHARDS + shard.sha256
        if target.is_file() and sha256_of(target) == shard.sha256:
            return target
        for is_last in (False, True):
            try:
                self._shared.store.get(key, target, shard.sha256)
                return target
            except ObjectMissing:
                raise self._absent(f"lacks the shard {shard.sha256[:12]}") from None
            except ObjectDamaged:
                if is_last:
                    self._shared.store.delete([key])
                    raise self._absent(f"had a damaged shard, {shard.sha256[:12]}, which was removed") from None
        raise AssertionError

    def _absent(self, why: str, options: str = "") -> DataAbsent:
        return DataAbsent(
            f"{socket.gethostname()} lacks {self._dataset}. {self._why} {self._shared.store.where} "
            f"{why}. From a machine that has the photographs, run: orch data push {self._dataset}{options}"
        )


def pushed_names(store: ObjectStore) -> list[str]:
    """Return the names of the data sets of which something was pushed: the paper's, then imported ones.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    first, last = head_key("*").split("*")
    found = [one.key.removeprefix(first).removesuffix(last) for one in store.list(first) if one.key.endswith(last)]
    return sorted((name for name in found if "/" not in name), key=lambda name: (*DATASETS, name).index(name))


def read_head(store: ObjectStore, dataset: str) -> Head | None:
    """Return what is pushed of a data set; None for nothing.

    Raises:
        StoreError: the record cannot be read.
    """
    found = store.read(head_key(dataset))
    if found is None:
        return None
    try:
        return Head.model_validate_json(found[0])
    except ValidationError as error:
        raise StoreError(
            f"The object {head_key(dataset)} of {store.where} cannot be read. Run `orch data push {dataset}` again."
        ) from error


def make_room(cache_dir: Path, coming: int, limit: int) -> None:
    """Remove pulled sets, the longest unused first, until a new one fits into the limit. Sets in use stay.

    Args:
        coming: size of the new set, in bytes.
        limit: most bytes of all pulled sets.
    """
    sets = sorted(_pulled_sets(cache_dir / FOLDER))
    total = coming + sum(size for _, size, _ in sets)
    for _, size, folder in sets:
        if total <= limit:
            return
        if _remove(folder):
            total -= size


def _pulled_sets(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield the time of the last use, the size and the folder of each pulled set."""
    for mark in folder.glob(f"*/{PULLED}"):
        with contextlib.suppress(OSError):
            yield (mark.parent / INFO).stat().st_mtime, (mark.parent / IMAGES).stat().st_size, mark.parent


def _remove(folder: Path) -> bool:
    """Remove a set that no process has mapped. Returns whether it was removed."""
    from filelock import FileLock, Timeout

    doomed = folder.with_name(f".{folder.name}.removed")
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0), open(folder / IMAGES, "rb") as file:
            lock_file(file, shared=False)
            shutil.rmtree(doomed, ignore_errors=True)
            os.replace(folder, doomed)
    except (BlockingIOError, Timeout, OSError):
        return False
    shutil.rmtree(doomed, ignore_errors=True)
    return True


def _places(shards: tuple[Shard, ...]) -> Iterator[tuple[int, Shard]]:
    """Yield each shard with where it begins in the array, in bytes."""
    start = 0
    for shard in shards:
        yield start, shard
        start += shard.bytes
