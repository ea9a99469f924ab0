"""Pictures prepared once per machine: a set is a folder with a memory-mapped array that appears whole or not at all.

While it is prepared, a journal beside the array says how many rows are safe, so that a killed process loses few.
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
"""Pictures between two entries of the journal: so many are lost at most when the process is killed."""
_WAIT_SECONDS = 1.0
"""Between two words of a job that waits for another's preparation."""


class PreparedImage(NamedTuple):
    """One picture on its way into a set."""

    item: int
    """Which of the things that the set was asked for: some may be unreadable and left out."""
    name: str
    pixels: NDArray[np.uint8]
    """(S, S, 3) of a picture, (S, S) of a map of its parts."""
    landmarks: dict[str, tuple[float, float]]
    """(row, column) in pixel indices; only those that can be seen."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """An open set; row r of every field belongs to one picture."""

    key: str
    pixels_N: NDArray[np.uint8]
    items: tuple[int, ...]
    names: tuple[str, ...]
    landmarks: tuple[dict[str, tuple[float, float]], ...]
    skipped: tuple[str, ...]


Build = Callable[[int], Iterable[PreparedImage | str]]
"""Yields the pictures of a set, without the first so many: those are there already. A bare string is the name of one
that had to be skipped, and counts like a picture."""


ReportCount = Callable[[int], None]
"""Told how many pictures of a set are done."""


def open_set(
    cache_dir: Path,
    key: str,
    shape: tuple[int, ...],
    build: Build,
    report: ReportPhase,
    advance: ReportCount = lambda _: None,
) -> ImageSet:
    """The set with this key, prepared now if no process has done so before.

    A process that is killed or interrupted leaves a `.partial` folder that nobody reads; the next one goes on with it.

    Args:
        shape: of the array: as many rows as there may be pictures, then the shape of one.
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
            raise  # what is there is good: the next process goes on with it
        except (OrchError, OSError):
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def _alone(final: Path, report: ReportPhase) -> Iterator[None]:
    """Wait until no other process prepares the same set; `report` hears of it and may end the wait."""
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
    """Write what is missing of a set, and then its list."""
    folder.mkdir(exist_ok=True)
    rows, safe_bytes = _safe_rows(folder, shape)
    pending: list[Any] = []
    # Written, not mapped: on a full disk a write raises, where a store into a mapped file ends the process (SIGBUS).
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
        images.truncate(end)  # rows that skipped pictures leave empty
    (folder / _INFO).write_text(json.dumps({"bytes": end, **_listed([*rows, *pending])}), encoding="utf-8")
    (folder / _JOURNAL).unlink()


def _make_safe(images: BinaryIO, journal: TextIO, rows: list[Any]) -> None:
    """First the pixels, then the word that they are there."""
    images.flush()
    os.fsync(images.fileno())
    journal.writelines(f"{json.dumps(row)}\n" for row in rows)
    journal.flush()


def _safe_rows(folder: Path, shape: tuple[int, ...]) -> tuple[list[Any], int]:
    """What an earlier process left: the rows of its journal, and how many bytes of the array belong to them.

    Whatever lies beyond is cut off; where the two do not fit together, everything is.
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
    """Also false for a set that a power cut left shorter than it says."""
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
