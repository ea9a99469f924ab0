"""Stores prepared pictures once per machine: a set is a folder with a memory-mapped array, complete or absent.

During preparation a journal beside the array records how many rows are on disk, so that a killed process loses few.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Interrupted, OrchError, StoreError
from schemas.order import ReportPhase

FOLDER = "image-sets"
_IMAGES, _INFO, _JOURNAL = "images.npy", "info.json", "rows.jsonl"
_SAFE_EVERY = 64
"""Pictures between two writes to the journal, and the most that a killed process loses."""
_WAIT_SECONDS = 1.0
"""Seconds between two reports of a job that waits for another job's preparation."""


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


ReportCount = Callable[[int], None]
"""Receives how many items of a set are done."""


def open_set(
    cache_dir: Path,
    key: str,
    shape: tuple[int, ...],
    build: Build,
    report: ReportPhase,
    advance: ReportCount = lambda _: None,
) -> ImageSet:
    """Return the set with this key, and prepare it first if no process has done so.

    A killed or interrupted process leaves a `.partial` folder, which the next process continues.

    Args:
        key: name of the set; it must determine the content.
        shape: of the array: the largest possible number of pictures, then the shape of one.
        build: yields the items of the set.
        report: receives the phase while another process prepares the set; an error that it raises ends the wait.
        advance: receives the number of items done.

    Raises:
        StoreError: the cache cannot be written.
    """
    final = cache_dir / FOLDER / key
    if not is_whole(final):
        with _explained(cache_dir):
            final.parent.mkdir(parents=True, exist_ok=True)
            _prepare(final, (max(1, shape[0]), *shape[1:]), build, report, advance)
    return _open(final)


def _prepare(final: Path, shape: tuple[int, ...], build: Build, report: ReportPhase, advance: ReportCount) -> None:
    partial = final.parent / f".{final.name}.partial"
    with _alone(final, report):
        if is_whole(final):
            return
        shutil.rmtree(final, ignore_errors=True)
        try:
            _fill(partial, shape, build, advance)
            os.replace(partial, final)
        except Interrupted:
            raise  # keep the partial set: the next process continues it
        except (OrchError, OSError):
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def _alone(final: Path, report: ReportPhase) -> Iterator[None]:
    """Hold the lock of a set; `report` is called while another process holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(final.parent / f".{final.name}.lock")
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_WAIT_SECONDS)
        except Timeout:
            report(f"waiting for another job that prepares {final.name}")
    try:
        yield
    finally:
        lock.release()


def _fill(folder: Path, shape: tuple[int, ...], build: Build, advance: ReportCount) -> None:
    """Write the missing rows of a set, and then its list."""
    folder.mkdir(exist_ok=True)
    rows, safe_bytes = _safe_rows(folder, shape)
    pending: list[Any] = []
    # Written, not mapped: on a full disk a write raises OSError, but a store into a mapped file is a SIGBUS.
    with open(folder / _IMAGES, "ab") as images, open(folder / _JOURNAL, "a", encoding="utf-8") as journal:
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
    (folder / _INFO).write_text(json.dumps({"bytes": end, **_listed([*rows, *pending])}), encoding="utf-8")
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
    images, journal = folder / _IMAGES, folder / _JOURNAL
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
        expected: int = json.loads((folder / _INFO).read_bytes())["bytes"]
        return (folder / _IMAGES).stat().st_size == expected
    except (OSError, ValueError):
        return False


def _open(folder: Path) -> ImageSet:
    info = json.loads((folder / _INFO).read_bytes())
    pixels_N = np.load(folder / _IMAGES, mmap_mode="r")
    items, names, landmarks = zip(*info["rows"], strict=True) if info["rows"] else ((), (), ())
    seen = tuple({name: (row, column) for name, (row, column) in marks.items()} for marks in landmarks)
    return ImageSet(folder.name, pixels_N, items, names, seen, tuple(info["skipped"]))


@contextmanager
def _explained(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The prepared images cannot be written under {cache_dir}: {error.strerror or error}. "
            "Make room or repair the permissions there."
        ) from error
