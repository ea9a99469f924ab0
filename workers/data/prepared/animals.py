"""Prepares generated animals in chunks, each a set of its own, and many chunks in several processes.

Drawing holds Python's lock, so threads would not help.

Legend: S side of the square.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from schemas.categories import BY_ID
from schemas.job import RECIPE_VERSION
from schemas.order import ReportPhase
from workers.code_home import command_of
from workers.data.generated.animals import GENERATOR_VERSION
from workers.data.prepared.image_sets import FOLDER, ImageSet, PreparedImage, is_whole, open_set

if TYPE_CHECKING:
    from workers.data.generated.generate import Generated

CHUNK = 16
"""Animals of a chunk; few, so that a few negatives of a category are quick to prepare."""
WORTH_PROCESSES = 32
"""Chunks from which on it pays to start processes, which takes about half a second."""
MOST_PROCESSES = 8
"""More would hardly have begun when the chunks of the largest sweep are drawn, and each takes 90 MB."""
_START = "from workers.data.prepared.animals import serve; serve()"


class Chunk(NamedTuple):
    """Animals `CHUNK * number` and following of one category and split."""

    category: str
    split: str
    """`train` or `test`."""
    number: int
    size: int
    """Side of a picture, S, in pixels."""

    @property
    def key(self) -> str:
        """Name of its set of pictures."""
        category = self.category.replace("/", "-")
        return f"{category}-{self.split}-{self.number}-{self.size}px-v{GENERATOR_VERSION}"


def chunk_set(cache_dir: Path, chunk: Chunk, report: ReportPhase) -> ImageSet:
    """Return the pictures of a chunk with their landmarks, drawn now if they are not in the cache.

    Raises:
        StoreError: the cache cannot be written.
    """

    def build(done: int) -> Iterator[PreparedImage]:
        for index, name, picture in _draw(chunk, done, report):
            seen = {name: at for name, at in picture.landmarks.items() if at[0] == at[0]}
            yield PreparedImage(index, name, picture.image_SS3, seen)

    return open_set(cache_dir, chunk.key, (CHUNK, chunk.size, chunk.size, 3), build, report)


def chunk_part_set(cache_dir: Path, chunk: Chunk, report: ReportPhase) -> ImageSet:
    """Return the part maps of a chunk, drawn again for the few measured pictures instead of stored for all.

    Raises:
        StoreError: the cache cannot be written.
    """

    def build(done: int) -> Iterator[PreparedImage]:
        from workers.data.generated.generate import merge_parts

        for index, name, picture in _draw(chunk, done, report):
            yield PreparedImage(index, name, merge_parts(picture.parts_SS, BY_ID[chunk.category].parts), {})

    key = f"{chunk.key}-parts-r{RECIPE_VERSION}"
    return open_set(cache_dir, key, (CHUNK, chunk.size, chunk.size), build, report)


def _draw(chunk: Chunk, done: int, report: ReportPhase) -> Iterator[tuple[int, str, Generated]]:
    from workers.data.generated.generate import generate

    label = BY_ID[chunk.category].label
    report(f"drawing {label}")
    for index in range(chunk.number * CHUNK + done, (chunk.number + 1) * CHUNK):
        yield (
            index,
            f"generated {label} {chunk.split} {index}",
            generate(chunk.category, index, chunk.size, split=chunk.split),
        )


def draw_ahead(cache_dir: Path, chunks: Sequence[Chunk], processes: int, report: ReportPhase) -> None:
    """Put the pictures of many chunks into the cache, in several processes if that pays.

    Args:
        cache_dir: holds the prepared images.
        chunks: what is wanted; those that are in the cache are left alone.
        processes: number of processes that draw, this one included; more than `MOST_PROCESSES` count as that.
        report: receives the phase; an error that it raises ends the drawing.

    Raises:
        StoreError: the cache cannot be written.
    """
    beside = min(processes, MOST_PROCESSES) - 1
    if beside < 1 or len(chunks) < WORTH_PROCESSES:
        return  # without a look at each chunk, which every job would repeat
    missing = deque(chunk for chunk in chunks if not is_whole(cache_dir / FOLDER / chunk.key))
    if len(missing) < WORTH_PROCESSES:
        return
    with ThreadPoolExecutor(beside, thread_name_prefix="orch-draw") as helpers:
        for _ in range(beside):
            helpers.submit(_let_draw, cache_dir, missing)
        try:
            while chunk := _next(missing):
                chunk_set(cache_dir, chunk, report)
        finally:
            missing.clear()  # each helper ends after the chunk that it draws


def _let_draw(cache_dir: Path, missing: deque[Chunk]) -> None:
    """Start a process, and let it draw one chunk after another until none is left or it has died."""
    # It ends with this process, which holds the other end of its input. Not in the working folder of the moment, which
    # may be removed meanwhile.
    with subprocess.Popen(
        command_of(_START), text=True, start_new_session=True, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        while chunk := _next(missing):
            print(json.dumps([str(cache_dir), *chunk]), file=process.stdin, flush=True)
            if not process.stdout.readline():
                return  # whoever opens the set draws it


def _next(missing: deque[Chunk]) -> Chunk | None:
    try:
        return missing.popleft()
    except IndexError:  # another thread took the last
        return None


def serve() -> None:
    """Be a process that draws: read chunks from the standard input, and answer each with a line once it is drawn."""
    for line in sys.stdin:
        cache_dir, *chunk = json.loads(line)
        chunk_set(Path(cache_dir), Chunk(*chunk), lambda _: None)
        print(flush=True)
