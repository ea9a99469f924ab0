"""Generated animals in chunks: the same pictures whoever draws them, and no process is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from schemas.categories import CATEGORIES
from schemas.errors import Interrupted
from tests.support.waiting import wait_for
from workers.data.prepared import animals
from workers.data.prepared.animals import Chunk, chunk_set, draw_ahead
from workers.data.prepared.image_sets import FOLDER, IMAGES, INFO, is_whole

SECONDS = 60.0
CHUNKS = [Chunk(CATEGORIES[n % 4].id, "train", n // 4, 32) for n in range(12)]


@pytest.fixture(autouse=True)
def _few_are_worth_processes_and_none_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(animals, "WORTH_PROCESSES", len(CHUNKS))
    before = psutil.Process().children()
    yield
    assert [one for one in psutil.Process().children() if one not in before] == []


def contents(cache_dir: Path) -> dict[str, bytes]:
    folders = [cache_dir / FOLDER / chunk.key for chunk in CHUNKS]
    assert all(map(is_whole, folders))
    return {f"{folder.name}/{name}": (folder / name).read_bytes() for folder in folders for name in (IMAGES, INFO)}


def test_several_processes_draw_what_one_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def wait_for_others(phase: str) -> None:
        drawn.append(phase)
        wait_for(lambda: sum(is_whole(tmp_path / "several" / FOLDER / chunk.key) for chunk in CHUNKS) >= 3)

    draw_ahead(tmp_path / "several", CHUNKS, 3, wait_for_others)
    for chunk in CHUNKS:
        chunk_set(tmp_path / "one", chunk, lambda _: None)
    assert contents(tmp_path / "several") == contents(tmp_path / "one")
    assert len(drawn) < len(CHUNKS)
    monkeypatch.setattr(animals, "chunk_set", None)
    draw_ahead(tmp_path / "several", CHUNKS, 3, drawn.append)  # nothing is left to draw


@pytest.mark.parametrize(("chunks", "processes"), [(CHUNKS, 1), (CHUNKS[1:], 3)])
def test_one_process_or_few_chunks_start_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: list[Chunk], processes: int
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    draw_ahead(tmp_path, chunks, processes, lambda _: None)
    assert not (tmp_path / FOLDER).exists()


def test_what_a_process_that_dies_does_not_draw_is_drawn_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animals, "_START", "raise SystemExit(1)")
    draw_ahead(tmp_path, CHUNKS, 2, lambda _: None)
    for chunk in CHUNKS:
        chunk_set(tmp_path, chunk, lambda _: None)
    assert len(contents(tmp_path)) == 2 * len(CHUNKS)


def test_an_interrupted_job_draws_no_more(tmp_path: Path) -> None:
    def interrupt(phase: str) -> None:
        raise Interrupted(phase)

    with pytest.raises(Interrupted, match="drawing"):
        draw_ahead(tmp_path, CHUNKS, 3, interrupt)
    assert not all(is_whole(tmp_path / FOLDER / chunk.key) for chunk in CHUNKS)


DRAWER = """
import sys
from pathlib import Path
from workers.data.prepared.animals import Chunk, draw_ahead

def wait(phase):
    print(phase, flush=True)
    sys.stdin.read()

draw_ahead(Path(sys.argv[1]), [Chunk("voc_part/cat", "train", n, 32) for n in range(100_000)], 3, wait)
"""


def test_the_processes_of_a_killed_job_end_by_themselves(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRAWER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as job:
        assert job.stdout is not None
        assert job.stdout.readline().startswith(b"drawing")
        helpers = wait_for(lambda: two if len(two := psutil.Process(job.pid).children()) == 2 else None)
        job.send_signal(signal.SIGKILL)
        assert psutil.wait_procs(helpers, timeout=SECONDS)[1] == []
