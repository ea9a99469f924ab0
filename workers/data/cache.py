"""Pictures prepared once per machine: a set is a folder with a memory-mapped array that appears whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StoreError

FOLDER = "image-sets"
_IMAGES, _INFO = "images.npy", "info.json"
_WAIT_SECONDS = 1.0
"""Between two words of a job that waits for another's preparation."""


class Prepared(NamedTuple):
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


Build = Callable[[], Iterable[Prepared | str]]
"""Yields the pictures of a set; a bare string is the name of one that had to be skipped."""

Report = Callable[[str], None]
"""Told what is being done, often enough to stop there: it may raise."""


def open_set(cache_dir: Path, key: str, shape: tuple[int, ...], build: Build, report: Report) -> ImageSet:
    """The set with this key, prepared now if no process has done so before.

    A process that is killed leaves a `.partial` folder that nobody reads and the next one removes.

    Args:
        shape: of the array: as many rows as there may be pictures, then the shape of one.
    """
    final = cache_dir / FOLDER / key
    if not _is_whole(final):
        with _explained(cache_dir):
            final.parent.mkdir(parents=True, exist_ok=True)
            _prepare(final, shape, build, report)
    return _open(final)


def _prepare(final: Path, shape: tuple[int, ...], build: Build, report: Report) -> None:
    with _alone(final, report):
        if _is_whole(final):
            return
        for leftover in (final, *final.parent.glob(f".{final.name}.*.partial")):
            shutil.rmtree(leftover, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent))
        try:
            _write(partial, (max(1, shape[0]), *shape[1:]), build())
            os.replace(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _alone(final: Path, report: Report) -> Iterator[None]:
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


def _write(folder: Path, shape: tuple[int, ...], pictures: Iterable[Prepared | str]) -> None:
    rows: list[tuple[int, str, dict[str, tuple[float, float]]]] = []
    skipped: list[str] = []
    # Written, not mapped: on a full disk a write raises, where a store into a mapped file ends the process (SIGBUS).
    with open(folder / _IMAGES, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        end = file.tell() + math.prod(shape)
        for picture in pictures:
            if isinstance(picture, str):
                skipped.append(picture)
                continue
            file.write(picture.pixels.tobytes())
            rows.append((picture.item, picture.name, picture.landmarks))
        file.flush()
        file.truncate(end)  # rows that skipped pictures leave empty
        os.fsync(file.fileno())
    info = {"bytes": (folder / _IMAGES).stat().st_size, "rows": rows, "skipped": skipped}
    (folder / _INFO).write_text(json.dumps(info), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
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
            "Free some space there, or point ORCH_HOME at a folder that can be written."
        ) from error
