"""Stores prepared pictures once per machine: a set is a folder with a memory-mapped array, complete or absent.

During preparation a journal beside the array records how many rows are on disk, so that a killed process loses few.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Interrupted, OrchError, StoreError, StoreUnreachable
from schemas.order import ReportPhase
from workers.file_locks import alone, lock_file

FOLDER = "image-sets"
IMAGES, INFO, _JOURNAL = "images.npy", "info.json", "rows.jsonl"
_SAFE_EVERY = 64
"""Pictures between two writes to the journal, and the most that a killed process loses."""


class PreparedImage(NamedTuple):
    """One picture to be stored in a set."""

    item: int
    """Index among the requested items; unreadable ones are skipped."""
    name: str
    pixels: NDArray[np.uint8]
    """(S, S, 3) for a picture, (S, S) for a map of its parts."""
    landmarks: dict[str, tuple[float, float]]
    """(row, column) in pixel indices; visible landmarks only."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """An open set; row r of every field belongs to one picture."""

    key: str
    pixels_N: NDArray[np.uint8]
    """Memory-mapped pictures (N, S, S, 3), or part maps (N, S, S)."""
    items: tuple[int, ...]
    """Index of each picture among the requested items."""
    names: tuple[str, ...]
    landmarks: tuple[dict[str, tuple[float, float]], ...]
    skipped: tuple[str, ...]
    """Names of unreadable items, which have no row."""


Build = Callable[[int], Iterable[PreparedImage | str]]
"""Yields the items of a set after the first given number, which are already stored. A string is the name of a skipped
item, and counts as one."""


Fetch = Callable[[str, Path, ReportPhase], bool]
"""Puts the files of a set with this key into a folder, where the set can be had ready made. Returns whether it did."""


ReportCount = Callable[[int], None]
"""Receives how many items of a set are done."""


def open_set(
    cache_dir: Path,
    key: str,
    shape: tuple[int, ...],
    build: Build,
    report: ReportPhase,
    advance: ReportCount = lambda _: None,
    fetch: Fetch = lambda *_: False,
) -> ImageSet:
    """Return the set with this key, and prepare it first if no process has done so.

    A killed or interrupted process leaves a `.partial` folder, which the next process continues.

    Args:
        key: name of the set; it must determine the content.
        shape: of the array: the largest possible number of pictures, then the shape of one.
        build: yields the items of the set.
        report: receives the phase while another process prepares the set; an error that it raises ends the wait.
        advance: receives the number of items done.
        fetch: is asked for the whole set before it is built.

    Raises:
        StoreError: the cache cannot be written.
    """
    final = cache_dir / FOLDER / key

    def fill(partial: Path) -> None:
        partial.mkdir(exist_ok=True)
        if not fetch(key, partial, report):
            _fill(partial, (max(1, shape[0]), *shape[1:]), build, advance)

    while True:
        if not is_whole(final):
            with _explained(cache_dir):
                final.parent.mkdir(parents=True, exist_ok=True)
                _prepare(final, fill, report)
        with suppress(FileNotFoundError):  # removed since, to make room for another set
            return _open(final)


def _prepare(final: Path, fill: Callable[[Path], None], report: ReportPhase) -> None:
    partial = final.parent / f".{final.name}.partial"
    with alone(final, f"prepares {final.name}", report):
        if is_whole(final):
            return
        shutil.rmtree(final, ignore_errors=True)
        try:
            fill(partial)
            os.replace(partial, final)
        except (Interrupted, StoreUnreachable):
            raise  # keep the partial set: the next process continues it
        except (OrchError, OSError):
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _fill(folder: Path, shape: tuple[int, ...], build: Build, advance: ReportCount) -> None:
    """Write the missing rows of a set, and then its list."""
    rows, safe_bytes = _safe_rows(folder, shape)
    pending: list[Any] = []
    # Written, not mapped: on a full disk a write raises OSError, but a store into a mapped file is a SIGBUS.
    with open(folder / IMAGES, "ab") as images, open(folder / _JOURNAL, "a", encoding="utf-8") as journal:
        if not safe_bytes:
            np.lib.format.write_array_header_1_0(images, {"descr": "|u1", "fortran_order": False, "shape": shape})
            safe_bytes = images.tell()
        end = safe_bytes + (shape[0] - _pictures(rows)) * math.prod(shape[1:])
        for picture in build(len(rows)):
            if isinstance(picture, str):
                pending.append(picture)
            else:
                images.write(picture.pixels.tobytes())
                pending.append([picture.item, picture.name, picture.landmarks])
            if len(pending) == _SAFE_EVERY:
                _make_safe(images, journal, pending)
                rows, pending = [*rows, *pending], []
            advance(len(rows) + len(pending))
        _make_safe(images, journal, pending)
        images.truncate(end)  # remove the unused rows of skipped items
    (folder / INFO).write_text(json.dumps({"bytes": end, **_listed([*rows, *pending])}), encoding="utf-8")
    (folder / _JOURNAL).unlink()


def _make_safe(images: BinaryIO, journal: TextIO, rows: list[Any]) -> None:
    """Flush the pixels, and then record them in the journal."""
    images.flush()
    os.fsync(images.fileno())
    journal.writelines(f"{json.dumps(row)}\n" for row in rows)
    journal.flush()


def _safe_rows(folder: Path, shape: tuple[int, ...]) -> tuple[list[Any], int]:
    """Return the rows in the journal of an earlier process, and the number of bytes of the array that they cover.

    Pixels beyond them are removed. If journal and array contradict each other, both are removed.
    """
    images, journal = folder / IMAGES, folder / _JOURNAL
    try:
        lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        with images.open("rb") as file:
            np.lib.format.read_magic(file)
            stored = np.lib.format.read_array_header_1_0(file)[0]
            header = file.tell()
    except (OSError, ValueError):
        rows, stored, header = [], (), 0
    safe = header + _pictures(rows) * math.prod(shape[1:])
    if stored != shape or images.stat().st_size < safe:
        images.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)
        return [], 0
    os.truncate(images, safe)
    journal.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return rows, safe


def _pictures(rows: list[Any]) -> int:
    return sum(not isinstance(row, str) for row in rows)


def _listed(rows: list[Any]) -> dict[str, list[Any]]:
    return {
        "rows": [row for row in rows if not isinstance(row, str)],
        "skipped": [row for row in rows if isinstance(row, str)],
    }


def is_whole(folder: Path) -> bool:
    """Return whether a set is complete; false for one that a power cut left shorter than its list says."""
    try:
        expected: int = json.loads((folder / INFO).read_bytes())["bytes"]
        return (folder / IMAGES).stat().st_size == expected
    except (OSError, ValueError):
        return False


def _open(folder: Path) -> ImageSet:
    info = json.loads((folder / INFO).read_bytes())
    with suppress(PermissionError):  # a cache that may only be read
        os.utime(folder / INFO)  # the time of the last use
    pixels_N = _mapped(folder / IMAGES)
    items, names, landmarks = zip(*info["rows"], strict=True) if info["rows"] else ((), (), ())
    seen = tuple({name: (row, column) for name, (row, column) in marks.items()} for marks in landmarks)
    return ImageSet(folder.name, pixels_N, items, names, seen, tuple(info["skipped"]))


def _mapped(path: Path) -> NDArray[np.uint8]:
    """Map a file of pictures, and hold a shared lock on it as long as the array exists: the mapping keeps the file
    open, and the operating system the lock."""
    with open(path, "rb") as file:
        lock_file(file, shared=True)
        np.lib.format.read_magic(file)
        shape = np.lib.format.read_array_header_1_0(file)[0]
        return np.memmap(file, np.uint8, "r", file.tell(), shape)


@contextmanager
def _explained(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The prepared images cannot be written under {cache_dir}: {error.strerror or error}. "
            "Make room or repair the permissions there."
        ) from error
