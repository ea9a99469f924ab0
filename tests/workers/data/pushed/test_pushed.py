"""Photographs in the object store: pushed once, pulled once, and the same arrays as from the photographs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import DataAbsent, DataError, Interrupted, StoreUnreachable
from schemas.job import DataSpec, EvaluationSpec, JobSpec, ModelSpec
from schemas.lifecycle import StopReason
from tests.support.object_store import BUCKET
from tests.support.object_store import ObjectStore as Server
from workers.data.checks import data_digest
from workers.data.data_root import DataRoot
from workers.data.dataset import JobData, load_job_data
from workers.data.prepared.image_sets import FOLDER, IMAGES
from workers.data.prepared.photographs import have_masks, part_set, photograph_set
from workers.data.pushed import pushing
from workers.data.pushed.description import SHARDS
from workers.data.pushed.pulling import PULLED, SharedData, make_room, read_head
from workers.data.pushed.pushing import Pushed, push
from workers.data.readers.sources import NEGATIVES
from workers.figures.restore import load_data
from workers.job import stop_reason_of
from workers.objects.base import ObjectStore, open_objects
from workers.objects.folder import FolderObjects

SIZE = 32
CAT = DataSpec(categories=("voc_part/cat",), images="photographs")
JOBS = {
    "a category, and others as negatives": CAT,
    "a category, and the folder of negatives": CAT.model_copy(update={"negatives": "folder"}),
    "two data sets": DataSpec(categories=("voc_part/cow", "cub200/bird"), images="photographs", split="seeded"),
    "species": DataSpec(categories=("voc_part/cat", "cub200/bird"), images="photographs", labels="species"),
    "everything labelled": DataSpec(categories=("voc_part/cat",), images="photographs", labels="everything"),
    "the official split": DataSpec(categories=("cub200/bird",), images="photographs", split="official"),
}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "SHARD_BYTES", 50_000)


@pytest.fixture
def store(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "store")


def pushed(
    root: Path, cache: Path, store: ObjectStore, dataset: Any = "voc_part", sizes: tuple[int, ...] = (SIZE,)
) -> Pushed:
    opened = DataRoot.open(root, cache)

    def prepare(category: str, size: int) -> None:
        found = photograph_set(opened, category, size, lambda _: None)
        if category != NEGATIVES and have_masks(opened.records(category)):
            part_set(opened, category, found, lambda _: None)

    return push(opened, dataset, sizes, prepare, store, 1.0)


def shared(store: ObjectStore, *, patience: float = 0.0, cache_bytes: int = 10**9) -> SharedData:
    return SharedData(store, patience, cache_bytes)


def load(data: DataSpec, cache: Path, root: Path | None, source: SharedData | None = None, **options: Any) -> JobData:
    size = options.pop("size", SIZE)
    where = {"cache_dir": cache, "data_root": root, "shared": source}
    return load_job_data(data, EvaluationSpec(split="all"), input_size=size, seed=3, **where, **options)


def planned(data: DataSpec, root: Path) -> DataSpec:
    return data.model_copy(update={"digest": data_digest(data, DataRoot.open(root))})


def digest_of(loaded: JobData) -> str:
    """Digest of everything that a training takes from its data."""
    found = hashlib.sha256(f"{loaded.digest} {loaded.label_names} {loaded.category_names} {loaded.skipped}".encode())
    for split in (loaded.train, loaded.test, loaded.measured):
        found.update(repr(split.names_N).encode())
        for array in (split.labels_N, split.categories_N, split.landmarks_NK2, split.take(range(len(split)))):
            found.update(np.ascontiguousarray(array).tobytes())
    found.update(loaded.mean_SS3.tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("data", JOBS.values(), ids=JOBS)
def test_a_job_trains_on_the_same_arrays_from_photographs_and_from_the_store(
    data: DataSpec, data_root: Path, store: FolderObjects, tmp_path: Path
) -> None:
    pushed(data_root, tmp_path / "driver", store, data.categories[0].partition("/")[0])
    job = planned(data, data_root)
    here = digest_of(load(job, tmp_path / "here", data_root))
    shutil.rmtree(data_root)
    assert digest_of(load(job, tmp_path / "node", None, shared(store))) == here


def test_the_second_push_sends_nothing_and_another_size_only_itself(
    data_root: Path, store: FolderObjects, tmp_path: Path
) -> None:
    first = pushed(data_root, tmp_path / "cache", store)
    assert first.sent == first.bytes > 0
    assert {"voc_part/cat", "voc_part/cow", "voc_part/dog", "cub200/bird", NEGATIVES} == set(first.categories)
    before = {one.key: one.modified for one in store.list("")}
    assert pushed(data_root, tmp_path / "cache", store).sent == 0
    assert {one.key: one.modified for one in store.list("")} == before
    assert pushed(data_root, tmp_path / "cache", store, "cub200").sent == 0  # its jobs draw on the same pictures
    larger = pushed(data_root, tmp_path / "cache", store, sizes=(48,))
    assert larger.sent == larger.bytes
    head = read_head(store, "voc_part")
    assert head is not None
    assert set(head.sizes) == {str(SIZE), "48"}


def test_pictures_are_pulled_once_and_then_need_no_store(data_root: Path, store: FolderObjects, tmp_path: Path) -> None:
    pushed(data_root, tmp_path / "driver", store)
    job = planned(CAT, data_root)
    phases: list[str] = []
    first = digest_of(load(job, tmp_path / "node", None, shared(store), on_progress=phases.append))
    assert any(phase.startswith("pulling voc_part-cat") and phase.endswith("MB") for phase in phases)
    shutil.rmtree(store.root)
    assert digest_of(load(job, tmp_path / "node", None, shared(store))) == first


def test_two_jobs_of_a_machine_pull_each_set_once(
    data_root: Path, store: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(data_root, tmp_path / "driver", store)
    job, got = planned(CAT, data_root), []
    original = FolderObjects.get

    def counted(self: FolderObjects, key: str, *rest: Any) -> None:
        got.append(key)
        original(self, key, *rest)

    monkeypatch.setattr(FolderObjects, "get", counted)
    with ThreadPoolExecutor(2) as threads:
        found = set(threads.map(lambda _: digest_of(load(job, tmp_path / "node", None, shared(store))), range(2)))
    assert len(found) == 1
    assert len(got) == len(set(got)) > 0


PUSH_AND_DIE = """
import os, signal, sys
from pathlib import Path
import importlib.util as u
spec = u.spec_from_file_location("t", sys.argv.pop())
t = u.module_from_spec(spec)
spec.loader.exec_module(t)
from workers.objects.folder import FolderObjects
t.pushing.SHARD_BYTES = 50_000
root, cache, store = map(Path, sys.argv[1:])
done = 0
original = FolderObjects.{method}
def dies(self, *rest):
    global done
    done += 1
    if done > 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *rest)
FolderObjects.{method} = dies
{work}
"""


def killed(work: str, method: str, *paths: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PUSH_AND_DIE.format(work=work, method=method), *map(str, paths), __file__]
    )
    assert ended.returncode == -signal.SIGKILL


def test_a_push_that_was_killed_shows_nothing_and_is_continued(
    data_root: Path, store: FolderObjects, tmp_path: Path
) -> None:
    killed("t.pushed(root, cache, FolderObjects(store))", "put", data_root, tmp_path / "cache", store.root)
    assert read_head(store, "voc_part") is None
    left = sum(one.size for one in store.list(SHARDS))
    with pytest.raises(DataAbsent):
        load(CAT, tmp_path / "node", None, shared(store))
    again = pushed(data_root, tmp_path / "cache", store)
    assert left > 0
    assert again.sent == again.bytes - left
    load(planned(CAT, data_root), tmp_path / "node", None, shared(store))


def test_a_pull_that_was_killed_is_continued(
    data_root: Path, store: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(data_root, tmp_path / "driver", store)
    job = planned(CAT, data_root)
    here = digest_of(load(job, tmp_path / "here", data_root))
    work = "t.load(t.planned(t.CAT, root), cache, None, t.shared(FolderObjects(store)))"
    killed(work, "get", data_root, tmp_path / "node", store.root)
    got = []
    original = FolderObjects.get

    def counted(self: FolderObjects, key: str, *rest: Any) -> None:
        got.append(key)
        original(self, key, *rest)

    monkeypatch.setattr(FolderObjects, "get", counted)
    assert digest_of(load(job, tmp_path / "node", None, shared(store))) == here
    assert len(got) < len(list(store.list(SHARDS)))


def test_a_flipped_bit_is_found_the_shard_removed_and_pushed_again(
    data_root: Path, store: FolderObjects, tmp_path: Path
) -> None:
    pushed(data_root, tmp_path / "driver", store)
    job = planned(CAT, data_root)
    cats = next(one.key for one in store.list("data/image-sets/voc_part-cat"))
    record = json.loads((store.root / cats).read_bytes())
    largest = next(one for one in store.list(SHARDS) if one.key.endswith(record["images"][1]["sha256"]))
    path = store.root / largest.key
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataAbsent, match=r"damaged shard.*orch data push voc_part"):
        load(job, tmp_path / "node", None, shared(store))
    assert store.size(largest.key) is None
    assert pushed(data_root, tmp_path / "driver", store).sent == largest.size
    here = digest_of(load(job, tmp_path / "here", data_root))
    assert digest_of(load(job, tmp_path / "node", None, shared(store))) == here


def test_data_that_changed_since_the_push_are_not_taken_for_those_of_the_plan(
    data_root: Path, store: FolderObjects, tmp_path: Path
) -> None:
    pushed(data_root, tmp_path / "driver", store)
    older = planned(CAT, data_root)
    before = digest_of(load(older, tmp_path / "here", data_root))
    next((data_root / "neg").iterdir())
    cats = data_root / "voc_part/VOCdevkit/VOC2010/JPEGImages"
    shutil.copy(cats / "2008_010001.jpg", cats / "2008_010000.jpg")
    newer = planned(CAT, data_root)
    with pytest.raises(DataAbsent, match=r"other data than the sweep was planned with.*orch data push voc_part"):
        load(newer, tmp_path / "node", None, shared(store))
    pushed(data_root, tmp_path / "driver", store)
    load(newer, tmp_path / "node", None, shared(store))
    assert digest_of(load(older, tmp_path / "other", None, shared(store))) == before


def test_a_size_that_was_not_pushed_is_named(data_root: Path, store: FolderObjects, tmp_path: Path) -> None:
    pushed(data_root, tmp_path / "driver", store)
    with pytest.raises(DataAbsent, match=r"orch data push voc_part --size 48$"):
        load(CAT, tmp_path / "node", None, shared(store), size=48)


def no_root(root: Path) -> Path | None:
    return None


def no_folder(root: Path) -> Path | None:
    return root / "nowhere"


def no_such_dataset(root: Path) -> Path | None:
    shutil.rmtree(root / "voc_part")
    return root


def no_negatives(root: Path) -> Path | None:
    shutil.rmtree(root / "neg")
    return root


def too_few(root: Path) -> Path | None:
    for path in (root / "voc_part/VOCdevkit/VOC2010/JPEGImages").iterdir():
        path.unlink()
    return root


def other_digest(root: Path) -> Path | None:
    (root / "voc_part/truth/cow.csv").unlink()
    return root


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (no_root, StopReason.DATA_ABSENT), (no_folder, StopReason.DATA_ABSENT),
        (no_such_dataset, StopReason.DATA_ABSENT), (no_negatives, StopReason.DATA_ABSENT),
        (too_few, StopReason.BAD_DATA), (other_digest, StopReason.BAD_DATA),
    ],
)  # fmt: skip
def test_what_is_absent_and_what_is_bad(
    damage: Callable[[Path], Path | None], reason: StopReason, data_root: Path, tmp_path: Path
) -> None:
    negatives = "folder" if damage is no_negatives else "other_categories"
    job = planned(CAT.model_copy(update={"negatives": negatives}), data_root)
    with pytest.raises(DataError) as caught:
        load(job, tmp_path / "node", damage(data_root))
    assert stop_reason_of(caught.value) is reason
    if reason is StopReason.DATA_ABSENT:
        assert os.uname().nodename in str(caught.value)
        assert "orch data push voc_part" in str(caught.value)


def test_bad_data_here_are_not_hidden_by_what_was_pushed(data_root: Path, store: FolderObjects, tmp_path: Path) -> None:
    pushed(data_root, tmp_path / "driver", store)
    job = planned(CAT, data_root)
    with pytest.raises(DataError) as caught:
        load(job, tmp_path / "node", other_digest(data_root), shared(store))
    assert stop_reason_of(caught.value) is StopReason.BAD_DATA


def test_the_longest_unused_sets_make_room_and_those_in_use_stay(
    data_root: Path, store: FolderObjects, tmp_path: Path
) -> None:
    pushed(data_root, tmp_path / "driver", store)
    node = tmp_path / "node"
    load(planned(JOBS["a category, and the folder of negatives"], data_root), node, None, shared(store))
    sets = {path.parent.name: path.parent for path in (node / FOLDER).glob(f"*/{PULLED}")}
    cats = next(sets[name] for name in sets if name.startswith("voc_part-cat"))
    negatives = next(sets[name] for name in sets if name.startswith(NEGATIVES))
    for age, folder in ((100, cats), (200, negatives)):
        os.utime(folder / "info.json", (1e9 - age, 1e9 - age))
    own = photograph_set(DataRoot.open(data_root, node), "cub200/bird", 48, lambda _: None)
    make_room(node, 1, (cats / IMAGES).stat().st_size + 1)
    assert (cats.exists(), negatives.exists()) == (True, False)
    used = load(planned(JOBS["a category, and the folder of negatives"], data_root), node, None, shared(store))
    make_room(node, 1, 0)
    assert cats.exists()
    assert negatives.exists()
    del used
    make_room(node, 1, 0)
    assert not cats.exists()
    assert not negatives.exists()
    assert (node / FOLDER / own.key).exists()  # prepared here, from photographs that may be gone


def test_an_outage_is_waited_for_and_what_was_pulled_before_it_is_kept(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    store = open_objects(f"s3://{BUCKET}/lab")
    pushed(data_root, tmp_path / "driver", store)
    assert pushed(data_root, tmp_path / "driver", store).sent == 0
    job = planned(CAT, data_root)
    here = digest_of(load(job, tmp_path / "here", data_root))
    is_cut, waited = False, 0

    def on_progress(phase: str) -> None:
        nonlocal is_cut, waited
        if phase.startswith("pulling voc_part-cow") and not is_cut:
            is_cut = True
            server.stop()
        if phase == "waiting for the object store":
            waited += 1
            server.start()

    try:
        source = shared(store, patience=60.0)
        assert digest_of(load(job, tmp_path / "node", None, source, on_progress=on_progress)) == here
        assert waited
        server.stop()
        with pytest.raises(StoreUnreachable):
            load(job, tmp_path / "other", None, shared(store))
    finally:
        server.start()
        server.stop()


def test_a_job_that_is_stopped_while_it_pulls_keeps_what_it_has(
    data_root: Path, store: FolderObjects, tmp_path: Path
) -> None:
    pushed(data_root, tmp_path / "driver", store)

    def stop(phase: str) -> None:
        if phase.startswith("pulling voc_part-cow"):
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        load(planned(CAT, data_root), tmp_path / "node", None, shared(store), on_progress=stop)
    load(planned(CAT, data_root), tmp_path / "node", None, shared(store))


def test_figures_are_drawn_from_what_was_pushed(data_root: Path, store: FolderObjects, tmp_path: Path) -> None:
    pushed(data_root, tmp_path / "driver", store)
    model = ModelSpec(backbone="alexnet", variant="ordinary", input_size=64)
    evaluation = EvaluationSpec(split="all")
    spec = JobSpec(data=planned(CAT, data_root), model=model, evaluation=evaluation)
    pushed(data_root, tmp_path / "driver", store, sizes=(64,))
    shutil.rmtree(data_root)
    with pytest.raises(DataAbsent):
        load_data(spec, tmp_path / "here", data_root, lambda _: None, None)
    found = load_data(spec, tmp_path / "here", data_root, lambda _: None, shared(store))
    assert found.digest == spec.data.digest
