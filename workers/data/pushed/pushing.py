"""Puts prepared photographs into the object store once: what is there is not sent again, and the head comes last."""

from __future__ import annotations

import hashlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import DataAbsent
from workers.data.checks import check_category
from workers.data.data_root import DataRoot
from workers.data.prepared.image_sets import FOLDER, IMAGES, INFO
from workers.data.prepared.photographs import have_masks, part_set_key, set_key
from workers.data.pushed.description import (
    SHARDS,
    Head,
    SetOnStore,
    Shard,
    SizeOnStore,
    describe,
    description_key,
    head_key,
    set_record_key,
)
from workers.data.pushed.pulling import AT_ONCE, read_head
from workers.objects.base import ObjectStore

SHARD_BYTES = 32 * 2**20
"""Size of a shard: the most that a killed push or pull sends again, times `AT_ONCE`."""

Sent = Callable[[int, int], None]
"""Receives how many bytes of how many are in the store."""


@dataclass(frozen=True)
class Pushed:
    """What a push did."""

    dataset: str
    categories: tuple[str, ...]
    """Everything that a job of the data set can draw on, NEGATIVES and other stocks included."""
    sizes: tuple[int, ...]
    objects: int
    bytes: int
    """Size of the pictures of these sizes."""
    sent: int
    """Bytes of them that were not in the store yet."""


def push(
    root: DataRoot,
    dataset: str,
    sizes: tuple[int, ...],
    prepare: Callable[[str, int], object],
    store: ObjectStore,
    now: float,
    on_bytes: Sent = lambda *_: None,
) -> Pushed:
    """Push everything that jobs of a data set can draw on: its categories and, as negatives, those of the other data
    sets under the root and the folder of negatives.

    A push that was killed is continued by the next one. A machine sees the data set when all of it is there.

    Args:
        root: opened with a cache folder.
        sizes: sides of the pictures, in pixels.
        prepare: prepares a category at a size where that was not done yet.
        now: Unix time.
        on_bytes: receives progress.

    Raises:
        DataAbsent: the data set is not under the root.
        DataError: the photographs cannot be prepared.
        StoreError: the store does not answer, or refuses.
    """
    if root.reader(dataset) is None:
        raise DataAbsent(f"The data root {root.place} has no {dataset}. `orch data list` shows what is there.")
    names = root.stocks()
    for name in names:
        check_category(name, root)
    kept = [name for name in names if root.records(name)]
    folders: dict[int, list[Path]] = {}
    for size in sizes:
        for name in kept:
            prepare(name, size)
        keys = [set_key(root, name, size) for name in kept]
        masked = [name for name in kept if have_masks(root.records(name))]
        keys += [part_set_key(root, name, size) for name in masked]
        assert root.cache_dir is not None
        folders[size] = [root.cache_dir / FOLDER / key for key in keys]
    records = {size: [(folder, _record_of(folder)) for folder in found] for size, found in folders.items()}
    total = {size: sum(record.bytes for _, record in found) for size, found in records.items()}
    present = {one.key: one.size for one in store.list(SHARDS)}
    sent = _send([pair for found in records.values() for pair in found], present, store, sum(total.values()), on_bytes)
    for found in records.values():
        for folder, record in found:
            _write_once(store, set_record_key(folder.name), record.model_dump_json().encode())
    described, digest = describe(root)
    _write_once(store, description_key(digest), described.encoded)
    head = read_head(store, dataset)
    before = head.sizes if head is not None and head.description == digest else {}
    new = Head(
        description=digest,
        sizes={**before, **{str(size): SizeOnStore(bytes=total[size]) for size in sizes}},
        pushed_at=now,
        pushed_from=socket.gethostname(),
        objects={name: len(root.records(name)) for name in kept},
    )
    if head is None or (head.description, head.sizes) != (new.description, new.sizes):
        store.write(head_key(dataset), new.model_dump_json().encode())
    objects = sum(new.objects.values())
    return Pushed(dataset, tuple(kept), sizes, objects, sum(total.values()), sent)


def _record_of(folder: Path) -> SetOnStore:
    info = (folder / INFO).read_bytes()
    return SetOnStore(
        images=tuple(shard for _, shard in _shards_of(folder / IMAGES)),
        info=Shard(sha256=hashlib.sha256(info).hexdigest(), bytes=len(info)),
    )


def _shards_of(path: Path) -> Iterator[tuple[bytes, Shard]]:
    with open(path, "rb") as file:
        while content := file.read(SHARD_BYTES):
            yield content, Shard(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def _send(
    found: list[tuple[Path, SetOnStore]], present: dict[str, int], store: ObjectStore, total: int, on_bytes: Sent
) -> int:
    """Send the shards that the store lacks, several at a time; return their bytes."""
    missing: dict[str, tuple[Path, int, int]] = {}
    for folder, record in found:
        start = 0
        for shard in record.images:
            missing[shard.sha256] = folder / IMAGES, start, shard.bytes
            start += shard.bytes
        missing[record.info.sha256] = folder / INFO, 0, record.info.bytes
    missing = {name: one for name, one in missing.items() if present.get(SHARDS + name) != one[2]}
    to_send = sum(size for _, _, size in missing.values())
    done = total - to_send
    on_bytes(done, total)

    def send(name: str) -> int:
        path, start, size = missing[name]
        with tempfile.NamedTemporaryFile(prefix="orch-shard-") as piece, open(path, "rb") as file:
            file.seek(start)
            piece.write(file.read(size))
            piece.flush()
            store.put(SHARDS + name, Path(piece.name), name)
        return size

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="orch-push") as threads:
        try:
            for size in threads.map(send, missing):
                done += size
                on_bytes(done, total)
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return to_send


def _write_once(store: ObjectStore, key: str, content: bytes) -> None:
    found = store.read(key)
    if found is None or found[0] != content:
        store.write(key, content)
