"""Image sets are complete or absent, shared by processes, and repaired when damaged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import DataError, Interrupted, StoreError
from schemas.order import ReportPhase
from workers import file_locks
from workers.data.prepared.image_sets import FOLDER, ImageSet, PreparedImage, open_set


def ignore(_: str) -> None: ...


def pictures(count: int, size: int = 8) -> Iterator[PreparedImage | str]:
    for i in range(count):
        yield PreparedImage(i, f"picture {i}", np.full((size, size, 3), i, dtype=np.uint8), {"head": (i + 0.5, 2.0)})


def open_four(folder: Path, asked: list[int] | None = None, report: ReportPhase = ignore) -> ImageSet:
    def build(done: int) -> Iterator[PreparedImage | str]:
        if asked is not None:
            asked.append(1)
        return pictures(4)

    return open_set(folder, "four", (4, 8, 8, 3), build, report)


def visible_folders(root: Path) -> list[str]:
    return sorted(path.name for path in (root / FOLDER).iterdir() if path.is_dir())


def test_a_set_comes_back_as_it_was_prepared(tmp_path: Path) -> None:
    found = open_four(tmp_path)
    assert found.pixels_N[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert isinstance(found.pixels_N, np.memmap)
    assert found.names[2] == "picture 2"
    assert found.landmarks[1] == {"head": (1.5, 2.0)}


def test_the_second_time_nothing_is_prepared(tmp_path: Path) -> None:
    asked: list[int] = []
    open_four(tmp_path, asked)
    open_four(tmp_path, asked)
    assert asked == [1]


def test_skipped_pictures_leave_their_place_to_the_next(tmp_path: Path) -> None:
    def build(done: int) -> Iterator[PreparedImage | str]:
        first, _, third = pictures(3)
        yield from (first, "broken.jpg", third)

    found = open_set(tmp_path, "gap", (3, 8, 8, 3), build, ignore)
    assert found.items == (0, 2)
    assert found.skipped == ("broken.jpg",)
    assert found.pixels_N[1].max() == 2


def test_a_refused_set_leaves_nothing_behind(tmp_path: Path) -> None:
    def build(done: int) -> Iterator[PreparedImage | str]:
        yield next(pictures(1))
        raise DataError("enough")

    with pytest.raises(DataError, match="enough"):
        open_set(tmp_path, "refused", (4, 8, 8, 3), build, ignore)
    assert visible_folders(tmp_path) == []


def test_a_set_cut_short_by_a_power_failure_is_prepared_again(tmp_path: Path) -> None:
    open_four(tmp_path)
    images = tmp_path / FOLDER / "four/images.npy"
    images.write_bytes(images.read_bytes()[:200])
    assert open_four(tmp_path).pixels_N[3].max() == 3


def test_a_set_without_its_list_is_prepared_again(tmp_path: Path) -> None:
    open_four(tmp_path)
    (tmp_path / FOLDER / "four/info.json").write_text('{"by')
    assert len(open_four(tmp_path).names) == 4


def test_a_process_killed_while_preparing_leaves_no_half_set(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from workers.data.prepared.image_sets import PreparedImage, open_set\n"
        "def build(done):\n"
        "    yield PreparedImage(0, 'half', np.full((8, 8, 3), 99, np.uint8), {})\n"
        "    print('half', flush=True); sys.stdin.read()\n"
        f"open_set(Path({str(tmp_path)!r}), 'four', (4, 8, 8, 3), build, print)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        child.kill()
        child.wait()
    assert "four" not in visible_folders(tmp_path)
    assert open_four(tmp_path).names[0] == "picture 0"
    assert visible_folders(tmp_path) == ["four"]


def test_a_job_that_waits_for_anothers_set_says_so_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_locks, "_WAIT_SECONDS", 0.01)
    heard: list[str] = []

    def stop_at_the_third_word(said: str) -> None:
        heard.append(said)
        if len(heard) == 3:
            raise Interrupted("asked to stop")

    def build(done: int) -> Iterator[PreparedImage | str]:
        with pytest.raises(Interrupted):
            open_four(tmp_path, report=stop_at_the_third_word)
        return pictures(4)

    assert len(open_set(tmp_path, "four", (4, 8, 8, 3), build, ignore).names) == 4
    assert heard == ["waiting for another job that prepares four"] * 3


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot be written under .*Make room or repair"):
        open_four(tmp_path / "file")


def test_a_disk_that_fills_up_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    # A limit on file sizes stands for the disk. It comes after the file was made: a mapped file has its size by then.
    code = (
        "import resource, signal, numpy as np; from pathlib import Path\n"
        "from workers.data.prepared.image_sets import PreparedImage, open_set; from schemas.errors import StoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "def build(done):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "    for i in range(4): yield PreparedImage(i, 'x', np.ones((64, 64, 3), np.uint8), {})\n"
        f"try:\n    open_set(Path({str(tmp_path)!r}), 'four', (4, 64, 64, 3), build, print)\n"
        "except StoreError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot be written under" in done.stdout
    assert visible_folders(tmp_path) == []


CHILD = """
import sys, numpy as np
from pathlib import Path
from schemas.order import ReportPhase
from workers.data.prepared.image_sets import PreparedImage, open_set
stop_at = int(sys.argv[2])
if stop_at < 0:
    sys.stdin.readline()
def build(done):
    print("from", done, flush=True)
    for i in range(done, 300):
        if i == stop_at:
            print("there", flush=True)
            sys.stdin.read()
        picture = PreparedImage(i, f"picture {i}", np.full((4, 4, 3), i % 251, np.uint8), {})
        yield f"broken {i}" if i % 50 == 7 else picture
open_set(Path(sys.argv[1]), "big", (300, 4, 4, 3), build, lambda said: print(said, flush=True))
print("whole", flush=True)
"""


def start(folder: Path, stop_at: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", CHILD, str(folder), str(stop_at)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def assert_is_big(found: ImageSet) -> None:
    kept = [i for i in range(300) if i % 50 != 7]
    assert list(found.items) == kept
    assert found.pixels_N[: len(kept), 3, 3, 2].tolist() == [i % 251 for i in kept]
    assert found.names[:2] == ("picture 0", "picture 1")
    assert found.skipped == tuple(f"broken {i}" for i in range(7, 300, 50))


def never(done: int) -> Iterator[PreparedImage | str]:
    raise AssertionError("it is whole")


def test_a_second_process_goes_on_where_a_killed_one_stopped(tmp_path: Path) -> None:
    with start(tmp_path, stop_at=200) as first, start(tmp_path, stop_at=-1) as second:  # the second waits for a word
        assert [read(first), read(first)] == ["from 0", "there"]
        assert second.stdin is not None
        second.stdin.write("go\n")
        second.stdin.flush()
        assert read(second).startswith("waiting for another job")
        first.kill()
        rest = second.communicate(timeout=60)[0].split("\n")
    assert "from 192" in rest  # three entries of the journal, of 64 each
    assert_is_big(open_set(tmp_path, "big", (300, 4, 4, 3), never, ignore))
    assert visible_folders(tmp_path) == ["big"]


def interrupted(folder: Path, at: int) -> None:
    with start(folder, stop_at=at) as child:
        assert [read(child), read(child)] == ["from 0", "there"]
        child.kill()


def go_on(folder: Path) -> int:
    """Return how many pictures the next process does not prepare."""
    with start(folder, stop_at=-1) as child:
        begun, ended = child.communicate("go\n", timeout=60)[0].splitlines()
    assert ended == "whole"
    assert_is_big(open_set(folder, "big", (300, 4, 4, 3), never, ignore))
    return int(begun.removeprefix("from "))


@pytest.mark.parametrize(("spoiled", "kept"), [("nothing", 128), ("last line", 127), ("pixels", 0), ("header", 0)])
def test_only_what_the_journal_and_the_pixels_both_hold_is_kept(tmp_path: Path, spoiled: str, kept: int) -> None:
    interrupted(tmp_path, 150)
    partial = tmp_path / FOLDER / ".big.partial"
    images, journal = partial / "images.npy", partial / "rows.jsonl"
    if spoiled == "last line":
        journal.write_bytes(journal.read_bytes()[:-4])
    elif spoiled == "pixels":
        images.write_bytes(images.read_bytes()[:1000])
    elif spoiled == "header":
        images.write_bytes(b"\0" * images.stat().st_size)
    assert go_on(tmp_path) == kept


def test_an_interrupted_job_keeps_what_it_prepared_and_a_refused_one_does_not(tmp_path: Path) -> None:
    def build(done: int) -> Iterator[PreparedImage | str]:
        yield from list(pictures(70))[done:]
        raise Interrupted("Ctrl-C") if done == 0 else DataError("enough")

    with pytest.raises(Interrupted):
        open_set(tmp_path, "stopped", (80, 8, 8, 3), build, ignore)
    assert visible_folders(tmp_path) == [".stopped.partial"]
    with pytest.raises(DataError):
        open_set(tmp_path, "stopped", (80, 8, 8, 3), build, ignore)
    assert visible_folders(tmp_path) == []


def test_progress_counts_what_was_there_already(tmp_path: Path) -> None:
    done: list[int] = []
    open_set(tmp_path, "four", (4, 8, 8, 3), lambda _: pictures(4), ignore, done.append)
    assert done == [1, 2, 3, 4]
